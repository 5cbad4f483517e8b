"""Sweeps over strengths on linear models and a small network, and their data.

Each sweep fits every fold, and all training samples as a fold that holds nothing out.
The linear fits are exact, by `jaxreg.minimise` in float64; the network trains by
`regularize`.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn import datasets, model_selection

import jaxreg
from experiments.kit import data_sets, linear_models, networks, training

DIABETES, CANCER = "diabetes", "breast_cancer"
SPARSE, DIGITS = "sparse_truth", "digits"
LINEAR = (DIABETES, CANCER, SPARSE)
PROBLEMS = (*LINEAR, DIGITS)
COLD = "all at once, each from the start"
DOWN, UP = "warm, strong to weak", "warm, weak to strong"


class Fits(NamedTuple):
    """Errors, likelihood, non-zeros and weights of every strength and fold."""

    validation: Any
    test: Any
    likelihood: Any
    nonzeros: Any
    weights: Any


def load(config: Any, problem: str, seed: int) -> tuple[data_sets.Split, np.ndarray]:
    """A random split, 80 % for training, and the true weights of `SPARSE`.

    Features and real answers have mean 0 and variance 1 in the training part.
    """
    if problem == DIGITS:
        return data_sets.digits(seed), np.zeros(0)
    truth = np.zeros(0)
    if problem == SPARSE:
        rng = np.random.default_rng(seed)
        truth = np.zeros(config.features)
        truth[: config.relevant] = config.size * rng.choice([-1, 1], config.relevant)
        x = rng.normal(size=(config.samples + config.test, config.features))
        y = x @ truth + rng.normal(size=len(x))
        parts = (x[: config.samples], x[config.samples :])
        answers = (y[: config.samples], y[config.samples :])
        return data_sets.Split(parts[0], answers[0], parts[1], answers[1]), truth
    is_cancer = problem == CANCER
    read = datasets.load_breast_cancer if is_cancer else datasets.load_diabetes
    x, y = read(return_X_y=True)
    train_x, test_x, train_y, test_y = model_selection.train_test_split(
        x, y * 1.0, test_size=0.2, stratify=y if is_cancer else None, random_state=seed
    )
    centre, scale = train_x.mean(axis=0), train_x.std(axis=0)
    train_x, test_x = (train_x - centre) / scale, (test_x - centre) / scale
    if not is_cancer:
        centre, scale = train_y.mean(), train_y.std()
        train_y, test_y = (train_y - centre) / scale, (test_y - centre) / scale
    return data_sets.Split(train_x, train_y, test_x, test_y), truth


def folds(config: Any, problem: str, split: data_sets.Split, seed: int) -> jax.Array:
    """The masks of the folds, fixed by the seed, then one that holds nothing out."""
    labels = split.train_y if problem in (CANCER, DIGITS) else None
    count = config.network_folds if problem == DIGITS else config.folds
    key = jax.random.key(seed)
    masks = jaxreg.model_selection.fold_masks(key, count, len(split.train_y), labels)
    return jnp.concatenate([masks, jnp.zeros_like(masks[:1])])


def grid(config: Any, problem: str, split: data_sets.Split, seed: int) -> jax.Array:
    """Strengths from `max_strength` down, then the untuned one."""
    if problem == DIGITS:
        largest = _largest_of_network(config, seed, split)
        shape = (config.network_strengths, config.network_ratio)
    else:
        y = split.train_y
        pull = split.train_x.T @ (y - y.mean()) / len(y)
        largest = jaxreg.max_strength(jaxreg.L1(1.0), jnp.asarray(pull)).overall
        ratio = config.sparse_ratio if problem == SPARSE else config.ratio
        shape = (config.strengths, ratio)
    return jnp.append(
        jaxreg.model_selection.strength_grid(largest, *shape), config.untuned
    )


@functools.partial(jax.jit, static_argnames="config")
def _largest_of_network(config: Any, seed: Any, split: Any) -> jax.Array:
    params, apply = networks.init_mlp(config.sizes, jax.random.key(seed))
    grads = jax.grad(training.cross_entropy(apply))(params, *split[:2])
    penalty = jaxreg.on_kernels(jaxreg.L1(1.0))
    return jaxreg.max_strength(penalty, grads).overall


@functools.partial(jax.jit, static_argnames=("config", "problem", "way"))
def sweep(
    config: Any,
    problem: str,
    way: str,
    seed: Any,
    split: Any,
    strengths: Any,
    masks: Any,
) -> Fits:
    """Fits at every strength, for every mask of samples held out.

    The seed fixes a network's first weights and batches, the same for all its fits.
    """
    if problem == DIGITS:
        return _network(config, way, seed, split, strengths, masks)
    return _linear_models(config, way, problem == CANCER, split, strengths, masks)


def _linear_models(
    config: Any, way: str, is_logistic: bool, split: Any, strengths: Any, masks: Any
) -> Fits:
    x = split.train_x

    def fit(strength: jax.Array, start: Any, mask: jax.Array) -> tuple[Any, Fits]:
        train = ~mask / jnp.sum(~mask)
        params = linear_models.fit_with_intercept(
            jaxreg.scaled(jaxreg.L1(1.0), strength),
            is_logistic,
            start,
            split[:2],
            train,
            tolerance=config.tolerance,
            most=config.most,
        ).params
        losses = _losses(is_logistic, params, *split[:2])
        fits = Fits(
            jnp.sum(mask * losses) / jnp.maximum(jnp.sum(mask), 1),
            jnp.mean(_losses(is_logistic, params, *split[2:])),
            _likelihood(is_logistic, losses),
            jnp.sum(params["kernel"] != 0),
            params["kernel"],
        )
        return params, fits

    def start(mask: jax.Array) -> Any:
        # The solution at the largest strength, where all weights are zero.
        mean = jnp.sum(~mask * split.train_y) / jnp.sum(~mask)
        bias = jnp.log(mean / (1 - mean)) if is_logistic else mean
        return {"bias": bias, "kernel": jnp.zeros(x.shape[1])}

    return _in_order(way, fit, strengths, masks, start)


def _losses(is_logistic: bool, params: Any, x: Any, y: Any) -> jax.Array:
    scores = params["bias"] + x @ params["kernel"]
    if is_logistic:
        return optax.sigmoid_binary_cross_entropy(scores, y)
    return (scores - y) ** 2


def _likelihood(is_logistic: bool, losses: jax.Array) -> jax.Array:
    """The negative log-likelihood; for least squares with an unknown variance."""
    if is_logistic:
        return jnp.sum(losses)
    return len(losses) / 2 * jnp.log(jnp.mean(losses))


def _network(
    config: Any, way: str, seed: Any, split: Any, strengths: Any, masks: Any
) -> Fits:
    rates = training.warmup_cosine(config.peak, config.steps, config.warmup)
    keys = jax.random.split(jax.random.key(seed))
    params, apply = networks.init_mlp(config.sizes, keys[0])
    loss = training.cross_entropy(apply)
    x, y = map(jnp.asarray, split[:2])

    def fit(strength: jax.Array, start: Any, mask: jax.Array) -> tuple[Any, Fits]:
        penalty = jaxreg.scaled(jaxreg.on_kernels(jaxreg.L1(1.0)), strength)
        tx = jaxreg.regularize(optax.adam(rates), penalty, config.width)
        order = jnp.argsort(mask)
        params = training.fit(
            loss, tx, start, (x[order], y[order]), config, keys[1], jnp.sum(~mask)
        )
        wrong = jnp.argmax(apply(params, x), axis=-1) != y
        zeros = jaxreg.measure(penalty, params)["zeros"]
        fits = Fits(
            jnp.sum(mask * wrong) / jnp.maximum(jnp.sum(mask), 1),
            1 - training.accuracy(apply, params, *split[2:]),
            len(y) * loss(params, x, y),
            kernel_entries(config) - zeros,
            jnp.zeros(0),
        )
        return params, fits

    return _in_order(way, fit, strengths, masks, lambda mask: params)


def kernel_entries(config: Any) -> int:
    """The number of weights in the network's kernels."""
    sizes = config.sizes
    return sum(a * b for a, b in itertools.pairwise(sizes))


def _in_order(way: str, fit: Any, strengths: Any, masks: Any, start: Any) -> Fits:
    """The sweep in the order of `way`; the results are strongest first."""
    order = slice(None, None, -1 if way == UP else 1)
    fits = jaxreg.model_selection.sweep(
        fit, strengths[order], masks, start=start, warm_start=way != COLD
    )
    return jax.tree.map(lambda leaf: leaf[order], fits)
