"""Which types do the networks' signatures share?"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

DType = Any
"""A floating-point type that JAX accepts, such as `jnp.bfloat16`."""

PRECISIONS: dict[str, DType] = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
"""Values of `config.precision`."""
