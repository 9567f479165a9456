"""Does a compiled sum that is fused with what follows it have the right numbers past element 32768?"""

import os
import subprocess
import sys

import jax
import pytest

from maskanim_jax.utils import xla_flags

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
CHECK = """
import maskanim_jax
import jax, numpy as np
random = np.random.default_rng(0)
a, w, t = (random.standard_normal(shape).astype(np.float32) for shape in ((4096, 9), (8, 9), (8, 4096, 2)))
found = jax.jit(lambda a, w, t: t + ((a**2)[None] * w[:, None]).sum(-1)[..., None])(a, w, t)
np.testing.assert_allclose(found, t + np.einsum("mk,nk->nm", a**2, w)[..., None], atol=1e-3)
"""


@pytest.mark.subprocess
def test_the_installed_jaxlib_computes_correctly_after_the_import():
    env = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CHECK], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_started_jax_is_warned_about(monkeypatch):
    jax.devices()
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(xla_flags, "_jaxlib", lambda: xla_flags.WRONG)
    with pytest.warns(UserWarning, match=r"^jaxlib 0\.10\.2 .* import maskanim_jax first"):
        xla_flags.avoid_wrong_sums()


@pytest.mark.parametrize(
    ("version", "before", "after"),
    [
        ("0.10.2", "", f"{FLAG}=-reduce"),
        ("0.10.2", "--xla_a=1", f"--xla_a=1 {FLAG}=-reduce"),
        ("0.10.2", f"{FLAG}=+reduce", f"{FLAG}=+reduce"),
        ("0.10.1", "", ""),
        ("0.11.2", "--xla_a=1", "--xla_a=1"),
        ("", "", ""),
    ],
)
def test_only_the_wrong_release_gets_the_flag_and_a_users_choice_stays(monkeypatch, version, before, after):
    monkeypatch.setenv("XLA_FLAGS", before)
    monkeypatch.setattr(xla_flags, "_jaxlib", lambda: version)
    monkeypatch.setattr(xla_flags, "_runs_on_cpu", lambda: False)
    xla_flags.avoid_wrong_sums()
    assert os.environ["XLA_FLAGS"] == after
