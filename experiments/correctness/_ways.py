"""The ways to apply a penalty, each with the problem that it says it solves.

On the loss of `_quadratic`, half the sum of a (x - b)^2, every problem here has an
answer by hand. README's table of methods and the tests of fixed points are made of
this list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

import jaxreg
from experiments.correctness._quadratic import CENTRE, CURVATURE, SOLUTION, STRENGTH

# Of the learning rates of Adam and of SGD.
Maker = Callable[[optax.Schedule, optax.Schedule], Any]
# Of a vector, or of a matrix of one row, which is one group.
Point = Any

_STEPS = 20_000
_RADIUS, _EPS, _DECAY, _GROUP_STRENGTH = 0.5, 0.1, 2.0, 0.2
_l1 = jaxreg.L1(STRENGTH)
_rows = jaxreg.GroupLasso(_GROUP_STRENGTH, group_axis=0)
_ball = jaxreg.L2Ball(_RADIUS)


@dataclasses.dataclass(frozen=True)
class Way:
    """A way: how it is made, the problem it solves, and the answer.

    It reaches the answer to `within`; its memory is what it holds beyond `base`. A
    variant is meant for the problem with this answer, and solves another.
    """

    make: Maker
    solves: str
    answer: Point
    base: Maker = lambda adam, sgd: optax.identity()
    start: Point = (2.0, 2.0, 2.0)
    within: float = 1e-8
    steps: int = _STEPS
    has_zeros: bool = True
    is_variant: bool = False


def _adam(adam: optax.Schedule, sgd: optax.Schedule) -> Any:
    return optax.adam(adam)


def _in_ball() -> Point:
    """Of least loss with norm 0.5: b a / (a + m), with m found by halving."""
    a, b = np.array(CURVATURE), np.array(CENTRE)
    low, high = 0.0, 1e3
    for _ in range(200):
        middle = (low + high) / 2
        is_out = np.linalg.norm(a * b / (a + middle)) > _RADIUS
        low, high = (middle, high) if is_out else (low, middle)
    return tuple(a * b / (a + low))


def _logarithmic() -> Point:
    """Of least loss + LogSum: the larger root of a (x - b) (x + e) + s e, or 0."""
    answer = []
    for a, b in zip(CURVATURE, CENTRE, strict=True):
        roots = np.roots([a, a * (_EPS - b), _EPS * (STRENGTH - a * b)])
        is_real = np.all(np.isreal(roots)) and np.max(roots.real) > 0
        answer.append(float(np.max(roots.real)) if is_real else 0.0)
    return tuple(answer)


def _grouped() -> Point:
    """Of least loss + group lasso: x = a b n / (a n + s), with the norm n halved to."""
    a, b = np.array(CURVATURE), np.array(CENTRE)
    slope, low, high = _GROUP_STRENGTH * 3**0.5, 0.0, 10.0
    for _ in range(200):
        middle = (low + high) / 2
        is_below = np.linalg.norm(a * b / (a * middle + slope)) > 1
        low, high = (middle, high) if is_below else (low, middle)
    return tuple(a * b * low / (a * low + slope))


def mean_step(
    learning_rate: optax.Schedule, penalty: jaxreg.Penalty
) -> optax.GradientTransformation:
    """Adam and a prox with one step for the leaf: the mean of Adam's gains."""
    adam = optax.scale_by_adam()

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        moves, inner = adam.update(updates, state[0])
        gain = 1 / (jnp.sqrt(inner.nu / (1 - 0.999**inner.count)) + 1e-8)
        step = learning_rate(state[1])
        target = penalty.prox(params - step * moves, step * jnp.mean(gain))
        return target - params, (inner, state[1] + 1)

    def init(params: Any) -> Any:
        return adam.init(params), jnp.zeros([], jnp.int32)

    return optax.GradientTransformation(init, update)


def _capped(cap: float) -> Point:
    return tuple(float(np.clip(b, -cap, cap)) for b in CENTRE)


_BOTH = "loss + penalty"
_REFIT = "the loss, on the entries that are not zero"
_KEPT = (CENTRE[0], CENTRE[1], 0.0)
_AT_ZERO = (2.0, 2.0, 0.0)
_ONE_GROUP = ((2.0, 2.0, 2.0),)

WAYS: dict[str, Way] = {
    "regularize(adam(rate), penalty)": Way(
        lambda adam, sgd: jaxreg.regularize(optax.adam(adam), _l1),
        f"{_BOTH}, any optimizer",
        SOLUTION,
        _adam,
    ),
    "prox_sgd(rate, penalty)": Way(
        lambda adam, sgd: jaxreg.prox_sgd(sgd, _l1), _BOTH, SOLUTION
    ),
    "prox_sgd(rate, penalty, momentum=0.9)": Way(
        lambda adam, sgd: jaxreg.prox_sgd(sgd, _l1, 0.9),
        _BOTH,
        SOLUTION,
        lambda adam, sgd: optax.trace(0.9),
    ),
    "prox_adam(rate, penalty)": Way(
        lambda adam, sgd: jaxreg.prox_adam(adam, _l1), _BOTH, SOLUTION, _adam
    ),
    "prox_adam(rate, GroupLasso(strength, axis))": Way(
        lambda adam, sgd: jaxreg.prox_adam(adam, _rows),
        f"{_BOTH}, groups in Adam's metric",
        _grouped(),
        _adam,
        start=_ONE_GROUP,
    ),
    "prox_rmsprop(rate, penalty)": Way(
        lambda adam, sgd: jaxreg.prox_rmsprop(adam, _l1),
        _BOTH,
        SOLUTION,
        lambda adam, sgd: optax.scale_by_rms(),
    ),
    "prox_adagrad(50 * rate, penalty)": Way(
        lambda adam, sgd: jaxreg.prox_adagrad(lambda count: 50 * adam(count), _l1),
        _BOTH,
        SOLUTION,
        lambda adam, sgd: optax.scale_by_rss(),
    ),
    "MultiSteps(prox_sgd(rate, penalty), 4)": Way(
        lambda adam, sgd: optax.MultiSteps(
            jaxreg.prox_sgd(sgd, _l1), 4
        ).gradient_transformation(),
        _BOTH,
        SOLUTION,
        lambda adam, sgd: optax.MultiSteps(
            optax.identity(), 4
        ).gradient_transformation(),
        steps=4 * _STEPS,
    ),
    "dual_average(0.005, penalty)": Way(
        lambda adam, sgd: jaxreg.dual_average(0.005, _l1),
        f"{_BOTH}, with an error like 1 / steps",
        SOLUTION,
        # (start - answer) / (2 learning_rate curvature steps)
        within=1.5 / (2 * 0.005 * _STEPS) * 1.01,
    ),
    "ftrl(1.0, penalty, beta=100.0)": Way(
        lambda adam, sgd: jaxreg.ftrl(1.0, _l1, 100.0), _BOTH, SOLUTION
    ),
    "chain(sgd(rate), shrink(penalty, rate))": Way(
        lambda adam, sgd: optax.chain(optax.sgd(sgd), jaxreg.shrink(_l1, sgd)),
        _BOTH,
        SOLUTION,
    ),
    "chain(adam(rate), shrink(penalty, rate))": Way(
        lambda adam, sgd: optax.chain(optax.adam(adam), jaxreg.shrink(_l1, adam)),
        "decoupled: the loss, on weights whose gradients are steady",
        CENTRE,
        _adam,
        within=1e-3,
    ),
    "chain(add_penalty_gradient(penalty), adam(rate))": Way(
        lambda adam, sgd: optax.chain(
            jaxreg.add_penalty_gradient(_l1), optax.adam(adam)
        ),
        f"{_BOTH}, the Keras habit",
        SOLUTION,
        _adam,
        has_zeros=False,
    ),
    "chain(scale_by_adam(), add_penalty_gradient(L2(d / 2)), scale(-rate))": Way(
        lambda adam, sgd: optax.chain(
            optax.scale_by_adam(),
            jaxreg.add_penalty_gradient(jaxreg.L2(_DECAY / 2)),
            optax.scale_by_learning_rate(adam),
        ),
        "decoupled decay (AdamW): the loss, with entries up to 1 / d",
        _capped(1 / _DECAY),
        _adam,
        within=1e-3,
    ),
    "chain(sgd(rate), project(constraint))": Way(
        lambda adam, sgd: optax.chain(optax.sgd(sgd), jaxreg.project(_ball)),
        "the loss, within the constraint",
        _in_ball(),
    ),
    "regularize(adam(rate), constraint)": Way(
        lambda adam, sgd: jaxreg.regularize(optax.adam(adam), _ball),
        "the loss, within the constraint, any optimizer",
        _in_ball(),
        _adam,
        within=1e-5,
    ),
    "target_sparsity(adam(rate), penalty, 1 / 3, end_step)": Way(
        lambda adam, sgd: jaxreg.target_sparsity(
            optax.adam(adam), _l1, 1 / 3, end_step=_STEPS // 2
        ),
        "the loss, with the wanted share of zeros",
        _KEPT,
        _adam,
    ),
    "reweight(build, penalty, eps, every)": Way(
        lambda adam, sgd: jaxreg.reweight(
            lambda penalty: jaxreg.prox_sgd(sgd, penalty), _l1, _EPS, 100
        ),
        "loss + LogSum(strength * eps, eps), with L1",
        _logarithmic(),
    ),
    "chain(adam(rate), hold_support(penalty))": Way(
        lambda adam, sgd: optax.chain(optax.adam(adam), jaxreg.hold_support(_l1)),
        _REFIT,
        _KEPT,
        _adam,
        start=_AT_ZERO,
    ),
    "chain(adam(rate), orthant(penalty))": Way(
        lambda adam, sgd: optax.chain(optax.adam(adam), jaxreg.orthant(_l1)),
        f"{_REFIT}, which keep their sign",
        _KEPT,
        _adam,
        start=_AT_ZERO,
    ),
    "chain(sgd(rate, momentum=0.9), shrink(penalty, rate))": Way(
        lambda adam, sgd: optax.chain(optax.sgd(sgd, 0.9), jaxreg.shrink(_l1, sgd)),
        "loss + penalty / 10",
        SOLUTION,
        lambda adam, sgd: optax.sgd(sgd, 0.9),
        is_variant=True,
    ),
    "chain(MultiSteps(sgd(rate), 4), shrink(penalty, rate))": Way(
        lambda adam, sgd: optax.chain(
            optax.MultiSteps(optax.sgd(sgd), 4).gradient_transformation(),
            jaxreg.shrink(_l1, sgd),
        ),
        "the loss alone: most proxes fall between the steps",
        SOLUTION,
        lambda adam, sgd: optax.MultiSteps(optax.sgd(sgd), 4).gradient_transformation(),
        steps=4 * _STEPS,
        is_variant=True,
    ),
    "prox_adamw(rate, penalty, weight_decay=0.1)": Way(
        lambda adam, sgd: jaxreg.prox_adamw(adam, _l1, weight_decay=0.1),
        "a balance of loss + penalty and decoupled decay",
        SOLUTION,
        _adam,
        is_variant=True,
    ),
    "chain(adam(rate), project(constraint))": Way(
        lambda adam, sgd: optax.chain(optax.adam(adam), jaxreg.project(_ball)),
        "no problem: the projection has another metric than Adam",
        _in_ball(),
        _adam,
        is_variant=True,
    ),
    "adam(rate), GroupLasso with the mean of Adam's steps": Way(
        lambda adam, sgd: mean_step(adam, _rows),
        "no problem: a group has no mean metric",
        _grouped(),
        _adam,
        start=_ONE_GROUP,
        is_variant=True,
    ),
}
