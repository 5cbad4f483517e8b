"""Ways to choose k inputs: the networks and baselines of `neural_feature_selection`."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn import ensemble

import jaxreg
from experiments.kit import networks, training

ALL, RANDOM, VARIANCE, TREES = "all inputs", "random", "variance", "tree importance"
LASSO, MCP, HIERARCHY = "group lasso", "group MCP", "hierarchy"
BASELINES = (RANDOM, VARIANCE, TREES)
METHODS = (ALL, *BASELINES, LASSO, HIERARCHY, MCP)


class Settings(NamedTuple):
    """Of the networks that choose; the fields are those of the experiment's Config."""

    hidden: int
    steps: int
    batch: int
    warmup: int
    peak: float
    strength: float
    knot: float
    landing: float
    bound: float
    path: tuple[float, float]
    path_rate: float


def chosen(
    settings: Settings, method: str, x: np.ndarray, y: np.ndarray, k: int, seed: int
) -> np.ndarray:
    """The places of the k inputs that a method chooses, in rising order.

    Of equal scores the first: where a group penalty leaves fewer than k, these fill up.
    """
    classes = int(y.max()) + 1
    if method == ALL:
        return np.arange(x.shape[1])
    if method == RANDOM:
        scores = np.random.default_rng(seed).permutation(x.shape[1])
    elif method == VARIANCE:
        scores = x.var(axis=0)
    elif method == TREES:
        scores = trees(seed).fit(x, y).feature_importances_
    elif method == HIERARCHY:
        scores = np.asarray(_survival(settings, classes, x, y, seed))
    else:
        scores = np.asarray(_row_norms(settings, method, k, classes, x, y, seed))
    return np.sort(np.argsort(-scores, kind="stable")[:k])


def trees(seed: int) -> Any:
    """The forest of the LassoNet paper: 50 extremely randomised trees."""
    return ensemble.ExtraTreesClassifier(50, random_state=seed)


@functools.partial(jax.jit, static_argnames=("settings", "method", "k", "classes"))
def _row_norms(
    settings: Settings, method: str, k: int, classes: int, x: Any, y: Any, seed: Any
) -> jax.Array:
    """Of each input the norm of its weights, of which at most k are not 0.

    The unit of the dead zone and of the knot is the root mean square of a weight at the
    start.
    """
    inputs, unit = x.shape[1], x.shape[1] ** -0.5
    key, batch_key = jax.random.split(jax.random.key(seed))
    params, apply = networks.init_mlp((inputs, settings.hidden, classes), key)
    rate = training.warmup_cosine(settings.peak, settings.steps, settings.warmup)
    size = (
        jaxreg.L1(settings.strength)
        if method == LASSO
        else jaxreg.MCP(settings.strength, settings.knot * unit)
    )
    tx = jaxreg.target_sparsity(
        optax.adam(rate),
        jaxreg.input_features(size, "^layers/0$"),
        1 - k / inputs,
        round(settings.landing * settings.steps),
        width=unit,
    )
    params = training.fit(
        training.cross_entropy(apply),
        tx,
        params,
        (x, y),
        steps=settings.steps,
        batch=settings.batch,
        key=batch_key,
    )
    return jnp.linalg.norm(params["layers"][0]["kernel"][...], axis=1)


@functools.partial(jax.jit, static_argnames=("settings", "classes"))
def _survival(settings: Settings, classes: int, x: Any, y: Any, seed: Any) -> jax.Array:
    """Of each input how far along LassoNet's path of strengths it stays.

    Inputs alive at its end are ordered by the norm of their skip weights.
    """
    keys = jax.random.split(jax.random.key(seed), 3)
    inputs = x.shape[1]
    mlp, without = networks.init_mlp((inputs, settings.hidden, classes), keys[0])
    skip = jax.random.normal(keys[1], (inputs, classes)) * inputs**-0.5
    params = {"mlp": mlp, "skip": {"kernel": skip}}

    def apply(params: Any, x: Any) -> jax.Array:
        return without(params["mlp"], x) + x @ params["skip"]["kernel"]

    weakest, strongest = settings.path
    pair = jaxreg.Hierarchical(weakest, settings.bound, skip=1)
    rules = jaxreg.by_path([(r"^(mlp/layers/0|skip)/kernel$", pair)])
    path = optax.exponential_decay(1.0, settings.steps, strongest / weakest)
    tx = jaxreg.prox_sgd(settings.path_rate, rules, momentum=0.9, schedule=path)
    params, (_, last) = training.fit_with_state(
        training.cross_entropy(apply),
        optax.chain(tx, _last_alive()),
        params,
        (x, y),
        settings.steps,
        settings.batch,
        keys[2],
    )
    norms = _skip_norms(params)
    # Less than one step tells apart those that are left at the end.
    return last.step + 0.5 * norms / jnp.maximum(jnp.max(norms), 1.0)


class _LastAlive(NamedTuple):
    now: jax.Array
    step: jax.Array


def _last_alive() -> optax.GradientTransformation:
    """Notes when the skip weights of each input were last not all 0."""

    def init(params: Any) -> _LastAlive:
        return _LastAlive(jnp.zeros(()), jnp.zeros_like(_skip_norms(params)))

    def update(updates: Any, state: _LastAlive, params: Any) -> tuple[Any, _LastAlive]:
        now = state.now + 1
        is_alive = _skip_norms(optax.apply_updates(params, updates)) > 0
        return updates, _LastAlive(now, jnp.where(is_alive, now, state.step))

    return optax.GradientTransformation(init, update)


def _skip_norms(params: Any) -> jax.Array:
    return jnp.linalg.norm(params["skip"]["kernel"], axis=1)


@functools.partial(jax.jit, static_argnames=("sizes", "steps", "batch", "warmup"))
def refitted(
    sizes: tuple[int, ...],
    steps: int,
    batch: int,
    warmup: int,
    x: Any,
    y: Any,
    test_x: Any,
    test_y: Any,
    seed: Any,
) -> jax.Array:
    """The test accuracy of a fresh network on these inputs, without a penalty."""
    key, batch_key = jax.random.split(jax.random.key(seed))
    params, apply = networks.init_mlp(sizes, key)
    tx = optax.adamw(training.warmup_cosine(3e-3, steps, warmup), weight_decay=1e-2)
    loss = training.cross_entropy(apply)
    params = training.fit(
        loss, tx, params, (x, y), steps=steps, batch=batch, key=batch_key
    )
    return training.accuracy(apply, params, test_x, test_y)
