"""Do the native convolutions equal XLA's on any number of threads and devices, and are they optional?"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from maskanim_jax.nn.kernels.convolution import conv2d
from maskanim_jax.nn.kernels.native import build, ffi
from maskanim_jax.nn.kernels.per_device import BATCH, apply_per_device
from maskanim_jax.nn.kernels.upsampling import upsample, upsampled_conv2d

HERE = Path(__file__).parent
without = pytest.mark.skipif(not build.load().prefix, reason=f"convolutions are XLA's here: {build.load().reason}")


def plain(x, kernel, padding="SAME"):
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def some(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def check(ours, theirs, x, kernel, most=3e-5):
    """Value and both gradients under one random cotangent, as shares of the largest number."""
    value, pull = jax.vjp(theirs, x, kernel)
    g = some(*value.shape, seed=9)
    wanted = (value, *pull(g))
    value, pull = jax.vjp(ours, x, kernel)
    for one, other in zip((value, *pull(g)), wanted, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=most * float(jnp.abs(other).max()))


def calls_in(function, *inputs):
    """How often the compiled program calls ours."""
    return jax.jit(function).lower(*inputs).as_text().count("@" + build.load().prefix)


@pytest.mark.slow
@without
@pytest.mark.parametrize(
    ("picture", "channels"),
    [
        ((4, 32, 32), (16, 16)),  # by points, a strip of one vector
        ((2, 29, 31), (32, 48)),  # tiles that reach over, one strip and a half
        ((1, 40, 64), (256, 256)),  # a wide kernel, strip by strip
        ((2, 57, 60), (272, 256)),
        ((2, 8, 8), (64, 32)),  # too few tiles
        ((3, 5, 7), (9, 20)),  # no whole vectors
        ((1, 1, 3), (256, 272)),  # a kernel that is larger than the picture
        ((2, 16, 18), (24, 3)),  # few outputs
        ((2, 6, 5), (24, 1)),  # fewer pixels in a row than are computed at once
        ((2, 16, 18), (3, 24)),
        ((1, 1, 1), (1, 1)),
    ],
)
def test_values_and_gradients_of_3x3(picture, channels):
    x, kernel = some(*picture, channels[0]), some(3, 3, *channels, seed=1)
    assert calls_in(conv2d, x, kernel) == 1
    check(conv2d, plain, x, kernel)


@pytest.mark.slow
@without
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("size", [1, 2, 4, 5, 7])
@pytest.mark.parametrize("channels", [(5, 64), (64, 3), (20, 8), (18, 4), (16, 40)])
def test_values_and_gradients_of_other_kernels(padding, size, channels):
    x, kernel = some(2, 17, 12, channels[0]), some(size, size, *channels, seed=1)
    check(lambda x, k: conv2d(x, k, padding), lambda x, k: plain(x, k, padding), x, kernel)


@pytest.mark.slow
@without
@pytest.mark.parametrize(
    ("picture", "channels"),
    [((2, 12, 16), (32, 32)), ((2, 20, 17), (256, 256)), ((3, 3, 5), (10, 7)), ((2, 9, 9), (6, 2))],
)
def test_values_and_gradients_of_upsampled_pictures(picture, channels):
    x, kernel = some(*picture, channels[0]), some(3, 3, *channels, seed=1)
    assert calls_in(upsampled_conv2d, x, kernel) == 1
    check(upsampled_conv2d, lambda x, k: plain(upsample(x), k), x, kernel)


@without
def test_many_sums_lose_no_digits():
    """All of one sign: what rounding takes away would add up."""
    x, kernel = jnp.abs(some(1, 64, 64, 64)) + 1, jnp.abs(some(3, 3, 64, 64, seed=1))
    check(conv2d, plain, x, kernel, 1e-5)


def one_result():
    """A number for each way of computing, from all bits of value and gradients."""
    found = []
    for picture, inputs, outputs in (
        ((4, 32, 32), 32, 64),
        ((1, 48, 48), 256, 256),
        ((2, 20, 20), 24, 3),
        ((2, 9, 9), 64, 64),
    ):
        x, kernel = some(*picture, inputs), some(3, 3, inputs, outputs, seed=1)
        value, pull = jax.vjp(conv2d, x, kernel)
        for array in (value, *pull(value)):
            found.append(int(np.asarray(array).view(np.uint32).astype(np.uint64).sum()))
    return found


@pytest.mark.subprocess
@without
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot give a process fewer cores")
def test_the_number_of_threads_changes_no_bit():
    code = (
        f"import sys, os, json; sys.path.insert(0, {str(HERE)!r}); os.sched_setaffinity(0, {{sorted(os.sched_getaffinity(0))[0]}}); "
        "from test_native import one_result; print(json.dumps(one_result()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == one_result() == one_result()


def sharded_programs():
    """A convolution's gradients on two devices: difference to one device, and what the program of each device calls."""
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    x, kernel = some(4, 32, 32, 32), some(3, 3, 32, 32, seed=1)

    def gradients(x, kernel):
        return jax.grad(lambda x, k: jnp.square(conv2d(x, k)).mean(), (0, 1))(x, kernel)

    def on_mesh(x, kernel):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return gradients(x, kernel)

    run = jax.jit(on_mesh, in_shardings=(split, whole), out_shardings=(split, whole))
    placed = jax.device_put(x, split), jax.device_put(kernel, whole)
    difference = max(
        float(jnp.abs(a - b).max()) for a, b in zip(run(*placed), jax.jit(gradients)(x, kernel), strict=True)
    )
    text = run.lower(*placed).compile().as_text()
    return {"difference": difference, "gathers": text.count("all-gather("), "halves": text.count("f32[2,32,32,32]") > 0}


@pytest.mark.subprocess
@without
def test_each_device_convolves_its_own_part():
    code = f"import sys, json; sys.path.insert(0, {str(HERE)!r}); from test_native import sharded_programs; print(json.dumps(sharded_programs()))"
    two = {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | two, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["difference"] < 1e-6
    assert found["gathers"] == 0
    assert found["halves"]


def test_a_single_picture_on_two_devices_is_every_devices():
    """The source of a video: what belongs to no part of a batch is not split."""
    mesh = jax.sharding.AbstractMesh((2,), ("data",))
    with jax.sharding.use_abstract_mesh(mesh):
        assert apply_per_device(jnp.add, (), BATCH, 1) is jnp.add
        assert apply_per_device(jnp.add, (), BATCH, 4) is not jnp.add


@without
def test_what_does_not_fit_is_refused_and_not_computed():
    x, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 5, 4))
    with pytest.raises(Exception, match="do not fit"):
        jax.block_until_ready(ffi.convolution(x, kernel, (8, 8), 1))
    with pytest.raises(Exception, match="do not fit"):
        jax.block_until_ready(ffi.convolution(x, jnp.ones((3, 3, 4, 4)), (4, 4), 1))


THROWING = """
#include <cstdio>
#include <new>
#include "parallel.h"

int main() {
  const maskanim::Pool pool{2, [](std::function<void()> task) { std::thread(std::move(task)).detach(); }};
  for (int where : {0, 99, 999}) {
    try {
      maskanim::InParallel(pool, 1000, [&](int64_t i) { if (i >= where) throw std::bad_alloc(); });
      std::puts("nothing");
    } catch (const std::bad_alloc&) {
      std::puts("caught");
    }
  }
}
"""


@pytest.mark.subprocess
@without
def test_what_a_job_throws_in_any_thread_comes_to_the_caller(tmp_path):
    """A thread that runs out of memory would otherwise end the process, without a sentence."""
    source, program = tmp_path / "throwing.cc", tmp_path / "throwing"
    source.write_text(THROWING)
    compiler, *flags = build._command()
    subprocess.run([compiler, *flags, "-I", build.SOURCES, source, "-o", program], check=True, timeout=300)
    assert subprocess.run([program], capture_output=True, text=True, timeout=60).stdout.split() == ["caught"] * 3


@pytest.mark.subprocess
@without
@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="this system does not say how much memory a process has"
)
def test_without_memory_there_is_a_sentence():
    code = (
        "import resource, jax, jax.numpy as jnp\n"
        "from maskanim_jax.nn.kernels.convolution import conv2d\n"
        "run = jax.jit(conv2d)\n"
        "x, kernel = jnp.ones((8, 1024, 1024, 16)), jnp.ones((7, 7, 16, 1))\n"
        "program = run.lower(x, kernel).compile()\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now + (256 << 20), -1))\n"
        "try: jax.block_until_ready(program(x, kernel))\n"
        "except jax.errors.JaxRuntimeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "RESOURCE_EXHAUSTED: out of memory: a convolution" in done.stdout


def test_half_precision_and_exports_go_without():
    x, kernel = some(1, 8, 8, 4), some(3, 3, 4, 4)
    assert not ffi.usable(x.astype(jnp.bfloat16))
    with build.disable_native():
        assert not ffi.usable(x)
        text = jax.export.export(jax.jit(lambda x, k: conv2d(x, k)), platforms=["cpu"])(x, kernel).mlir_module()
    assert "custom_call @maskanim" not in text
    assert ffi.usable(x) == bool(build.load().prefix)


# -- building ------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """A cache of its own, and `found` as for the first time; XLA knows the functions already and would not hear of them again."""
    monkeypatch.setenv("MASKANIM_CACHE", str(tmp_path))
    monkeypatch.setattr(jax.ffi, "register_ffi_target", lambda *_, **__: None)
    found = build.load.__wrapped__
    return lambda **variables: ([monkeypatch.setenv(*each) for each in variables.items()] and None) or found()


def test_the_switch_turns_them_off(anew):
    assert anew(MASKANIM_NATIVE="0") == build.NativeLibrary("", "MASKANIM_NATIVE=0")


def test_without_a_compiler_there_is_a_reason(anew, tmp_path):
    assert "there is no C++ compiler" in anew(CXX="no-such-compiler", PATH=str(tmp_path)).reason


def test_a_compiler_that_fails_leaves_nothing_behind(anew, tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'x.cc:1: error: not today' >&2\nexit 1\n")
    broken.chmod(0o755)
    found = anew(CXX=str(broken))
    assert not found.prefix
    assert "not today" in found.reason
    assert not list((tmp_path / "native").iterdir())


@without
@pytest.mark.slow
def test_a_damaged_file_in_the_cache_is_made_again_once_and_told_in_a_word(anew, tmp_path):
    digest = build._digest(build._command())
    damaged = tmp_path / "native" / f"{digest}-{'0' * 16}.so"
    damaged.parent.mkdir()
    damaged.write_bytes(b"not a library")
    first = anew()
    (made,) = (path for path in damaged.parent.iterdir() if path != damaged)
    assert first.prefix == build.load().prefix == f"maskanim_{digest}"
    assert made.stem.startswith(f"{digest}-")
    written = made.stat().st_mtime_ns
    assert anew() == first
    assert made.stat().st_mtime_ns == written
    assert len(list(damaged.parent.iterdir())) == 2
    assert build.describe_backend() == f"compiled, {first.prefix}"
