"""Does a step depend on the number of devices, processes and microbatches, beyond rounding? And how much do they communicate?"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from collectives import collectives, counted
from small_system import SmallSystem
from tiny import smallest_config, tiny_config

from maskanim_jax.distributed.setup import configure_jax
from maskanim_jax.distributed.sharding import make_mesh, shard_batch
from maskanim_jax.errors import UserError
from maskanim_jax.losses.vgg import used_weights
from maskanim_jax.pretrained.vgg19 import untrained_vgg19
from maskanim_jax.systems import build
from maskanim_jax.systems.train_state import init_state
from maskanim_jax.training.step import make_train_step

HERE = Path(__file__).parent
EIGHT = {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"}
ROUNDING = 1e-4


def in_subprocess(code, env, *arguments):
    """What `code` printed as its last line, as JSON; it finds the functions of this file."""
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import json; from test_scale import *; print(json.dumps({code}))"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


# -- devices ---------------------------------------------------------------------------------------------------------------------------


def frames(seed, count=16, size=32):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def losses_on(devices, accumulate=1):
    """The losses of three steps on this many of this process's devices."""
    system, mesh = SmallSystem(), make_mesh(16, accumulate, jax.devices()[:devices])
    state, step = init_state(system, 0, 10), make_train_step(system, 0, 10, mesh, accumulate)
    found = []
    for seed in range(3):
        state, metrics = step(state, {}, shard_batch(mesh, frames(seed)), shard_batch(mesh, frames(seed + 3)))
        found.append(float(metrics["loss"]))
    return found


def losses_by_devices():
    return {f"{devices} devices": losses_on(devices) for devices in (1, 2, 4, 8)} | {
        f"{devices} devices, 2 parts": losses_on(devices, 2) for devices in (1, 8)
    }


@pytest.mark.subprocess
def test_one_two_four_and_eight_devices_give_the_same_losses_with_and_without_parts():
    found = in_subprocess("losses_by_devices()", EIGHT)
    for name, losses in found.items():
        alone = found["1 devices, 2 parts" if "parts" in name else "1 devices"]
        np.testing.assert_allclose(losses, alone, rtol=ROUNDING, err_msg=name)
    assert found["1 devices"] != found["1 devices, 2 parts"]  # batch statistics are those of a part


# -- processes -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["localhost:1,2", "localhost,2,0", "localhost:1,2,2", "localhost:1,two,0"])
def test_an_unreadable_address_of_the_other_processes_is_a_sentence(monkeypatch, value):
    monkeypatch.setenv("MASKANIM_DISTRIBUTED", value)
    with pytest.raises(UserError, match=r"MASKANIM_DISTRIBUTED=.*give ADDRESS:PORT,COUNT,INDEX"):
        configure_jax(tiny_config())


# -- parts -----------------------------------------------------------------------------------------------------------------------------


def test_a_batch_in_four_parts_moves_parameters_as_a_batch_in_one():
    """Plain least squares: no batch statistics, so the mean of the parts' gradients is the batch's gradient."""
    system, moved = SmallSystem(batch_norm=False), []
    for parts in (1, 4):
        mesh = make_mesh(16, parts, jax.devices()[:1])
        state, step = init_state(system, 0, 10), make_train_step(system, 0, 10, mesh, parts)
        start = np.asarray(state.params["conv"])
        state, metrics = step(state, {}, frames(0), frames(1))
        moved.append((np.asarray(state.params["conv"]) - start, float(metrics["loss"]), int(state.step)))
    assert np.abs(moved[0][0]).max() > 1e-4
    np.testing.assert_allclose(moved[1][0], moved[0][0], rtol=1e-4, atol=1e-7)
    assert moved[1][1:] == (pytest.approx(moved[0][1], rel=1e-5), 1)


def test_statistics_go_through_all_parts_and_each_part_has_its_own_noise():
    """Four equal microbatches: statistics are updated four times, and the loss differs from one part's, which has other noise."""
    system, mesh = SmallSystem(), make_mesh(16, 4, jax.devices()[:1])
    same = np.repeat(frames(0, 4), 4, axis=0)
    four, metrics = make_train_step(system, 0, 10, mesh, 4)(init_state(system, 0, 10), {}, same, same)
    one, alone = make_train_step(system, 0, 10, make_mesh(4, 1, jax.devices()[:1]))(
        init_state(system, 0, 10), {}, same[::4], same[::4]
    )
    decay = [float(1 - state.stats["norm"]["var"][...].max()) for state in (one, four)]
    assert decay[1] / decay[0] == pytest.approx((1 - 0.9**4) / 0.1, rel=0.1)
    assert float(metrics["loss"]) != float(alone["loss"])


@pytest.mark.parametrize(("batch", "parts"), [(16, 3), (16, 0), (7, 2)])
def test_a_batch_that_cannot_be_parted_is_a_sentence(batch, parts):
    with pytest.raises(UserError, match=r"config\.optim\.grad_accum_steps"):
        make_mesh(batch, parts, jax.devices()[:1])


# -- talk ------------------------------------------------------------------------------------------------------------------------------


def talk_of_a_step(devices=4):
    """[kind, largest array, numbers] of each collective, and how many batch norms and numbers the networks have."""
    config = smallest_config()
    system = build(config)
    state = jax.eval_shape(lambda: init_state(system, 0, 10))
    vgg = {
        name: jax.ShapeDtypeStruct(value.shape, value.dtype)
        for name, value in used_weights(untrained_vgg19(0), config.loss.vgg_layers).items()
    }
    pairs = jax.ShapeDtypeStruct((config.batch_size, config.frame_size, config.frame_size, 3), jnp.uint8)
    lowered = make_train_step(system, 0, 10, make_mesh(config.batch_size, 1, jax.devices()[:devices])).lower(
        state, vgg, pairs, pairs
    )
    norms = {name: len(jax.tree.leaves(stats)) // 2 for name, stats in state.stats.items()}
    numbers = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return collectives(lowered.compile().as_text()), norms, numbers


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_step_sends_gradients_and_batch_statistics_and_no_activations():
    found, norms, parameters = in_subprocess("talk_of_a_step()", EIGHT)
    from collectives import Collective

    found = [Collective(*each) for each in found]
    kinds = counted(found)
    # A batch norm reduces its mean, then the deviations, and both again for its gradient, one after the other. m runs twice.
    statistics = 4 * (sum(norms.values()) + norms["mask"])
    # The gradients of all networks are combined into a few reductions, not one per tensor.
    assert 0 < kinds["all-reduce"] <= statistics + 6, kinds
    # Each gradient value is exchanged once, m's twice; statistics are small in comparison.
    assert sum(each.numbers for each in found if each.kind == "all-reduce") < 2.5 * parameters
    others = [each for each in found if each.kind != "all-reduce"]
    # Frames and masks stay on their device: at most one number per sample is exchanged.
    assert all(each.largest <= smallest_config().batch_size for each in others), others
    assert len(others) <= 6, kinds


def test_collectives_are_read_from_a_program():
    program = """
      %a = (f32[3,3]{1,0}, f32[]) all-reduce(%x, %y), channel_id=1
      %b = bf16[8,4]{1,0} all-gather-start(%x), dimensions={0}
      %c = f32[2]{0} add(%all-reduce.1, %b)
      %d = u8[16]{0} collective-permute(%x)
    """
    assert collectives(program) == [("all-reduce", 9, 10), ("all-gather", 32, 32), ("collective-permute", 16, 16)]
