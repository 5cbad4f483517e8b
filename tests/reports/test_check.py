"""`check`: the problem that a chain solves, in words."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxreg

L1 = jaxreg.L1(0.1)
STRONG = jaxreg.L1(0.5)
RATE = 0.01
RIGHT = "loss + penalty"
NO_ZEROS = "loss + penalty, without its exact zeros"
DECOUPLED = "the loss alone: the penalty is decoupled, or lost"
UNKNOWN, CLIMBS = "none that is known", "none: it climbs"


def adam() -> Any:
    return optax.adam(RATE)


def chain(*links: Any) -> Any:
    return optax.chain(*links)


BOX, BALL = jaxreg.Box(-0.5, 0.5), jaxreg.L2Ball(1.0)
ROWS = jaxreg.GroupLasso(0.01, group_axis=0)
RULES = jaxreg.on_kernels(L1)
SMALL = {"bias": jnp.zeros(3), "kernel": jax.ShapeDtypeStruct((3, 2), jnp.float32)}
Case = tuple[Callable[[], Any], Any, str]
# What is run by default names every problem; the rest is slow.
DEFAULT: dict[str, Case] = {
    "regularize": (lambda: jaxreg.regularize(adam(), L1), L1, RIGHT),
    "adam, shrink": (lambda: chain(adam(), jaxreg.shrink(L1, RATE)), L1, DECOUPLED),
    "L1 in the loss": (
        lambda: chain(jaxreg.add_penalty_gradient(L1), adam()),
        L1,
        NO_ZEROS,
    ),
    "twice": (
        lambda: chain(jaxreg.add_penalty_gradient(L1), jaxreg.prox_sgd(0.1, L1)),
        L1,
        "loss + twice the penalty",
    ),
    "adam, add_penalty_gradient": (
        lambda: chain(adam(), jaxreg.add_penalty_gradient(L1)),
        L1,
        CLIMBS,
    ),
    "a clip before prox_sgd": (
        lambda: chain(optax.clip(0.01), jaxreg.prox_sgd(RATE, STRONG)),
        STRONG,
        "the penalty alone: every weight goes to zero",
    ),
}
SLOW: dict[str, Case] = {
    "a small strength": (
        lambda: jaxreg.regularize(optax.sgd(0.1), jaxreg.L1(1e-4)),
        jaxreg.L1(1e-4),
        RIGHT,
    ),
    "a small rate": (lambda: jaxreg.regularize(optax.lion(1e-4), L1), L1, RIGHT),
    "half the penalty": (
        lambda: jaxreg.prox_sgd(0.1, jaxreg.L1(0.05)),
        L1,
        "loss + 0.5 times the penalty",
    ),
    "regularize twice": (
        lambda: chain(
            jaxreg.regularize(adam(), L1), jaxreg.regularize(adam(), jaxreg.L2(0.1))
        ),
        jaxreg.ElasticNet(0.1, 0.1),
        UNKNOWN,
    ),
    "identity inside": (
        lambda: chain(adam(), jaxreg.regularize(optax.identity(), L1)),
        L1,
        CLIMBS,
    ),
    "project, adam": (lambda: chain(jaxreg.project(BOX), adam()), BOX, CLIMBS),
    "shrink, adam": (lambda: chain(jaxreg.shrink(L1, RATE), adam()), L1, DECOUPLED),
    "hold_support, adam": (
        lambda: chain(jaxreg.hold_support(L1), adam()),
        L1,
        DECOUPLED,
    ),
    "target_sparsity": (
        lambda: jaxreg.target_sparsity(adam(), L1, 0.4, 10_000),
        L1,
        "the loss, on the entries that are not zero",
    ),
    "adam, project on a box": (
        lambda: chain(adam(), jaxreg.project(BOX)),
        BOX,
        RIGHT,
    ),
    "adam, project on a ball": (
        lambda: chain(adam(), jaxreg.project(BALL)),
        BALL,
        UNKNOWN,
    ),
    "regularize on a ball": (lambda: jaxreg.regularize(adam(), BALL), BALL, RIGHT),
    "rows": (lambda: jaxreg.regularize(adam(), ROWS), ROWS, RIGHT),
    "rows, decoupled": (
        lambda: chain(adam(), jaxreg.shrink(ROWS, RATE)),
        ROWS,
        DECOUPLED,
    ),
    "a matrix": (
        lambda: jaxreg.regularize(adam(), jaxreg.NuclearNorm(0.01)),
        jaxreg.NuclearNorm(0.01),
        RIGHT,
    ),
    "MCP": (
        lambda: jaxreg.regularize(adam(), jaxreg.MCP(0.1, 1.0)),
        jaxreg.MCP(0.1, 1.0),
        RIGHT,
    ),
    "AdamW": (
        lambda: optax.adamw(RATE, weight_decay=2e-3),
        jaxreg.L2(1e-3),
        DECOUPLED,
    ),
    "L2 in the loss": (
        lambda: chain(jaxreg.add_penalty_gradient(jaxreg.L2(0.1)), adam()),
        jaxreg.L2(0.1),
        RIGHT,
    ),
    # What check cannot see: see docs/what_no_transform_can_see.md.
    "a clip above the strength, before it": (
        lambda: chain(optax.clip_by_global_norm(1.0), jaxreg.regularize(adam(), L1)),
        L1,
        RIGHT,
    ),
    "little decay inside": (
        lambda: jaxreg.regularize(optax.adamw(RATE, weight_decay=1e-3), L1),
        L1,
        RIGHT,
    ),
    "updates added up by dual_average": (
        lambda: chain(jaxreg.dual_average(RATE, STRONG), optax.apply_every(2)),
        STRONG,
        "none: it diverges",
    ),
}
cases = pytest.mark.parametrize(
    "name", [*DEFAULT, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)


@cases
def test_check_names_the_problem_of_a_chain(name: str) -> None:
    make, penalty, problem = (DEFAULT | SLOW)[name]
    verdict = jaxreg.check(make(), penalty)
    assert verdict.problem == problem
    assert verdict.is_right == (problem == RIGHT)


@pytest.mark.slow
def test_check_takes_rules_and_a_schedule_with_params() -> None:
    rate = optax.cosine_decay_schedule(0.05, 4000)
    tx = jaxreg.regularize(optax.adam(rate), RULES)
    verdict = jaxreg.check(tx, RULES, SMALL, steps=4000)
    assert verdict.is_right
    assert jax.tree.map(jnp.shape, verdict.rests_at) == {"bias": (3,), "kernel": (3, 2)}
    # Free leaves rest where the loss does.
    assert jnp.allclose(verdict.rests_at["bias"], jnp.array([1, -0.2, 0.3]), atol=0.02)


def test_check_raises_what_the_chain_raises() -> None:
    tx = jaxreg.regularize(jaxreg.prox_sgd(RATE, L1), L1)
    with pytest.raises(ValueError, match="the optimizer applies a penalty already"):
        jaxreg.check(tx, L1)
