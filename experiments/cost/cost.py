"""Does L1 cost more to compute than L2?

Question: How many full-batch iterations do the subgradient method, ISTA, FISTA and
`jaxreg.regularize` need on a lasso of 100 features to come within 1e-4 of the minimum,
relative to it, and gradient descent on a ridge of the same data? How long is a step of
each, as a multiple of a step of sgd without a penalty: of a million weights whose
gradient is given, and with the gradient of 4,000 samples and 1,000 features?

Claim: L1 is more expensive to compute than L2, since it has no derivative at 0.

Expected: the subgradient method more than 100,000 iterations, and no exact zero; ISTA
about 80, FISTA about 33. A step with the prox of L1 takes the time of one with that of
L2.

Corrected: on these five problems ISTA and FISTA need fewer iterations than on the one
that the expectation came from, and the subgradient method, given the best of 5 scales,
comes there in somewhat fewer than 100,000.

Cost: about 1 minute on 2 cores.

Command: python -m experiments cost
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax

import jaxreg
from experiments.cost._steps import seconds_of
from experiments.harness.contract import Row
from experiments.kit import linear_models, plotting, stats

DEFAULT = True

UPDATE, WHOLE = "update alone", "with the gradient"


@dataclasses.dataclass(frozen=True)
class Config:
    """The lasso; the methods' numbers; what is timed.

    `limit` ends the subgradient method, `fast_limit` the others. Its steps are
    scale / (curvature sqrt(step)), with the best of `scales`; the last is the untuned.
    """

    samples: int = 60
    features: int = 100
    support: int = 10
    noise: float = 0.5
    fraction: float = 0.1
    gap: float = 1e-4
    limit: int = 100_000
    fast_limit: int = 5000
    scales: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    adam_rate: float = 0.01
    width: float = 0.5
    seeds: int = 5
    weights: int = 1_000_000
    timed_samples: int = 4000
    timed_features: int = 1000
    rounds: int = 51


QUICK = Config(
    limit=10_000, fast_limit=2000, seeds=1, weights=10_000, timed_samples=50, rounds=3
)


class Method(NamedTuple):
    """Start and step of an iteration, whose carry begins with the parameters."""

    start: Callable[[Any], Any]
    step: Callable[[linear_models.Gradient, Any], Any]


# From the config, a penalty and a rate of 1 / curvature of the loss.
Maker = Callable[["Config", Any, Any], Method]


def _of_optax(tx: optax.GradientTransformation) -> Method:
    def step(gradient: linear_models.Gradient, carry: Any) -> Any:
        w, state = carry
        updates, state = tx.update(gradient(w), state, w)
        return optax.apply_updates(w, updates), state

    return Method(lambda w: (w, tx.init(w)), step)


def _ista(config: Config, penalty: jaxreg.Penalty, rate: Any) -> Method:
    def step(gradient: linear_models.Gradient, carry: Any) -> Any:
        return (linear_models.ista_step(gradient, penalty, rate, carry[0]),)

    return Method(lambda w: (w,), step)


def _fista_of(config: Config, penalty: jaxreg.Penalty, rate: Any) -> Method:
    step = functools.partial(linear_models.fista_step, penalty=penalty, rate=rate)
    return Method(
        linear_models.fista_start,
        lambda gradient, point: step(gradient, point=point, restart=False),
    )


def _subgradient(config: Config, penalty: jaxreg.Penalty, rate: Any) -> Method:
    tx = optax.sgd(lambda count: rate / jnp.sqrt(count + 1.0))
    return _of_optax(optax.chain(jaxreg.add_penalty_gradient(penalty), tx))


def _regularize_sgd(config: Config, penalty: Any, rate: Any) -> Method:
    # The latent feels the penalty's curvature too.
    safe = 1 / (1 / rate + penalty.strength / config.width)
    return _of_optax(jaxreg.regularize(optax.sgd(safe), penalty, config.width))


def _regularize_adam(config: Config, penalty: Any, rate: Any) -> Method:
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


def cells(config: Config) -> list[Row]:
    """One cell per method and problem, and one per timed set-up and repetition."""
    seeds = range(config.seeds)
    counted = [{"method": method, "seed": seed} for method in METHODS for seed in seeds]
    setups = (UPDATE, WHOLE)
    timed = [{"method": setup, "seed": seed} for setup in setups for seed in seeds]
    return counted + timed


def measure(config: Config, method: str, seed: int) -> Row:
    """Counts the iterations of one method, or times a step of all in turn."""
    if method in (UPDATE, WHOLE):
        return {"ratios": _step_times(config, method, seed)}
    problem = _problem(config, seed, method)
    with jax.enable_x64(True):
        inputs = (problem.gram, problem.target, problem.energy, problem.strength)
        gaps, w, wrong = _run(config, method, *inputs, problem.least)
    gaps = np.asarray(gaps)
    # The best scale of the subgradient method arrives first, or else comes nearest.
    arrived = [int(np.argmax(row <= config.gap)) + 1 for row in gaps]
    is_there = gaps.min(axis=1) <= config.gap
    order = np.where(is_there, arrived, np.inf), gaps.min(axis=1)
    best = np.lexsort(order[::-1])[0]
    marks = np.unique(np.geomspace(1, gaps.shape[1], 60).astype(int))
    lowest = np.minimum.accumulate(gaps[best])[marks - 1]
    weights = np.asarray(w)[best]
    return {
        "arrived": bool(is_there[best]),
        "iterations": arrived[best] if is_there[best] else gaps.shape[1],
        "untuned": arrived[-1] if is_there[-1] else gaps.shape[1],
        "last_gap": float(lowest[-1]),
        "zeros": int(np.sum(weights == 0)),
        "sklearn_zeros": int(np.sum(problem.solution == 0)),
        "error": float(np.max(np.abs(weights - problem.solution))),
        "violation": float(wrong[best]),
        "marks": marks.tolist(),
        "gaps": np.maximum(lowest, 1e-16).tolist(),
    }


class Problem(NamedTuple):
    """`||y - A w||^2 / (2 n)` by its Gram matrix, and scikit-learn's solution."""

    gram: np.ndarray
    target: np.ndarray
    energy: float
    strength: float
    solution: np.ndarray
    least: float


def _problem(config: Config, seed: int, method: str) -> Problem:
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(config.samples, config.features))
    truth = np.zeros(config.features)
    truth[: config.support] = rng.choice([-1.0, 1.0], config.support)
    answers = design @ truth + config.noise * rng.normal(size=config.samples)
    target = design.T @ answers / config.samples
    strength = config.fraction * float(np.abs(target).max())
    is_l2 = method.startswith("L2")
    penalty = jaxreg.L2(strength) if is_l2 else jaxreg.L1(strength)
    loss = linear_models.squared(config.samples)
    solution = linear_models.reference(loss, penalty, design, answers, tolerance=1e-15)
    errors = answers - design @ solution
    cost = np.sum(solution**2) if is_l2 else np.sum(np.abs(solution))
    return Problem(
        gram=design.T @ design / config.samples,
        target=target,
        energy=float(answers @ answers / config.samples),
        strength=strength,
        solution=solution,
        least=float(0.5 * np.mean(errors**2) + strength * cost),
    )


@functools.partial(jax.jit, static_argnames=("config", "method"))
def _run(
    config: Config,
    method: str,
    gram: Any,
    target: Any,
    energy: Any,
    strength: Any,
    least: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Relative gaps after each iteration, the last point, and its KKT violation."""
    penalty = jaxreg.L2(strength) if method.startswith("L2") else jaxreg.L1(strength)
    rate = 1 / jnp.linalg.eigvalsh(gram)[-1]
    is_slow = method == SUBGRADIENT
    scales = jnp.array(config.scales if is_slow else (1.0,))

    def gradient(w: jax.Array) -> jax.Array:
        return gram @ w - target

    def run(scale: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        maker = METHODS[method](config, penalty, scale * rate)

        def step(carry: Any, _: Any) -> tuple[Any, jax.Array]:
            carry = maker.step(gradient, carry)
            w = carry[0]
            loss = 0.5 * (w @ (gram @ w - 2 * target) + energy)
            return carry, (loss + penalty.value(w) - least) / least

        steps = config.limit if is_slow else config.fast_limit
        start = maker.start(jnp.zeros_like(target))
        carry, gaps = jax.lax.scan(step, start, length=steps)
        return gaps, carry[0], linear_models.violation(penalty, gradient, carry[0])

    return jax.vmap(run)(scales)


def _step_times(config: Config, setup: str, seed: int) -> list[float]:
    """The time of a step of each method over that of plain sgd in the same round.

    All take turns in every round; returns the medians over rounds.
    """
    rng = np.random.default_rng(seed)
    size = config.weights if setup == UPDATE else config.timed_features
    data = [rng.normal(size=size)]
    if setup == WHOLE:
        rows = config.timed_samples
        data = [rng.normal(size=(rows, size)) / rows**0.5, rng.normal(size=rows)]
    inputs = [jnp.asarray(part, jnp.float32) for part in data]
    runs = [_Run(config, name, inputs, jnp.zeros(size)) for name in TIMED]
    count = config.rounds + 2
    rounds = [[seconds_of(run.once, 1) for run in runs] for _ in range(count)]
    # The first rounds page the buffers in.
    ratios = [[seconds / times[0] for seconds in times] for times in rounds[2:]]
    return [statistics.median(ratio) for ratio in zip(*ratios, strict=True)]


class _Run:
    """One compiled step with its own parameters and state, donated."""

    def __init__(self, config: Config, name: str, inputs: list[jax.Array], start: Any):
        penalty = jaxreg.L2(1e-4) if name.startswith("L2") else jaxreg.L1(1e-4)
        method = TIMED[name](config, penalty, 1e-3)

        def step(carry: Any, inputs: list[jax.Array]) -> Any:
            def gradient(w: jax.Array) -> jax.Array:
                if len(inputs) == 1:
                    return inputs[0]
                design, answers = inputs
                return design.T @ (design @ w - answers)

            return method.step(gradient, carry)

        self.inputs = inputs
        self.carry = jax.tree.map(jnp.copy, method.start(start))
        self.step = jax.jit(step, donate_argnums=0)

    def once(self) -> Any:
        """Does the step, and returns what is to be waited for."""
        self.carry = self.step(self.carry, self.inputs)
        return self.carry


def _ratios(rows: list[Row], setup: str) -> dict[str, list[float]]:
    """The ratios of all repetitions, by timed method."""
    runs = [row["ratios"] for row in stats.select(rows, method=setup)]
    return dict(zip(TIMED, map(list, zip(*runs, strict=True)), strict=True))


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Mean and standard error over problems, and over repetitions of the timing."""
    counted = [row for row in rows if row["method"] in METHODS]
    names = ("iterations", "untuned", "zeros", "sklearn_zeros")
    table = {
        row["method"]: row for row in stats.over_seeds(counted, ("method",), names)
    }
    ratios = {setup: _ratios(rows, setup) for setup in (UPDATE, WHOLE)}
    out = []
    for method in TIMED:
        row = dict(table.get(method, {"method": method}))
        runs = stats.select(counted, method=method)
        if runs:
            row["arrived"] = sum(run["arrived"] for run in runs)
            row["worst_error"] = max(run["error"] for run in runs)
            row["worst_violation"] = max(run["violation"] for run in runs)
        for name, setup in (("update_time", UPDATE), ("step_time", WHOLE)):
            row[name] = statistics.fmean(ratios[setup][method])
            row[f"{name}_se"] = stats.standard_error(ratios[setup][method])
        out.append(row)
    return out


def verdict(config: Config, rows: list[Row]) -> str:
    """Iterations and times of the ways to apply L1, against those of L2."""
    table = {row["method"]: row for row in summarise(config, rows)}
    ista, slow, ridge = (table[name] for name in (ISTA, SUBGRADIENT, L2_PROX))
    per_step = [ista[name] / ridge[name] for name in ("update_time", "step_time")]
    is_dear = max(per_step) > 1.2
    is_slow = slow["iterations"] > 10 * ista["iterations"]
    word = "holds" if is_dear else "holds with conditions" if is_slow else "false"
    exact = [row for name, row in table.items() if name in METHODS and row != slow]
    missed = len([row for row in rows if row.get("arrived") is False])
    untuned = "more than " if slow["untuned"] == config.limit else ""
    return (
        f"{word}: a step with the prox of L1 takes {per_step[0]:.2f} times that with "
        f"the prox of L2 for the update alone, {per_step[1]:.2f} with the gradient. "
        f"ISTA comes within {config.gap:g} in {ista['iterations']:.0f} iterations, "
        f"FISTA in {table[FISTA]['iterations']:.0f}, prox gradient on the ridge in "
        f"{ridge['iterations']:.0f}. What costs is the subgradient: "
        f"{slow['iterations']:.0f} iterations at the best of {len(config.scales)} "
        f"scales ({missed} of {config.seeds} problems not there in {config.limit}), "
        f"{untuned}{slow['untuned']:.0f} untuned, and {slow['zeros']:.0f} of "
        f"{slow['sklearn_zeros']:.0f} zeros. All others agree with scikit-learn to "
        f"{max(row['worst_error'] for row in exact):.0e}."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """The gaps along the iterations, a line per problem; the times of a step."""
    figure = matplotlib.figure.Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    for index, method in enumerate(METHODS):
        for row in stats.select(rows, method=method):
            label = method if row["seed"] == 0 else None
            style = {"color": f"C{index}", "linewidth": 1.1, "alpha": 0.8}
            left.plot(row["marks"], row["gaps"], label=label, **style)
    left.axhline(config.gap, color="black", linewidth=0.8, linestyle="--")
    left.set(xscale="log", yscale="log", ylim=(1e-9, None))
    left.set_xlabel("iterations")
    left.set_ylabel("lowest relative gap so far")
    left.set_title("a line per problem; dashed: where iterations are counted")
    left.legend(fontsize=8, loc="lower right")
    for shift, (setup, marker) in enumerate(((UPDATE, "o"), (WHOLE, "D"))):
        times = _ratios(rows, setup)
        plotting.strip(
            right,
            list(TIMED),
            [(method, time) for method in TIMED for time in times[method]],
            label=setup,
            color=f"C{shift}",
            marker=marker,
            shift=-0.2 * shift,
            size=4,
        )
    plotting.name_lines(right, list(TIMED))
    right.axvline(1, color="grey", linewidth=0.8)
    right.set_xlim(0, None)
    right.set_xlabel("time of a step, multiples of that of sgd without a penalty")
    right.grid(axis="y", linewidth=0.3)
    right.legend(fontsize=8, loc="upper right")
    return figure
