"""Does `kernel_regularizer=l1(0.01)` make weights zero, in Keras and here?

Question: A Dense layer of 64 neurons with L1 on its kernel learns scikit-learn's digits
(64-64-10, ReLU, Adam at 1e-3). Keras adds the penalty to the loss. Does
`jaxreg.add_penalty_gradient` first in the chain give Keras' weights, from the same
start and the same batches in float64? How many weights become zero, and how many with
`jaxreg.regularize`?

Claim: A layer with kernel_regularizer=l1(0.01) gets zero weights.

Expected: Keras' weights to 1e-6 once Adam's epsilon is read as Keras reads it; after
thousands of steps only where no weight came so near to 0 that rounding chose its sign
(Keras' formulas, written out, then miss Keras as well). Not one exact zero in Keras'
way, whatever a threshold counts; with `regularize` most weights exactly zero at 0.01,
and at most 1 point less test accuracy.

Rule: at the largest strength, holds if the loss alone leaves more than half of the
weights exactly zero. Else holds with conditions if `regularize` does, at less than 1
point of test accuracy, and the early weights are Keras' to 1e-6; false otherwise.

Cost: about 15 seconds on 2 cores; 2 minutes where Keras is installed,
`pip install -e ".[experiments,peers]"`. Without it the table compares with Keras'
formulas, written out in JAX.

Command: python -m experiments keras_regularizer
"""

import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import itertools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax

import jaxreg
from experiments.harness.contract import Row
from experiments.kit import data_sets, stats, training

DEFAULT = True

# Kernel and bias of the hidden layer, then of the output layer.
Weights = list[np.ndarray]
Step = Callable[[Any, Any], tuple[Any, None]]

KERAS = "Keras, kernel_regularizer"
FORMULAS = "Keras' formulas in JAX"
SAME = "add_penalty_gradient, Keras' epsilon"
OPTAX = "add_penalty_gradient, optax.adam"
OURS = "regularize(optax.adam)"
# Keras' defaults.
_B1, _B2, _EPSILON = 0.9, 0.999, 1e-7

# Four of them coincide: hollow markers of falling size.
_STYLES = {
    KERAS: ("tab:gray", "o", 13),
    FORMULAS: ("tab:brown", "s", 10),
    SAME: ("tab:blue", "D", 6),
    OPTAX: ("tab:cyan", "x", 4),
    OURS: ("tab:red", "^", 7),
}
_SIZES = (64, 64, 10)
_MARKS = (0.0, *(float(mark) for mark in np.geomspace(1e-7, 1, 29)))
_SAME_TO = 1e-6


@dataclasses.dataclass(frozen=True)
class Config:
    """Adam at one rate, as Keras' default is; the batches are shuffled passes.

    Weights are compared after `early` steps and after all.
    """

    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    seeds: int = 5
    steps: int = 3000
    early: int = 300
    batch: int = 32
    rate: float = 1e-3


QUICK = Config(strengths=(1e-2,), seeds=1, steps=1500)


def cells(config: Config) -> list[Row]:
    """One cell per way, strength and seed; Keras' own where it is installed."""
    ways = [FORMULAS, SAME, OPTAX, OURS]
    return [
        {"way": way, "strength": strength, "seed": seed}
        for way in ([KERAS] if _has_keras() else []) + ways
        for strength in config.strengths
        for seed in range(config.seeds)
    ]


def _has_keras() -> bool:
    return importlib.util.find_spec("keras") is not None


def measure(config: Config, way: str, strength: float, seed: int) -> Row:
    """Accuracy and zeros of one training, and its distance from Keras' weights."""
    early, weights = _trained(config, way, strength, seed)
    split = data_sets.digits(seed)
    row: Row = {}
    for name, reference in (("keras", KERAS), ("formulas", FORMULAS)):
        known = reference == FORMULAS or _has_keras()
        theirs = _trained(config, reference, strength, seed) if known else None
        row[f"early_from_{name}"] = _distance(early, theirs[0]) if theirs else None
        row[f"from_{name}"] = _distance(weights, theirs[1]) if theirs else None
    sizes = np.abs(weights[0])
    logits = _apply(weights, split.test_x)
    return {
        "test_accuracy": float(np.mean(np.argmax(logits, axis=1) == split.test_y)),
        "exact_zeros": float(np.mean(sizes == 0)),
        "below_1e-3": float(np.mean(sizes < 1e-3)),
        **row,
        "shares": [float(np.mean(sizes <= mark)) for mark in _MARKS],
    }


def _distance(ours: Weights, theirs: Weights) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.max(np.abs(a - b))) for a, b in pairs)


@functools.cache
def _trained(config: Config, way: str, strength: float, seed: int) -> list[Weights]:
    """The weights after the early steps and at the end."""
    # Keras holds the rate in float32.
    rate = float(np.float32(config.rate))
    start, (x, y) = _start(seed), _batches(config, seed)
    cut = config.early
    parts = [(x[:cut], y[:cut]), (x[cut:], y[cut:])]
    with jax.enable_x64(True):
        train = _fit_keras if way == KERAS else functools.partial(_fit, way)
        trained = train(start, parts, strength, rate)
        return [list(map(np.asarray, weights)) for weights in trained]


def _start(seed: int) -> list[np.ndarray]:
    """Keras' default: kernels uniform within sqrt(6 / (inputs + outputs)), biases 0."""
    generator, start = np.random.default_rng(seed), []
    for inputs, outputs in itertools.pairwise(_SIZES):
        limit = (6 / (inputs + outputs)) ** 0.5
        kernel = generator.uniform(-limit, limit, size=(inputs, outputs))
        start += [kernel, np.zeros(outputs)]
    return start


def _batches(config: Config, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch per step, of passes over the data, each in a new order."""
    split, generator = data_sets.digits(seed), np.random.default_rng(seed)
    wanted = config.steps * config.batch
    passes = -(-wanted // len(split.train_x))
    orders = [generator.permutation(len(split.train_x)) for _ in range(passes)]
    chosen = np.concatenate(orders)[:wanted]
    chosen = chosen.reshape(config.steps, config.batch)
    return split.train_x[chosen].astype(np.float64), split.train_y[chosen]


def _fit_keras(
    start: Weights,
    parts: list[tuple[np.ndarray, np.ndarray]],
    strength: float,
    rate: float,
) -> list[Weights]:
    """The weights after each part of the batches, trained by Keras in float64.

    Each part is one pass of `fit`, in the order of its batches. The backend is JAX
    unless KERAS_BACKEND was set before Keras was imported.
    """
    os.environ.setdefault("KERAS_BACKEND", "jax")
    # Here and not above: Keras may be missing.
    keras = importlib.import_module("keras")
    double = {"dtype": "float64"}
    hidden = keras.layers.Dense(
        start[0].shape[1],
        activation="relu",
        kernel_regularizer=keras.regularizers.L1(strength),
        **double,
    )
    outputs = keras.layers.Dense(start[2].shape[1], **double)
    model = keras.Sequential([hidden, outputs])
    model.build((None, start[0].shape[0]))
    model.set_weights(start)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, **double)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
    weights = []
    for x, y in parts:
        rows = x.reshape(-1, x.shape[-1])
        model.fit(rows, y.ravel(), batch_size=y.shape[1], shuffle=False, verbose=0)
        weights.append([np.array(weight.value) for weight in model.weights])
    return weights


def _apply(weights: Any, x: Any) -> Any:
    """The logits from kernel and bias of the hidden layer and of the output layer."""
    kernel, bias, outputs, shifts = weights
    return jnp.maximum(x @ kernel + bias, 0) @ outputs + shifts


_loss = training.cross_entropy(_apply)


@functools.partial(jax.jit, static_argnames="way")
def _fit(way: str, start: Any, parts: Any, strength: Any, rate: Any) -> list[Any]:
    """The weights after each part of the batches, trained in JAX."""
    if way == FORMULAS:
        step, carry = _formulas(start, strength, rate)
    else:
        penalty = jaxreg.by_path([("^0$", jaxreg.L1(strength))])
        step, carry = _chain(start, _optimizer(way, penalty, rate))
    weights = []
    for batches in parts:
        carry, _ = jax.lax.scan(step, carry, batches)
        weights.append(carry[0])
    return weights


def _chain(start: Any, tx: optax.GradientTransformation) -> tuple[Step, Any]:
    def step(carry: Any, batch: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = tx.update(jax.grad(_loss)(params, *batch), state, params)
        return (optax.apply_updates(params, updates), state), None

    return step, (start, tx.init(start))


def _optimizer(
    way: str, penalty: jaxreg.Penalty, rate: Any
) -> optax.GradientTransformation:
    if way == OURS:
        return jaxreg.regularize(optax.adam(rate), penalty)
    adam = optax.adam(rate, eps=_EPSILON) if way == OPTAX else _keras_adam(rate)
    return optax.chain(jaxreg.add_penalty_gradient(penalty), adam)


def _keras_adam(rate: Any) -> optax.GradientTransformation:
    """Adam with Keras' epsilon: beside the root of v before its bias correction."""

    def epsilon(count: jax.Array) -> jax.Array:
        return _EPSILON / jnp.sqrt(1 - _B2 ** (count + 1.0))

    adam: Callable[..., Any] = optax.inject_hyperparams(optax.scale_by_adam)
    return optax.chain(
        adam(b1=_B1, b2=_B2, eps=epsilon), optax.scale_by_learning_rate(rate)
    )


def _formulas(start: Any, strength: Any, rate: Any) -> tuple[Step, Any]:
    """The penalty in the loss, and Adam as in Keras' documentation and source."""

    def objective(w: Any, x: Any, y: Any) -> Any:
        return _loss(w, x, y) + strength * jnp.sum(jnp.abs(w[0]))

    def step(carry: Any, batch: Any) -> tuple[Any, None]:
        weights, means, squares, count = carry
        grads = jax.grad(objective)(weights, *batch)
        moved = []
        for w, m, v, g in zip(weights, means, squares, grads, strict=True):
            mean = m + (g - m) * (1 - _B1)
            square = v + (g**2 - v) * (1 - _B2)
            size = rate * jnp.sqrt(1 - _B2**count) / (1 - _B1**count)
            new = w - mean * size / (jnp.sqrt(square) + _EPSILON)
            moved.append((new, mean, square))
        return (*map(list, zip(*moved, strict=True)), count + 1), None

    zeros = [jnp.zeros_like(w) for w in start]
    return step, (list(map(jnp.asarray, start)), zeros, zeros, jnp.ones(()))


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Means over the seeds, the largest distances, and the version of Keras."""
    measured = ("test_accuracy", "exact_zeros", "below_1e-3")
    table = stats.over_seeds(rows, ("way", "strength"), measured)
    version = importlib.metadata.version("keras") if _has_keras() else "not installed"
    for row in table:
        mine = stats.alike(rows, row, ("way", "strength"))
        for column in (name for name in mine[0] if "from_" in name):
            row[column] = stats.largest(mine, column)
        row["keras"] = version
    return table


def verdict(config: Config, rows: list[Row]) -> str:
    """Zeros of both ways at the strongest penalty, and the distance from Keras."""
    table = summarise(config, rows)
    same, ours = (
        max((row for row in table if row["way"] == way), key=lambda r: r["strength"])
        for way in (SAME, OURS)
    )
    told, column = "Keras' formulas", "from_formulas"
    if same["from_keras"] is not None:
        told, column = "Keras", "from_keras"
    mine = stats.select(rows, way=SAME)
    apart = max(row[f"early_{column}"] for row in mine)
    to_the_end = sum(row[column] < _SAME_TO for row in mine)
    points = 100 * (ours["test_accuracy"] - same["test_accuracy"])
    is_ours = ours["exact_zeros"] > 0.5 and apart < _SAME_TO and points > -1
    word = "holds with conditions" if is_ours else "false"
    if same["exact_zeros"] > 0.5:
        word = "holds"
    return (
        f"{word}: with l1({same['strength']:g}) in the loss {same['exact_zeros']:.1%} "
        f"of the weights are exactly zero, {same['below_1e-3']:.1%} below 1e-3; "
        f"add_penalty_gradient gives the weights of {told} to {apart:.0e} after "
        f"{config.early} steps, in {to_the_end} of {len(mine)} runs to the end. "
        f"regularize leaves {ours['exact_zeros']:.1%} exact zeros, at {points:+.2f} "
        "points of test accuracy."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """The sizes of the weights at the strongest penalty, and accuracy by strength."""
    figure = matplotlib.figure.Figure(figsize=(10, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    strongest = max(config.strengths)
    for way in dict.fromkeys(row["way"] for row in rows):
        color, marker, size = _STYLES[way]
        style = {"color": color, "marker": marker, "ms": size, "fillstyle": "none"}
        mine = stats.select(rows, way=way)
        shares = [row["shares"] for row in stats.select(mine, strength=strongest)]
        percent = 100 * np.mean(shares, axis=0)
        # A logarithmic axis cannot show zero: it is drawn at the left end.
        marks = [_MARKS[1] / 2, *_MARKS[1:]]
        left.plot(marks, percent, label=way, **style)
        line = stats.over_seeds(mine, ("strength",), ("test_accuracy",))
        right.errorbar(
            [row["strength"] for row in line],
            [100 * row["test_accuracy"] for row in line],
            [100 * row["test_accuracy_se"] for row in line],
            capsize=3,
            **style,
        )
    left.axvline(1e-3, color="black", lw=0.8, ls=":")
    left.set_xscale("log")
    left.set_xlabel(f"size of a weight (left end: exactly 0), l1({strongest:g})")
    left.set_ylabel("weights at most as large, %")
    right.set_xscale("log")
    right.set_xlabel("strength of L1")
    right.set_ylabel("test accuracy, %")
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    return figure
