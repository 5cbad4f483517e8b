"""`pulled`: the share of weights that something behind `regularize` has moved."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxreg

L1 = jaxreg.L1(0.2)
ROWS = jaxreg.GroupLasso(0.2, group_axis=0)
SHAPE = (8, 5)
GOAL = jax.random.normal(jax.random.key(0), SHAPE)


def ours(penalty: jaxreg.Penalty = L1, width: float = 0.05) -> Any:
    return jaxreg.regularize(optax.adam(0.01), penalty, width)


def shares(
    tx: Any, penalty: Any, count: int = 40, dtype: Any = jnp.float32, used: Any = None
) -> list[float | None]:
    """`pulled` after each of `count` updates, None where `measure` has no such key."""
    start = jnp.full(SHAPE, 0.3, dtype)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(params - GOAL.astype(dtype), state, params)
        params = optax.apply_updates(params, updates)
        scalars = jaxreg.measure(
            penalty, params if used is None else used(params), opt_state=state
        )
        return params, state, scalars.get("pulled")

    params, state, out = start, tx.init(start), []
    for _ in range(count):
        params, state, pulled = step(params, state)
        out.append(None if pulled is None else float(pulled))
    return out


RIGHT: dict[str, tuple[Any, jaxreg.Penalty]] = {
    "alone": (ours(), L1),
    "another width": (ours(width=0.5), L1),
    "rows": (ours(ROWS), ROWS),
    "a box": (ours(jaxreg.Box(-0.5, 0.5)), jaxreg.Box(-0.5, 0.5)),
    "clipping inside": (
        jaxreg.regularize(
            optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1)), L1
        ),
        L1,
    ),
    "MultiSteps around": (optax.MultiSteps(ours(), 3).gradient_transformation(), L1),
    "masked around": (optax.masked(ours(), True), L1),
    "target_sparsity": (jaxreg.target_sparsity(optax.adam(0.01), L1, 0.5, 20), L1),
    "reweight": (jaxreg.reweight(ours, ROWS, 0.1, 5), ROWS),
}


def by_default(chains: dict[str, Any], *names: str) -> Any:
    """All chains, those without these names in the slow run."""
    cases = [
        pytest.param(name, marks=[] if name in names else [pytest.mark.slow])
        for name in chains
    ]
    return pytest.mark.parametrize("chain", cases)


@by_default(RIGHT, "rows")
def test_pulled_is_zero_where_nothing_stands_behind(chain: str) -> None:
    assert set(shares(*RIGHT[chain])) == {0.0}


@pytest.mark.slow
def test_pulled_is_zero_for_half_precision_weights() -> None:
    assert set(shares(ours(), L1, dtype=jnp.bfloat16)) == {0.0}


def behind(*links: Any) -> Any:
    return optax.chain(ours(), *links)


# The least share after any update but the first, or after every second one.
WRONG: dict[str, tuple[Any, float]] = {
    "updates halved": (behind(optax.scale(0.5)), 0.9),
    "updates clipped": (behind(optax.clip(1e-4)), 0.9),
    "decoupled decay": (behind(optax.add_decayed_weights(-1e-5)), 0.9),
    "updates added up": (behind(optax.apply_every(2)), 0.4),
    "schedule_free around": (optax.contrib.schedule_free(ours(), 0.01), 0.9),
}


@by_default(WRONG, "decoupled decay")
def test_pulled_is_large_where_updates_are_changed_behind(chain: str) -> None:
    tx, least = WRONG[chain]
    later = shares(tx, L1)[2:]
    assert sum(filter(None, later)) / len(later) > least


@pytest.mark.slow
def test_pulled_is_large_for_an_average_of_the_parameters() -> None:
    assert min(filter(None, shares(ours(), L1, used=lambda w: 0.9 * w + 0.01))) > 0.9


def test_pulled_counts_the_edited_among_those_not_zero() -> None:
    params = jnp.array([1.0, 2.0, 0.0, 0.0, 0.0])
    state = ours().init(params)
    edited = params.at[0].add(1e-5)
    pulled = jaxreg.measure(L1, edited, opt_state=state)["pulled"]
    assert float(pulled) == 0.5
    assert jaxreg.measure(L1, params, opt_state=state)["pulled"] == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: jaxreg.prox_sgd(0.1, L1),
        lambda: jaxreg.ftrl(0.1, L1),
        # Its latent is a vector without the paths of the parameters.
        lambda: optax.flatten(ours()),
    ],
    ids=["prox_sgd", "ftrl", "flatten"],
)
def test_without_a_latent_of_the_params_there_is_no_pulled(
    make: Callable[[], Any],
) -> None:
    params = {"kernel": jnp.ones(SHAPE)}
    scalars = jaxreg.measure(L1, params, opt_state=make().init(params))
    assert "pulled" not in scalars and "strength_factor" in scalars


def test_free_leaves_do_not_count_for_pulled() -> None:
    params = {"bias": jnp.ones(3), "kernel": jnp.ones((2, 3))}
    rules = jaxreg.on_kernels(L1)
    state = ours(rules).init(params)
    moved = params | {"bias": jnp.zeros(3)}
    assert jaxreg.measure(rules, moved, opt_state=state)["pulled"] == 0
