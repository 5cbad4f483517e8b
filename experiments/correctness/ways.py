"""Which way of applying a penalty solves which problem?

Question: Of the ways to apply L1 or a constraint, and of the tempting variants of each,
which problem does each solve, with exact zeros, and at what memory? The loss is half
the sum of a (x - b)^2, a = (1, 100, 1), b = (1, 0.02, 0.3), in float64; with L1 of
strength 0.5 the answer is (0.5, 0.015, 0).

Claim: A prox solves loss + penalty if its step is the optimizer's gain: learning rate
times what the optimizer makes of a steady gradient.

Expected: every way reaches the answer of the problem that it names, and every variant
misses that of the problem it is meant for. Noise on the gradients (standard deviation
1) makes the exact zeros of a prox come and go, `flips` per step of the last fifth, and
leaves those of `regularize` alone.

Cost: about a minute on 2 cores.

Command: python -m experiments ways
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax

import jaxreg
from experiments.correctness._quadratic import (
    CENTRE,
    CURVATURE,
    SOLUTION,
    STRENGTH,
    as_text,
    plot_errors,
    row_of,
    solve,
)
from experiments.harness.contract import Row
from experiments.kit.transformations import (
    DEFAULTS,
    TRANSFORMATIONS,
    InnerMaker,
    Problem,
    Rate,
    Settings,
)

# A vector, or a matrix of one row, which is one group.
Point = Any

DEFAULT = True

_RADIUS, _EPS, _DECAY, _GROUP_STRENGTH = 0.5, 0.1, 2.0, 0.2
_l1 = jaxreg.L1(STRENGTH)
_rows = jaxreg.GroupLasso(_GROUP_STRENGTH, group_axis=0)
_ball = jaxreg.L2Ball(_RADIUS)
_AT_ZERO, _ONE_GROUP = (2.0, 2.0, 0.0), ((2.0, 2.0, 2.0),)
# The solution of the loss on the entries that are not zero.
_KEPT = (CENTRE[0], CENTRE[1], 0.0)


def _sgd_with_momentum(rate: Rate) -> optax.GradientTransformation:
    return optax.sgd(rate, 0.9)


def _sgd_on_means(rate: Rate) -> optax.GradientTransformation:
    return optax.MultiSteps(optax.sgd(rate), 4).gradient_transformation()


def _prox_sgd_on_means(rate: Rate) -> optax.GradientTransformation:
    return optax.MultiSteps(jaxreg.prox_sgd(rate, _l1), 4).gradient_transformation()


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to apply a penalty, the problem that it solves, and the answer.

    It is a `row` of the table of transformations, with Adam or with SGD and at a rate
    of its own or that of the optimizer, or the transformation that `make` returns. It
    reaches the answer up to `within`; its memory is the state beyond that of `base`.
    A variant is meant for the problem with this answer, and solves another.
    """

    answer: Point
    row: str = ""
    settings: Settings = DEFAULTS
    penalty: jaxreg.Penalty = _l1
    with_sgd: bool = False
    rate: float | None = None
    make: InnerMaker | None = None
    base: InnerMaker | None = None
    note: str = ""
    problem: str = ""
    start: Point = (2.0, 2.0, 2.0)
    within: float = 1e-8
    steps: int = 20_000
    has_zeros: bool = True
    is_variant: bool = False

    @property
    def solves(self) -> str:
        """The problem in words."""
        if self.problem:
            return self.problem
        row = TRANSFORMATIONS[self.row]
        return row.problem(after_sgd=self.with_sgd).value + self.note

    def built(self, rate: Rate) -> optax.GradientTransformation:
        """The whole optimizer."""
        if self.make is not None:
            return self.make(rate)
        settings = dataclasses.replace(self.settings, rate=self.rate or rate)
        if self.with_sgd and settings.inner is None:
            settings = dataclasses.replace(settings, inner=optax.sgd)
        return TRANSFORMATIONS[self.row].optimizer(self.penalty, settings)

    def without(self, rate: Rate) -> optax.GradientTransformation:
        """The optimizer whose state is not counted as memory of the way."""
        if self.base is not None:
            return self.base(rate)
        return optax.identity() if self.with_sgd else optax.adam(rate)


def _bisection(is_low: Callable[[float], bool], high: float) -> float:
    """The number up to which `is_low` is true, from 0 to `high`."""
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if is_low(middle) else (low, middle)
    return low


def _in_ball() -> Point:
    """Minimiser of the loss on the ball: b a / (a + m), with a multiplier m."""
    a, b = np.array(CURVATURE), np.array(CENTRE)
    m = _bisection(lambda m: bool(np.linalg.norm(a * b / (a + m)) > _RADIUS), 1e3)
    return tuple(a * b / (a + m))


def _logarithmic() -> Point:
    """Minimiser of loss + LogSum: the larger root of a (x - b) (x + e) + s e, or 0."""
    answer = []
    for a, b in zip(CURVATURE, CENTRE, strict=True):
        roots = np.roots([a, a * (_EPS - b), _EPS * (STRENGTH - a * b)])
        is_real = np.all(np.isreal(roots)) and np.max(roots.real) > 0
        answer.append(float(np.max(roots.real)) if is_real else 0.0)
    return tuple(answer)


def _grouped() -> Point:
    """Minimiser of loss + group lasso: x = a b n / (a n + s), where n is its norm."""
    a, b = np.array(CURVATURE), np.array(CENTRE)
    slope = _GROUP_STRENGTH * 3**0.5
    n = _bisection(lambda n: bool(np.linalg.norm(a * b / (a * n + slope)) > 1), 10.0)
    return tuple(a * b * n / (a * n + slope))


def mean_step(
    learning_rate: optax.Schedule, penalty: jaxreg.Penalty
) -> optax.GradientTransformation:
    """Adam, then a prox with one step per leaf: the mean of Adam's preconditioner."""
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


def _decoupled_decay(rate: Rate) -> optax.GradientTransformation:
    return optax.chain(
        optax.scale_by_adam(),
        jaxreg.add_penalty_gradient(jaxreg.L2(_DECAY / 2)),
        optax.scale_by_learning_rate(rate),
    )


def _fifty_times(schedule: optax.Schedule) -> optax.Schedule:
    return lambda count: 50 * schedule(count)


WAYS: dict[str, Way] = {
    "regularize(adam(rate), penalty)": Way(
        SOLUTION, "regularize", note=", any optimizer"
    ),
    "prox_sgd(rate, penalty)": Way(SOLUTION, "prox_sgd", with_sgd=True),
    "prox_sgd(rate, penalty, momentum=0.9)": Way(
        SOLUTION,
        "prox_sgd",
        Settings(momentum=0.9),
        with_sgd=True,
        base=lambda rate: optax.trace(0.9),
    ),
    "prox_adam(rate, penalty)": Way(SOLUTION, "prox_adam"),
    "prox_adam(rate, GroupLasso(strength, axis))": Way(
        _grouped(),
        "prox_adam",
        penalty=_rows,
        note=", groups in Adam's metric",
        start=_ONE_GROUP,
    ),
    "prox_rmsprop(rate, penalty)": Way(
        SOLUTION, "prox_rmsprop", base=lambda rate: optax.scale_by_rms()
    ),
    "prox_adagrad(50 * rate, penalty)": Way(
        SOLUTION,
        "prox_adagrad",
        make=lambda rate: jaxreg.prox_adagrad(_fifty_times(rate), _l1),
        base=lambda rate: optax.scale_by_rss(),
    ),
    "MultiSteps(prox_sgd(rate, penalty), 4)": Way(
        SOLUTION,
        "prox_sgd",
        with_sgd=True,
        make=_prox_sgd_on_means,
        base=_sgd_on_means,
        steps=80_000,
    ),
    "dual_average(0.005, penalty)": Way(
        SOLUTION,
        "dual_average",
        with_sgd=True,
        rate=0.005,
        note=", with an error like 1 / steps",
        # (start - answer) / (2 learning_rate curvature steps)
        within=1.5 / (2 * 0.005 * 20_000) * 1.01,
    ),
    "ftrl(1.0, penalty, beta=100.0)": Way(
        SOLUTION, "ftrl", Settings(beta=100.0), with_sgd=True, rate=1.0
    ),
    "chain(sgd(rate), shrink(penalty, rate))": Way(SOLUTION, "shrink", with_sgd=True),
    "chain(adam(rate), shrink(penalty, rate))": Way(CENTRE, "shrink", within=1e-3),
    "chain(add_penalty_gradient(penalty), adam(rate))": Way(
        SOLUTION, "add_penalty_gradient", note=", the Keras habit", has_zeros=False
    ),
    "chain(scale_by_adam(), add_penalty_gradient(L2(d / 2)), scale(-rate))": Way(
        tuple(float(np.clip(b, -1 / _DECAY, 1 / _DECAY)) for b in CENTRE),
        make=_decoupled_decay,
        problem="decoupled decay (AdamW): the loss, with entries up to 1 / d",
        within=1e-3,
    ),
    "chain(sgd(rate), project(constraint))": Way(
        _in_ball(), "project", penalty=_ball, with_sgd=True
    ),
    "regularize(adam(rate), constraint)": Way(
        _in_ball(),
        "regularize",
        penalty=_ball,
        problem=f"{Problem.CONSTRAINED.value}, any optimizer",
        within=1e-5,
    ),
    "target_sparsity(adam(rate), penalty, 1 / 3, end_step)": Way(
        _KEPT, "target_sparsity", Settings(target=1 / 3, end_step=10_000)
    ),
    "reweight(build, penalty, eps, every)": Way(
        _logarithmic(), "reweight", Settings(eps=_EPS, every=100), with_sgd=True
    ),
    "chain(adam(rate), hold_support(penalty))": Way(
        _KEPT, "hold_support", start=_AT_ZERO
    ),
    "chain(adam(rate), orthant(penalty))": Way(_KEPT, "orthant", start=_AT_ZERO),
    "chain(sgd(rate, momentum=0.9), shrink(penalty, rate))": Way(
        SOLUTION,
        "shrink",
        Settings(inner=_sgd_with_momentum),
        with_sgd=True,
        base=_sgd_with_momentum,
        problem="loss + penalty / 10",
        is_variant=True,
    ),
    "chain(MultiSteps(sgd(rate), 4), shrink(penalty, rate))": Way(
        SOLUTION,
        "shrink",
        Settings(inner=_sgd_on_means),
        with_sgd=True,
        base=_sgd_on_means,
        problem="the loss alone: most proxes fall between the steps",
        steps=80_000,
        is_variant=True,
    ),
    "prox_adamw(rate, penalty, weight_decay=0.1)": Way(
        SOLUTION, "prox_adamw", Settings(weight_decay=0.1), is_variant=True
    ),
    "chain(adam(rate), project(constraint))": Way(
        _in_ball(), "project", penalty=_ball, is_variant=True
    ),
    "adam(rate), GroupLasso with the mean of Adam's steps": Way(
        _grouped(),
        make=lambda rate: mean_step(rate, _rows),
        problem="no problem: a group has no mean metric",
        start=_ONE_GROUP,
        is_variant=True,
    ),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """A cosine to 0, from `peak` for Adam and its kin and from `sgd_peak` for SGD."""

    steps: int = 20_000
    peak: float = 0.01
    sgd_peak: float = 0.005
    noise: float = 1.0


QUICK = Config()


def cells(config: Config) -> list[Row]:
    """One cell per way."""
    return [{"way": way} for way in WAYS]


def measure(config: Config, way: str) -> Row:
    """The answer and its distance from the one claimed, zeros, flips and memory."""
    chosen = WAYS[way]
    peak = config.sgd_peak if chosen.with_sgd else config.peak
    rate = optax.cosine_decay_schedule(peak, config.steps)
    tx, base = chosen.built(rate), chosen.without(rate)
    exact = solve(tx, chosen.steps, start=chosen.start)
    noisy = solve(tx, chosen.steps, noise=config.noise, start=chosen.start)
    return {
        **row_of(exact.last, chosen.answer),
        "flips": float(f"{noisy.flips[np.array(chosen.answer) == 0].sum():.3g}"),
        "memory": _words(tx) - _words(base),
    }


def _words(tx: Any) -> int:
    """Numbers per weight in the state of a transformation."""
    weights = jax.ShapeDtypeStruct((1, 1000), jnp.float32)
    state = jax.tree.leaves(jax.eval_shape(tx.init, weights))
    return sum(leaf.size for leaf in state) // 1000


def keeps_its_word(way: Way, row: Row) -> bool:
    """True if a way reaches its answer with its zeros, or a variant misses it."""
    if way.is_variant:
        return bool(row["error"] > 0.01)
    wanted = int(np.sum(np.array(way.answer) == 0))
    has_zeros = row["zeros"] == wanted or not way.has_zeros
    return bool(row["error"] <= way.within and has_zeros)


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """The problem that each solves, with the answer, its zeros and the memory."""
    return [
        {
            "way": f"`{row['way']}`",
            "kind": "variant" if WAYS[row["way"]].is_variant else "way",
            "solves": WAYS[row["way"]].solves,
            **{name: row[name] for name in ("answer", "error", "zeros")},
            "exact_zeros": _zeros_in_words(WAYS[row["way"]], row),
            "flips": row["flips"] if 0.0 in WAYS[row["way"]].answer else None,
            "memory": row["memory"],
        }
        for row in as_text(rows)
    ]


def _zeros_in_words(way: Way, row: Row) -> str:
    if not row["zeros"]:
        return "none" if 0.0 in way.answer else ""
    return "come and go" if row["flips"] > 0 else "stay"


def verdict(config: Config, rows: list[Row]) -> str:
    """The ways and variants that do not solve what the table says."""
    good = [row["way"] for row in rows if keeps_its_word(WAYS[row["way"]], row)]
    bad = [row["way"] for row in rows if row["way"] not in good]
    still = [row["way"] for row in rows if row["zeros"] and row["flips"] == 0]
    return (
        f"{'holds with conditions' if not bad else 'false'}: {len(good)} of "
        f"{len(rows)} ways and variants solve what the table says"
        f"{', not ' + '; '.join(bad) if bad else ''}. With noisy gradients the zeros "
        f"stay with {'; '.join(still)}."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Bars of the error."""
    return plot_errors([row["way"] for row in rows], rows)
