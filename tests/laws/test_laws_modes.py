"""Laws of penalties under JAX's debugging flags and in exported programs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxreg._core.layout import Matrix
from tests.laws.row import Row, cast
from tests.laws.table import IN_DEFAULT_RUN, every_kind, rows_where

PLATFORMS = ("cpu", "cuda", "tpu")


def tiny(row: Row) -> dict[str, jax.Array]:
    shapes = row.shapes if row.is_bound_to_tree else row.probe
    return cast(row.params(0, shapes), np.float32)


def methods(row: Row, params: Any) -> dict[str, Callable[[Any], Any]]:
    """Every method as a function of the parameters."""
    penalty = row.penalty
    calls = {
        "value": penalty.value,
        "subgradient": penalty.subgradient,
        "stationarity": lambda x: penalty.stationarity(x, x),
    }
    if row.has_prox:
        step = row.step_for(0.05, params)
        calls["prox"] = lambda x: penalty.prox(x, 0.7)
        calls["nearest_latent"] = lambda x: penalty.nearest_latent(x, x, step)
    if row.varying_step:
        steps = {name: jnp.full(leaf.shape, 0.7) for name, leaf in params.items()}
        calls["prox, steps"] = lambda x: penalty.prox(x, steps)
    return calls


def slopes(row: Row, params: Any) -> list[Any]:
    """The derivatives of the value, and of the prox by parameters and step."""

    def total(params: Any, step: Any) -> Any:
        return sum(map(jnp.sum, jax.tree.leaves(row.penalty.prox(params, step))))

    found = [jax.grad(row.penalty.value)(params)]
    if row.has_prox:
        found.append(jax.grad(total, (0, 1))(params, 0.7))
    return found


@every_kind
def test_no_operation_makes_a_nan(row: Row) -> None:
    # Not even one that a `where` drops: under jax_debug_nans JAX runs a program that
    # gave NaN again, operation by operation, and stops at the first.
    params = tiny(row)
    zeros = jax.tree.map(jnp.zeros_like, params)
    with (
        jax.disable_jit(),
        jax.debug_nans(True),
        jax.numpy_rank_promotion("raise"),
    ):
        for method in methods(row, params).values():
            method(params)
            method(zeros)
        slopes(row, zeros)


@pytest.mark.slow
@rows_where(
    lambda row: row.name in IN_DEFAULT_RUN or isinstance(row.penalty.layout, Matrix)
)
def test_methods_under_checkpoint_are_exported_for_all_platforms(row: Row) -> None:
    params = tiny(row)

    @jax.jit
    def act(params: Any) -> Any:
        calls = [*methods(row, params).values(), lambda x: slopes(row, x)]
        return [jax.checkpoint(call)(params) for call in calls]

    exported = export.export(act, platforms=PLATFORMS)(params)
    assert exported.platforms == PLATFORMS
    shapes = jax.tree.leaves(jax.eval_shape(act, params))
    assert [x.shape for x in exported.out_avals] == [x.shape for x in shapes]
