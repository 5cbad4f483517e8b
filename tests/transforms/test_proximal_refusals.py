"""Errors of `proximal` and its relatives, each with its fix."""

import jax.numpy as jnp
import optax
import pytest

import jaxreg


@pytest.mark.parametrize(
    ("direction", "metric", "message"),
    [
        (
            optax.adam(lambda count: 1e-3),
            jaxreg.preconditioners.adam(),
            "rate schedule of its",
        ),
        (
            optax.scale_by_adam(),
            jaxreg.preconditioners.identity(),
            "does not know the gain of",
        ),
        (
            optax.identity(),
            jaxreg.preconditioners.adam(),
            "reads ScaleByAdamState, and the",
        ),
        (
            optax.chain(optax.scale_by_adam(), optax.trace(0.9)),
            jaxreg.preconditioners.adam(),
            "does not know the gain of a direction with the state TraceState",
        ),
        (
            optax.partition(
                {"a": optax.scale_by_adam(), "b": optax.scale_by_adam()}, ["a", "b"]
            ),
            jaxreg.preconditioners.adam(),
            "holds two states ScaleByAdamState",
        ),
    ],
)
def test_a_state_unknown_to_the_preconditioner_raises(
    direction, metric, message
) -> None:
    tx = jaxreg.proximal(direction, 1e-3, jaxreg.L1(1.0), preconditioner=metric)
    params = [jnp.ones(2), jnp.ones(2)]
    with pytest.raises(ValueError, match=message):
        tx.update(params, tx.init(params), params)


def test_check_finds_a_learning_rate_and_another_optimizer() -> None:
    for direction, metric in (
        (optax.adam(1e-3), jaxreg.preconditioners.adam()),
        (optax.scale_by_adam(b2=0.9999), jaxreg.preconditioners.adam(b2=0.9)),
        (optax.trace(0.9), jaxreg.preconditioners.momentum(0.5)),
    ):
        with pytest.raises(ValueError, match="without learning rate or sign"):
            jaxreg.preconditioners.check(direction, metric)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: jaxreg.proximal(1.0, 0.1, jaxreg.L1(1.0), preconditioner=None),
            "direction is",
        ),
        (
            lambda: jaxreg.proximal(
                optax.identity(), 0.1, jaxreg.L1(1.0), preconditioner=0.9
            ),
            "preconditioner is 0.9",
        ),
        (
            lambda: jaxreg.prox_sgd(0.1, jaxreg.L1(1.0), schedule=0.5),
            "schedule is 0.5",
        ),
        (lambda: jaxreg.prox_adam(0.1, jaxreg.HoyerSquare(1.0)), "proximal: "),
        (lambda: jaxreg.shrink(jaxreg.HoyerSquare(1.0), 0.1), "shrink: "),
        (lambda: jaxreg.hold_support("L1"), "penalty is 'L1'"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(call, message) -> None:
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_momentum_without_a_gain_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="from 0 to below 1"):
        jaxreg.preconditioners.momentum(decay)


def test_a_uniform_prox_in_adams_metric_is_refused_with_the_mend() -> None:
    tx = jaxreg.prox_adam(0.1, jaxreg.NuclearNorm(1.0))
    params = jnp.ones((3, 2))
    with pytest.raises(ValueError, match="regularize"):
        tx.update(params, tx.init(params), params)
