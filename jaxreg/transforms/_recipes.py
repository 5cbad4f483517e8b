"""How arrays follow from each other entry by entry, to compute them on slices.

XLA fuses elementwise steps into what reads them, but not across the edge of a loop: an
array that a loop reads slice by slice is first written as a whole. A recipe gives the
loop its slice from slices of what is in memory anyway.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

Cut = Callable[[jax.Array], jax.Array]

_JIT = {"jit", "pjit"}
_ELEMENTWISE = {
    *("abs", "add", "clamp", "convert_element_type", "copy", "cos", "div", "exp"),
    *("integer_pow", "is_finite", "log", "logistic", "max", "min", "mul", "neg", "pow"),
    *("rsqrt", "select_n", "sign", "sin", "sqrt", "square", "sub", "tanh"),
    *("and", "eq", "ge", "gt", "le", "lt", "ne", "not", "or", "xor"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
    """An array: its value, or the step `again` from its inputs to it, or neither."""

    shape: tuple[int, ...]
    value: Any = None
    inputs: tuple[Recipe, ...] = ()
    again: Callable[..., jax.Array] | None = None


Memory = dict[Recipe, Any]


def recipes(function: Callable[..., Any], *inputs: Any) -> Any:
    """The recipes of the arrays that a function returns for trees of arrays."""
    leaves, treedef = jax.tree.flatten(inputs)

    def flat(*leaves: Any) -> Any:
        return function(*jax.tree.unflatten(treedef, leaves))

    closed, shapes = jax.make_jaxpr(flat, return_shape=True)(*leaves)
    found = _follow(closed, list(map(_given, leaves)))
    return jax.tree.unflatten(jax.tree.structure(shapes), found)


def taken(recipe: Recipe, memory: Memory, value: Any) -> None:
    """Puts an array into the memory unless it follows entry by entry from there."""
    seen = dict[Recipe, bool]()

    def follows(one: Recipe) -> bool:
        if one not in seen:
            is_step = one.again is not None and all(map(follows, one.inputs))
            seen[one] = one.value is not None or one in memory or is_step
        return seen[one]

    if not follows(recipe):
        memory[recipe] = value


def on_slice(wanted: Sequence[Recipe], memory: Memory, cut: Cut) -> list[jax.Array]:
    """`cut` of arrays, by cutting nothing but values and what is in memory."""
    known = dict[Recipe, jax.Array]()

    def slice_of(value: Any) -> Any:
        return cut(value) if jnp.ndim(value) else value

    def of(recipe: Recipe) -> jax.Array:
        if recipe not in known:
            value = memory.get(recipe, recipe.value)
            if value is not None:
                known[recipe] = slice_of(value)
            else:
                assert recipe.again is not None
                made = recipe.again(*map(of, recipe.inputs))
                whole = jax.ShapeDtypeStruct(recipe.shape, made.dtype)
                shape = jax.eval_shape(slice_of, whole).shape
                known[recipe] = jnp.broadcast_to(made, shape)
        return known[recipe]

    return list(map(of, wanted))


def _given(value: Any) -> Recipe:
    return Recipe(jnp.shape(value), value)


def _follow(closed: Any, inputs: list[Recipe]) -> list[Recipe]:
    """The outputs of a traced function."""
    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.invars, inputs, strict=True))
    known |= zip(jaxpr.constvars, map(_given, closed.consts), strict=True)

    def recipe_of(atom: Any) -> Recipe:
        return _given(atom.val) if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        given = list(map(recipe_of, equation.invars))
        if equation.primitive.name in _JIT:
            made = _follow(equation.params["jaxpr"], given)
        else:
            made = [_step(equation, given, var.aval) for var in equation.outvars]
        known |= zip(equation.outvars, made, strict=True)
    return list(map(recipe_of, jaxpr.outvars))


def _step(equation: Any, given: list[Recipe], result: Any) -> Recipe:
    """The output of one step of a traced function; without `again` if it mixes entries.

    A scalar that is spread over an array stays a scalar here.
    """
    primitive, shape = equation.primitive, getattr(result, "shape", ())
    shapes = {one.shape for one in given}
    if primitive.name == "broadcast_in_dim" and shapes == {()}:
        return Recipe(shape, None, tuple(given), lambda scalar: scalar)
    if primitive.name in _ELEMENTWISE and shapes <= {(), shape}:

        def again(*values: Any) -> Any:
            return primitive.bind(*values, **equation.params)

        return Recipe(shape, None, tuple(given), again)
    return Recipe(shape)
