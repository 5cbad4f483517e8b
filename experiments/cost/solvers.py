"""How fast is a penalised fit to a given accuracy, next to the fastest solvers?

Question: How large is the duality gap of a fit after which time, for jaxreg and for
celer, skglm and scikit-learn, on a lasso at a tenth and a hundredth of the largest
strength, a path of lassos, and a logistic regression with L1?

Claim: A penalised linear model is fitted as fast as by the solvers written for it, and
the fit is differentiable.

Expected: at a relative gap of 1e-5, at most 1.2 times the time of skglm for a lasso,
1.3 times that of celer for a path, twice that of skglm for a logistic regression.

Cost: about 5 minutes on 2 cores; compares with what of celer, skglm and scikit-learn is
installed, `pip install -e ".[peers]"`, and says what is not.

Command: python -m experiments solvers
"""

import dataclasses
import functools
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from sklearn import linear_model

import jaxreg
from experiments.harness.contract import Row

LASSO, PATH, LOGISTIC = "lasso", "path of lassos", "logistic"
SKLEARN, CELER, SKGLM = "scikit-learn", "celer", "skglm"
PEERS = {LASSO: (SKLEARN, CELER, SKGLM), PATH: (SKLEARN, CELER)}
PEERS[LOGISTIC] = PEERS[LASSO]
# The gap, relative to the loss at zero, at which times are compared.
ACCURACY = 1e-5
# What the time of jaxreg may be, in multiples of a peer's.
LIMITS = {(LASSO, SKGLM): 1.2, (PATH, CELER): 1.3, (LOGISTIC, SKGLM): 2.0}

Solver = Callable[[np.ndarray, np.ndarray, Any, float], np.ndarray]
"""From data, a strength or a grid of them, and a tolerance to coefficients."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the data, shares of the largest strength, tolerances, rounds by turns.

    The correlation is that of neighbouring features.
    """

    samples: int = 1000
    features: int = 5000
    relevant: int = 100
    correlation: float = 0.5
    shares: tuple[float, ...] = (0.1, 0.01)
    count: int = 100
    tolerances: tuple[float, ...] = (1e-2, 1e-3, 1e-4, 1e-5)
    rounds: int = 5


QUICK = Config(
    samples=40,
    features=60,
    relevant=5,
    shares=(0.1,),
    count=5,
    tolerances=(1e-3, 1e-5),
    rounds=1,
)


def cells(config: Config) -> list[Row]:
    """Each problem and strength, against each peer."""
    return [
        {"problem": problem, "share": share, "against": peer}
        for problem, peers in PEERS.items()
        for share in (config.shares if problem == LASSO else config.shares[-1:])
        for peer in peers
    ]


def measure(config: Config, problem: str, share: float, against: str) -> Row:
    """The seconds and gaps of both at each tolerance, by turns; medians."""
    package = "sklearn" if against == SKLEARN else against
    if importlib.util.find_spec(package) is None:
        return {"missing": True, "ours": [], "theirs": []}
    x, y = make_data(config, is_logistic=problem == LOGISTIC)
    largest = np.abs(x.T @ (y / 2 if problem == LOGISTIC else y)).max() / len(y)
    strength = share * largest
    if problem == PATH:
        strength = largest * np.geomspace(1, share, config.count)
    gap = logistic_gap if problem == LOGISTIC else lasso_gap
    with jax.enable_x64(True), warnings.catch_warnings():
        # Whether a peer has converged is read from the gap.
        warnings.simplefilter("ignore")
        pair = (_ours(problem, x, y), _peer(problem, against, x, y))
        curves = _by_turns(config, pair, strength)
    points = [
        [[seconds, _worst(gap, x, y, strength, w)] for seconds, w in curve]
        for curve in curves
    ]
    return {"missing": False, "ours": points[0], "theirs": points[1]}


def make_data(config: Config, *, is_logistic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Columns of mean square 1, an autoregression along the features."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(config.samples, config.features))
    x, old = np.empty_like(noise), config.correlation
    x[:, 0] = noise[:, 0]
    for column in range(1, config.features):
        x[:, column] = old * x[:, column - 1]
        x[:, column] += np.sqrt(1 - old**2) * noise[:, column]
    truth = np.zeros(config.features)
    truth[rng.choice(config.features, config.relevant, replace=False)] = 1
    answers = x @ truth
    answers += rng.normal(size=len(x)) * answers.std() / 5
    x /= np.sqrt(np.mean(x**2, axis=0))
    if is_logistic:
        return np.asfortranarray(x), np.sign(answers)
    return np.asfortranarray(x), answers / np.sqrt(np.mean(answers**2))


def lasso_gap(x: np.ndarray, y: np.ndarray, strength: float, w: np.ndarray) -> float:
    """The duality gap over half the mean square of y."""
    residual = y - x @ w
    largest = np.abs(x.T @ residual).max() / len(y)
    dual = residual * min(1, strength / largest)
    primal = residual @ residual / 2 + len(y) * strength * np.abs(w).sum()
    return float((primal - (y @ y - (y - dual) @ (y - dual)) / 2) / (y @ y / 2))


def logistic_gap(x: np.ndarray, y: np.ndarray, strength: float, w: np.ndarray) -> float:
    """The duality gap over the loss at zero, for answers of -1 and 1."""
    margins = y * (x @ w)
    primal = np.logaddexp(0, -margins).mean() + strength * np.abs(w).sum()
    odds = 1 / (1 + np.exp(margins))
    odds = odds * min(1, strength * len(y) / np.abs(x.T @ (y * odds)).max())
    odds = np.clip(odds, 1e-300, 1 - 1e-16)
    dual = -(odds * np.log(odds) + (1 - odds) * np.log1p(-odds)).mean()
    return float((primal - dual) / np.log(2))


def _worst(gap: Any, x: np.ndarray, y: np.ndarray, strength: Any, w: Any) -> float:
    if np.ndim(strength) == 0:
        return float(gap(x, y, strength, w))
    return max(gap(x, y, *each) for each in zip(strength, w, strict=True))


def _by_turns(
    config: Config, solvers: tuple[Any, Any], strength: Any
) -> list[list[tuple[float, np.ndarray]]]:
    """Median seconds and coefficients at each tolerance, for both solvers."""
    curves: list[list[tuple[float, np.ndarray]]] = [[], []]
    for tolerance in config.tolerances:
        answers = [np.asarray(solver(strength, tolerance)) for solver in solvers]
        times: list[list[float]] = [[], []]
        for _ in range(config.rounds):
            for solver, taken in zip(solvers, times, strict=True):
                start = time.perf_counter()
                jax.block_until_ready(solver(strength, tolerance))
                taken.append(time.perf_counter() - start)
        for curve, taken, answer in zip(curves, times, answers, strict=True):
            curve.append((statistics.median(taken), answer))
    return curves


def _ours(problem: str, x: np.ndarray, y: np.ndarray) -> Callable[[Any, float], Any]:
    family = "binomial" if problem == LOGISTIC else "gaussian"
    answers = (y > 0) * 1.0 if problem == LOGISTIC else y
    raw = {"intercept": False, "standardise": False}
    model = jaxreg.solve.linear(x, answers, family=family, **raw)
    if problem == PATH:
        return lambda strengths, tolerance: (
            jaxreg.model_selection.path(
                model, jaxreg.L1(1.0), strengths=strengths, tolerance=tolerance
            ).coefficients
        )

    def fit(strength: float, tolerance: float) -> jax.Array:
        penalty = jaxreg.L1(jnp.asarray(strength))
        options: Any = {"tolerance": tolerance, "on_failure": "ignore"}
        return jaxreg.minimise(model, penalty, **options).params["coefficients"]

    return fit


def _peer(
    problem: str, name: str, x: np.ndarray, y: np.ndarray
) -> Callable[[Any, float], np.ndarray]:
    # Imported here: planning, listing and the other peers do without.
    module: Any = linear_model if name == SKLEARN else importlib.import_module(name)
    if problem == PATH:
        return functools.partial(_peer_path, name, module, x, y)
    options = {"fit_intercept": False, "max_iter": 100_000}
    if name == SKGLM:
        options = {"fit_intercept": False}

    def fit(strength: float, tolerance: float) -> np.ndarray:
        # celer and skglm take the tolerance as one of the gradient or the gap.
        if problem == LASSO:
            model = module.Lasso(strength, tol=tolerance, **options)
        elif name == SKGLM:
            model = module.SparseLogisticRegression(strength, tol=tolerance, **options)
        else:
            inverse = 1 / (strength * len(y))
            kind = {"l1_ratio": 1.0, "solver": "liblinear"} if name == SKLEARN else {}
            model = module.LogisticRegression(
                C=inverse, tol=tolerance, **kind, **options
            )
        return np.ravel(model.fit(x, y).coef_)

    return fit


def _peer_path(
    name: str, module: Any, x: np.ndarray, y: np.ndarray, grid: Any, tolerance: float
) -> np.ndarray:
    if name == SKLEARN:
        return module.lasso_path(x, y, alphas=grid, tol=tolerance)[1].T
    return module.celer_path(x, y, "lasso", alphas=grid, tol=tolerance)[1].T


def seconds_to(accuracy: float, points: list[list[float]]) -> float | None:
    """The least time whose gap is at most `accuracy`; None if there is none."""
    return min((taken for taken, gap in points if gap <= accuracy), default=None)


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Seconds to the accuracy at which times are compared, and their ratio."""
    table = []
    for row in rows:
        names = ("problem", "share", "against", "missing")
        line: Row = {name: row[name] for name in names}
        ours, theirs = (seconds_to(ACCURACY, row[key]) for key in ("ours", "theirs"))
        ratio = ours / theirs if ours is not None and theirs is not None else None
        limit = LIMITS.get((row["problem"], row["against"]))
        table.append(
            {**line, "ours": ours, "theirs": theirs, "ratio": ratio, "limit": limit}
        )
    return table


def verdict(config: Config, rows: list[Row]) -> str:
    """The comparisons above their limits, and the peers that are missing."""
    table = summarise(config, rows)
    known = [row for row in table if row["limit"] and row["ratio"] is not None]
    above = [
        f"{row['problem']} at {row['share']:g}, {row['ratio']:.2f} of {row['against']}"
        for row in known
        if row["ratio"] > row["limit"]
    ]
    missing = sorted({row["against"] for row in table if row["missing"]})
    word = "holds with conditions" if above or missing or not known else "holds"
    text = f"{word}: {len(known) - len(above)} of {len(known)} limits are kept"
    if above:
        text += f"; above are {'; '.join(above)}"
    if missing:
        text += f"; not installed: {', '.join(missing)}"
    return text + "."


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Gaps against time, a panel for each problem and strength."""
    panels = list(dict.fromkeys((row["problem"], row["share"]) for row in rows))
    size = (4 * len(panels), 4)
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    for axes, panel in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        held = [row for row in rows if (row["problem"], row["share"]) == panel]
        present = [row for row in held if not row["missing"]]
        curves = [(row["against"], row["theirs"]) for row in present]
        curves += [("jaxreg", row["ours"]) for row in present[:1]]
        for name, points in curves:
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set(xscale="log", yscale="log", xlabel="seconds")
        axes.set_title(f"{panel[0]}, {panel[1]:g} of the largest strength")
        axes.set_ylabel("relative duality gap")
        axes.legend()
    return figure
