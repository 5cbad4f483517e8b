"""Laws of `nearest_latent`: the projection of a latent on the preimage of params."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg
from jaxreg.rules.by_path import ByPath
from tests.laws.row import Row, cast
from tests.laws.table import prox_rows, rows_where

NEAREST = jax.jit(lambda penalty, z, x, step: penalty.nearest_latent(z, x, step))
PROX = jax.jit(lambda penalty, v, step: penalty.prox(v, step))
EPS = float(jnp.finfo(jnp.float32).eps)
WIDTH = 0.05


def reachable(row: Row, seed: int, dtype=np.float32):
    """Params that the prox can return, and the step of `regularize`."""
    v = cast(row.params(seed), np.float32)
    step = row.step_for(WIDTH, v)
    return cast(PROX(row.penalty, v, step), dtype), step


def close_to(row: Row, found, wanted, dtype=np.float32) -> None:
    """Equal up to rounding of float32 at the size of the leaf, or of the dtype."""
    for name, leaf in wanted.items():
        if name in row.free:
            continue
        leaf = np.asarray(leaf, np.float64)
        scale = np.abs(leaf) if not row.is_coupled else np.abs(leaf).max(initial=0.0)
        slack = 16 * EPS * (scale + row.offset + 1) * row.rounding
        slack += float(jnp.finfo(dtype).eps) * np.abs(leaf) * (dtype != np.float32)
        slack += 8 * row.penalty.facts.prox_tolerance * np.abs(leaf).max(initial=0.0)
        assert (np.abs(np.asarray(found[name], np.float64) - leaf) <= slack).all(), name


@prox_rows
@pytest.mark.parametrize("latent_scale", [0.0, 0.1, 10.0])
def test_the_prox_of_the_nearest_latent_is_the_params(
    row: Row, latent_scale: float
) -> None:
    x, step = reachable(row, 1)
    z = cast({n: latent_scale * leaf for n, leaf in row.params(2).items()}, np.float32)
    close_to(row, PROX(row.penalty, NEAREST(row.penalty, z, x, step), step), x)


@prox_rows
def test_a_latent_of_the_params_is_its_own_nearest(row: Row) -> None:
    z = cast(row.params(3), np.float32)
    step = row.step_for(WIDTH, z)
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        x = cast(PROX(row.penalty, z, step), dtype)
        nearest = NEAREST(row.penalty, z, x, step)
        jax.tree.map(np.testing.assert_array_equal, nearest, z)


def is_rounded_off_the_set(row: Row) -> bool:
    return row.is_constraint and not row.penalty.facts.is_separable


@rows_where(lambda row: row.has_prox and not is_rounded_off_the_set(row))
def test_half_precision_params_are_met_to_the_bit(row: Row) -> None:
    for dtype in (jnp.bfloat16, jnp.float16):
        x, step = reachable(row, 4, dtype)
        z = cast(row.params(5), np.float32)
        found = PROX(row.penalty, NEAREST(row.penalty, z, x, step), step)
        close_to(row, cast(found, dtype), x, dtype)


@prox_rows
def test_a_nan_latent_starts_from_the_params(row: Row) -> None:
    x, step = reachable(row, 6)
    nan = {name: jnp.full_like(leaf, jnp.nan) for name, leaf in x.items()}
    start = NEAREST(row.penalty, x, x, step)
    found = NEAREST(row.penalty, nan, x, step)
    for name in set(x) - set(row.free):
        np.testing.assert_array_equal(found[name], start[name])


def is_projected(row: Row) -> bool:
    facts = row.penalty.facts
    is_by_unit = facts.zeros == "units" or facts.is_separable
    return is_by_unit and facts.is_convex and not isinstance(row.penalty, ByPath)


@rows_where(is_projected)
def test_the_nearest_latent_is_the_projection_on_the_preimage(row: Row) -> None:
    """No latent of the params on the way to the old latent is nearer to it."""
    x, step = reachable(row, 7)
    z = cast(row.params(8), np.float32)
    nearest = NEAREST(row.penalty, z, x, step)
    for share in (1e-3, 1e-2, 0.1):
        ahead = {n: leaf + share * (z[n] - leaf) for n, leaf in nearest.items()}
        moved = PROX(row.penalty, ahead, step)
        for name, leaf in x.items():
            gap = np.abs(np.asarray(z[name] - nearest[name]))
            is_far = gap > 1e-3
            # By entry, or by group: where the latent had to move, nothing nearer does.
            change = np.abs(np.asarray(moved[name] - leaf))
            units = row.penalty.layout
            if row.penalty.facts.zeros == "units":
                sizes = units.leaf_sizes(jnp.asarray(change))
                change = np.asarray(units.leaf_spread(sizes, leaf.shape))
                far = units.leaf_sizes(jnp.asarray(gap)) > 1e-3
                is_far = np.asarray(units.leaf_spread(far, leaf.shape))
            assert (change[is_far] > 0.01 * share * 1e-3).all(), name


@rows_where(lambda row: is_projected(row) and row.keeps_zero)
def test_units_edited_to_zero_are_exactly_zero(row: Row) -> None:
    x, step = reachable(row, 9)
    zeros = {name: jnp.zeros_like(leaf) for name, leaf in x.items()}
    z = cast(row.params(10), np.float32)
    found = PROX(row.penalty, NEAREST(row.penalty, z, zeros, step), step)
    for name in set(x) - set(row.free):
        np.testing.assert_array_equal(found[name], zeros[name])


def test_groups_edited_to_zero_stay_zero_whatever_their_size() -> None:
    penalty = jaxreg.GroupLasso(0.3, group_axis=0)
    step = penalty.step_for(WIDTH)
    z = jnp.asarray(np.random.default_rng(0).normal(size=(2000, 7)), jnp.float32)
    found = PROX(penalty, NEAREST(penalty, z, jnp.zeros_like(z), step), step)
    assert not found.any()


def test_a_latent_keeps_its_dtype_beside_float64_numbers(x64) -> None:
    penalty = jaxreg.envelope(jaxreg.L1(0.1), 0.5)
    x = jnp.ones(3, jnp.float32)
    assert penalty.nearest_latent(x, x, penalty.step_for(0.05)).dtype == jnp.float32
