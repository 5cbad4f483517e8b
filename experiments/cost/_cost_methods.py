"""The methods that `cost` counts and times: iterations on a lasso or a ridge."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg
from experiments.kit import linear_models


class Method(NamedTuple):
    """Start and step of an iteration; its first part is the parameters.

    Both are made for a penalty and a rate, of 1 / curvature of the loss.
    """

    start: Callable[[Any], Any]
    step: Callable[[linear_models.Gradient, Any], Any]


Maker = Callable[[Any, Any, Any], Method]


def _of_optax(tx: optax.GradientTransformation) -> Method:
    def step(gradient: linear_models.Gradient, carry: Any) -> Any:
        w, state = carry
        updates, state = tx.update(gradient(w), state, w)
        return optax.apply_updates(w, updates), state

    return Method(lambda w: (w, tx.init(w)), step)


def _ista(config: Any, penalty: jaxreg.Penalty, rate: Any) -> Method:
    def step(gradient: linear_models.Gradient, carry: Any) -> Any:
        return (linear_models.ista_step(gradient, penalty, rate, carry[0]),)

    return Method(lambda w: (w,), step)


def _fista_of(config: Any, penalty: jaxreg.Penalty, rate: Any) -> Method:
    step = functools.partial(linear_models.fista_step, penalty=penalty, rate=rate)
    return Method(
        linear_models.fista_start,
        lambda gradient, point: step(gradient, point=point, restart=False),
    )


def _subgradient(config: Any, penalty: jaxreg.Penalty, rate: Any) -> Method:
    tx = optax.sgd(lambda count: rate / jnp.sqrt(count + 1.0))
    return _of_optax(optax.chain(jaxreg.add_penalty_gradient(penalty), tx))


def _regularize_sgd(config: Any, penalty: Any, rate: Any) -> Method:
    # The latent feels the penalty's curvature too.
    safe = 1 / (1 / rate + penalty.strength / config.width)
    return _of_optax(jaxreg.regularize(optax.sgd(safe), penalty, config.width))


def _regularize_adam(config: Any, penalty: Any, rate: Any) -> Method:
    adam = optax.adam(config.adam_rate)
    return _of_optax(jaxreg.regularize(adam, penalty, config.width))


L2_DESCENT = "L2, gradient descent"
L2_PROX = "L2, prox gradient"
SUBGRADIENT = "L1, subgradient"
ISTA = "L1, ISTA"
FISTA = "L1, FISTA"
PLAIN = "no penalty, sgd"
METHODS: dict[str, Maker] = {
    L2_DESCENT: lambda config, penalty, rate: _of_optax(
        optax.chain(jaxreg.add_penalty_gradient(penalty), optax.sgd(rate))
    ),
    L2_PROX: _ista,
    SUBGRADIENT: _subgradient,
    ISTA: _ista,
    FISTA: _fista_of,
    "L1, regularize(sgd)": _regularize_sgd,
    "L1, regularize(adam)": _regularize_adam,
}
TIMED: dict[str, Maker] = {
    PLAIN: lambda config, penalty, rate: _of_optax(optax.sgd(rate)),
    "no penalty, adam": lambda config, penalty, rate: _of_optax(
        optax.adam(config.adam_rate)
    ),
    **METHODS,
}
UPDATE, WHOLE = "update alone", "with the gradient"


def step_times(config: Any, setup: str, seed: int) -> list[float]:
    """The time of a step of each over that of the plain step in the same round.

    All take their turn in every round; the medians over rounds.
    """
    rng = np.random.default_rng(seed)
    size = config.weights if setup == UPDATE else config.timed_features
    data = [rng.normal(size=size)]
    if setup == WHOLE:
        rows = config.timed_samples
        data = [rng.normal(size=(rows, size)) / rows**0.5, rng.normal(size=rows)]
    given = [jnp.asarray(part, jnp.float32) for part in data]
    runs = [_Run(config, name, given, jnp.zeros(size)) for name in TIMED]
    rounds = [[run.seconds() for run in runs] for _ in range(config.rounds + 2)]
    # The first rounds still page the buffers in.
    ratios = [[seconds / times[0] for seconds in times] for times in rounds[2:]]
    return [statistics.median(ratio) for ratio in zip(*ratios, strict=True)]


class _Run:
    """One compiled step with its own parameters and state, donated."""

    def __init__(self, config: Any, name: str, given: list[jax.Array], start: Any):
        penalty = jaxreg.L2(1e-4) if name.startswith("L2") else jaxreg.L1(1e-4)
        method = TIMED[name](config, penalty, 1e-3)

        def step(carry: Any, given: list[jax.Array]) -> Any:
            def gradient(w: jax.Array) -> jax.Array:
                if len(given) == 1:
                    return given[0]
                design, answers = given
                return design.T @ (design @ w - answers)

            return method.step(gradient, carry)

        self.given = given
        self.carry = jax.tree.map(jnp.copy, method.start(start))
        self.step = jax.jit(step, donate_argnums=0)

    def seconds(self) -> float:
        start = time.perf_counter()
        self.carry = jax.block_until_ready(self.step(self.carry, self.given))
        return time.perf_counter() - start
