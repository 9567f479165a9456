"""Does the step lower for accelerators that this machine lacks? It must not contain CPU-only operations."""

import re
from functools import cache

import hlo_traffic
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from tiny import tiny_config

from maskanim_jax.losses.vgg import used_weights
from maskanim_jax.pretrained.vgg19 import untrained_vgg19
from maskanim_jax.systems import build
from maskanim_jax.systems.train_state import abstract_state
from maskanim_jax.training.step import make_train_step

pytestmark = pytest.mark.slow

CELLS = [(platform, precision) for platform in ("tpu", "cuda") for precision in ("float32", "bfloat16")]
# What JAX may call on the platform: sharding marks, the threefry generator, top-k and sort of a TPU or GPU.
KNOWN_CALLS = re.compile(
    r"Sharding|SPMD\w*|annotate_device_placement|cu_threefry2x32\w*|AssumeGatherIndicesInBound|TopK|mhlo\.\w+"
)
COLLECTIVES = re.compile(r"stablehlo\.(all_reduce|all_gather|reduce_scatter|all_to_all|collective_\w+)")


def shapes(tree):
    """Names and shapes of a tree of arrays."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), tree)


@cache
def tiny_system(precision):
    """The tiny config's system, and the config."""
    config = tiny_config()
    config.precision = precision
    return build(config), config


@cache
def abstract(precision):
    """Names and shapes of the training state."""
    system, config = tiny_system(precision)
    return abstract_state(system, config.seed, 10)


@cache
def lowered_step(platform, precision):
    """StableHLO text of one training step on one device of the platform."""
    system, config = tiny_system(precision)
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,))
    frames = jax.ShapeDtypeStruct((config.batch_size, config.frame_size, config.frame_size, 3), jnp.uint8)
    frozen = shapes(used_weights(untrained_vgg19(0), config.loss.vgg_layers))
    step = make_train_step(system, config.seed, 10, mesh)
    return jax.export.export(step, platforms=[platform])(abstract(precision), frozen, frames, frames).mlir_module()


@cache
def lowered_animation(platform, precision):
    """StableHLO text of what is done once for a video and then for two of its frames."""
    system, config = tiny_system(precision)
    options = system.animation_options({})

    def animate(variables, source, driving):
        source_state = system.encode_source(variables, source, driving[:1])
        return system.animate(variables, source_state, driving, options)

    variables = abstract(precision).variables
    one, two = (jax.ShapeDtypeStruct((n, config.frame_size, config.frame_size, 3), jnp.float32) for n in (1, 2))
    return jax.export.export(jax.jit(animate), platforms=[platform])(variables, one, two).mlir_module()


def both(platform, precision):
    """The step's text and the animation's."""
    return lowered_step(platform, precision), lowered_animation(platform, precision)


def conv_types(text):
    """Element types of the inputs, kernels and results of all convolutions."""
    found = re.findall(r"stablehlo\.convolution\(.*: \(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>", text)
    return [{kind.split("x")[-1] for kind in kinds} for kinds in found]


@pytest.mark.parametrize(("platform", "precision"), CELLS)
def test_step_and_animation_call_nothing_that_only_a_cpu_has(platform, precision):
    for text in both(platform, precision):
        called = set(re.findall(r'custom_call @?"?([\w.$]+)', text)) | set(
            re.findall(r'call_target_name = "([^"]+)"', text)
        )
        assert not [name for name in called if not KNOWN_CALLS.fullmatch(name)]


@pytest.mark.parametrize(("platform", "precision"), CELLS)
def test_one_device_needs_no_collectives_and_no_double_precision(platform, precision):
    for text in both(platform, precision):
        assert not COLLECTIVES.search(text)
        assert "f64" not in re.findall(r"\bf\d+\b", text.replace("x", " "))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_precision_is_that_of_every_convolution(platform):
    for text in both(platform, "bfloat16"):
        types = conv_types(text)
        assert types
        assert all(kinds == {"bf16"} for kinds in types)
    for text in both(platform, "float32"):
        assert conv_types(text)
        assert "bf16" not in text


COMPILED = """HloModule step
%fused (param_0: bf16[2,8,8,64], param_1: f32[3]) -> bf16[2,8,8,64] {
  %param_0 = bf16[2,8,8,64]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %param_1 = f32[3]{0:T(128)} parameter(1)
  ROOT %out = bf16[2,8,8,64]{3,2,1,0:T(8,128)(2,1)S(1)} multiply(%param_0, %param_0)
}

%body (carry: (s32[])) -> (s32[]) {
  %carry = (s32[]) parameter(0)
  %rows = f32[128]{0:T(128)} broadcast(%carry), metadata={op_name="jit(step)/transpose(jvp(fine))/up0/broadcast"}
  ROOT %next = (s32[]) tuple(%carry)
}

ENTRY %main (frames: bf16[2,8,8,64], small: f32[3]) -> bf16[2,8,8,64] {
  %frames = bf16[2,8,8,64]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %small = f32[3]{0:T(128)} parameter(1)
  %mean = f32[3]{0:T(128)} all-reduce(%small), metadata={op_name="jit(step)/jvp(fine)/up0/norm/reduce_sum"}
  %loop = (s32[]) while(%small), condition=%none, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %all = bf16[2,8,8,64]{3,2,1,0:T(8,128)(2,1)S(1)} fusion(%frames, %mean), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/jvp(fine)/up0/mul"}, backend_config={"estimated_cycles":"70"}
}
"""  # noqa: E501


def test_bytes_are_counted_with_padding_by_memory_and_by_place():
    found = {(part.label, part.kind): part for part in hlo_traffic.moved(COMPILED)}
    product = found["fine/up0", "elementwise"]
    frames, padded = 2 * 8 * 8 * 64 * 2, 2 * 8 * 8 * 128 * 2  # 64 channels take the place of 128
    assert product.logical == 2 * frames + 12
    assert product.stored == 2 * padded + 512  # 3 numbers take the place of 128
    assert product.hbm == padded + 512  # the result stays on the chip
    assert product.cycles == 70
    assert found["fine/up0, back", "broadcast"].logical == 5 * (512 + 4)  # five times around the loop
    assert hlo_traffic.collectives(COMPILED) == {"all-reduce": {"count": 1, "bytes": 12}}


def test_a_text_that_was_not_compiled_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo_traffic.moved("HloModule step")
