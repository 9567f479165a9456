"""How is a function reduced to the operations of one platform, for converters?

Converters support JAX's operations, but not platform-dependent branches and custom gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal

CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"} | {
    "custom_vjp_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}
"""Operations that only call a function, by the parameter that holds it."""


def used_inputs(function: Callable[..., Any], *shapes: Any) -> list[bool]:
    """For each leaf of the inputs, whether the outputs need it; `shapes` are trees of arrays or of
    their shapes.
    """
    traced = jax.make_jaxpr(function)(*shapes).jaxpr
    needed = _needed(traced)
    return [variable in needed for variable in traced.invars]


def for_platform(function: Callable[..., Any], platform: str, *shapes: Any) -> Callable[..., list[Any]]:
    """`function`, traced for inputs of these shapes, as a function of flat arrays that returns the
    flat outputs on `platform`.
    """
    traced = jax.make_jaxpr(function)(*shapes)

    def plain(*inputs: Any) -> list[Any]:
        return _evaluate(traced, platform, inputs)

    return plain


def _needed(jaxpr: Any) -> set[Any]:
    """The variables that lead to an output; an operation's inputs count as one."""
    needed = {variable for variable in jaxpr.outvars if not isinstance(variable, Literal)}
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(variable in needed for variable in equation.outvars):
            needed |= {variable for variable in equation.invars if not isinstance(variable, Literal)}
    return needed


def _evaluate(closed: ClosedJaxpr, platform: str, inputs: Sequence[Any]) -> list[Any]:
    jaxpr = closed.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values.update(zip(jaxpr.invars, inputs, strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    needed = _needed(jaxpr)
    for equation in jaxpr.eqns:
        if any(variable in needed for variable in equation.outvars) and equation.primitive.name != "platform_index":
            index = equation.invars[0] if equation.params.get("branches_platforms") else None
            found = _apply(equation, platform, [None if each is index else read(each) for each in equation.invars])
            values.update(zip(equation.outvars, found, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _apply(equation: Any, platform: str, inputs: list[Any]) -> list[Any]:
    """One operation's outputs."""
    name, params = equation.primitive.name, equation.params
    if platforms := params.get("branches_platforms"):
        fitting = [place for place, names in enumerate(platforms) if names is None or platform in names]
        return _evaluate(params["branches"][fitting[0]], platform, inputs[1:])
    if name in CALLS:
        inner = params[CALLS[name]]
        closed = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
        return _evaluate(closed, platform, inputs)
    found = equation.primitive.bind(*inputs, **params)
    return list(found) if equation.primitive.multiple_results else [found]
