"""What a step does once in a long while, at no cost to the others.

XLA for CPUs hands on what a cond does not change; elsewhere it copies that, and only a
loop, here of no round or one, changes it in place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

T = TypeVar("T")


def when(is_so: Any, change: Callable[[T], T], content: T) -> T:
    """What `change` makes of the content if it is so, else the content."""
    if not isinstance(is_so, jax.core.Tracer):
        # Outside jit a cond would be compiled anew at every call.
        return change(content) if is_so else content
    if jax.default_backend() == "cpu":
        return jax.lax.cond(is_so, change, lambda same: same, content)
    traced, shape = jax.make_jaxpr(change, return_shape=True)(content)
    treedef, jaxpr = jax.tree.structure(shape), traced.jaxpr

    def changed(old: T, closed_over: list[Any]) -> T:
        function = jaxpr_as_fun(ClosedJaxpr(jaxpr, closed_over))
        return jax.tree.unflatten(treedef, function(*jax.tree.leaves(old)))

    # As arrays: a float64 of numpy would be taken for one where JAX has none.
    closed_over = list(map(jnp.asarray, traced.consts))
    return _at_most_once(changed, is_so, content, closed_over)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _at_most_once(
    change: Callable[..., T], is_so: jax.Array, content: T, closed_over: list[Any]
) -> T:
    def once(carry: tuple[jax.Array, T]) -> tuple[jax.Array, T]:
        is_left, old = carry
        return jnp.zeros_like(is_left), change(old, closed_over)

    return jax.lax.while_loop(lambda carry: carry[0], once, (is_so, content))[1]


@_at_most_once.defjvp
def _at_most_once_jvp(change: Callable[..., T], primals: Any, tangents: Any) -> Any:
    """A loop has no derivative in reverse; a cond has."""

    def by_cond(is_so: jax.Array, content: T, closed_over: list[Any]) -> T:
        def changed(old: T) -> T:
            return change(old, closed_over)

        return jax.lax.cond(is_so, changed, lambda same: same, content)

    return jax.jvp(by_cond, primals, tangents)
