"""Ways to choose a strength, or a set of features, from a sweep."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxreg
from experiments.strength import _sweeps

LEAST, ONE = "least validation error", "one standard error"
AIC, BIC, EBIC = "AIC", "BIC", "EBIC"
UNTUNED, BEST, WORST = "untuned, 0.01", "best on the test set", "worst of the grid"
REFITTED, STABLE = "EBIC of refits", "stability selection"
ON_THE_GRID = (LEAST, ONE, AIC, BIC, EBIC, BEST, WORST)


class Chosen(NamedTuple):
    """A strength, or NaN for a set of features; what it costs; what it keeps."""

    strength: float
    test_error: float
    nonzeros: int
    false_positives: int | None
    false_negatives: int | None


def places(found: _sweeps.Found, samples: int, candidates: int) -> dict[str, int]:
    """The place on the grid that each way chooses; the last strength is the untuned.

    Criteria leave out fits with more than half as many non-zeros as samples, if there
    are others.
    """
    whole = _sweeps.Found(*(np.asarray(leaf)[:-1, -1] for leaf in found))
    curve = jaxreg.model_selection.validation_curve(found.validation[:-1, :-1])
    criteria = jaxreg.model_selection.information_criteria(
        whole.likelihood, whole.nonzeros, samples, candidates
    )
    is_left_out = whole.nonzeros > samples / 2
    if is_left_out.all():
        is_left_out[:] = False
    ranked = {
        name: int(np.argmin(np.where(is_left_out, np.inf, numbers)))
        for name, numbers in zip((AIC, BIC, EBIC), criteria, strict=True)
    }
    return {
        LEAST: int(curve.least),
        ONE: int(curve.one_standard_error),
        **ranked,
        UNTUNED: len(whole.test),
        BEST: int(np.argmin(whole.test)),
        WORST: int(np.argmax(whole.test)),
    }


def on_the_grid(
    strengths: Any, found: _sweeps.Found, samples: int, candidates: int, truth: Any
) -> dict[str, Chosen]:
    """What each way chooses among the fits, and the untuned strength."""
    chosen = {}
    for way, place in places(found, samples, candidates).items():
        kept = np.asarray(found.weights[place, -1]) != 0
        chosen[way] = Chosen(
            float(strengths[place]),
            float(found.test[place, -1]),
            int(found.nonzeros[place, -1]),
            *_mistakes(kept, truth),
        )
    return chosen


def sets(
    config: Any, split: Any, strengths: Any, found: _sweeps.Found, truth: Any, seed: int
) -> dict[str, Chosen]:
    """Sets of features by EBIC of refits and by stability selection, refitted."""
    supports = np.unique(np.asarray(found.weights[:-1, -1]) != 0, axis=0)
    samples, candidates = split.train_x.shape
    small = [kept for kept in supports if kept.sum() <= samples / 2]
    fits = [_refit(split, kept) for kept in small]
    likelihood = np.array([samples / 2 * np.log(train) for train, _ in fits])
    counts = np.array([kept.sum() for kept in small])
    ebic = jaxreg.model_selection.information_criteria(
        likelihood, counts, samples, candidates
    ).ebic
    best = int(np.argmin(ebic))
    stable = _stable(config, split, strengths, seed)
    return {
        REFITTED: _as_chosen(small[best], fits[best][1], truth),
        STABLE: _as_chosen(stable, _refit(split, stable)[1], truth),
    }


def _stable(config: Any, split: Any, strengths: Any, seed: int) -> np.ndarray:
    """Half samples in complementary pairs, over the strong part of the grid."""
    samples = len(split.train_y)
    keys = jax.random.split(jax.random.key(seed), config.pairs)
    halves = jax.vmap(lambda key: jaxreg.model_selection.fold_masks(key, 2, samples))(
        keys
    )
    masks = jnp.reshape(halves, (-1, samples))
    head = strengths[: config.strong]
    found = _sweeps.sweep(
        config, _sweeps.SPARSE, _sweeps.DOWN, seed, split, head, masks
    )
    selection = jaxreg.model_selection.stability_selection(
        found.weights, config.threshold, config.false_positives
    )
    return np.asarray(selection.is_stable)


def _refit(split: Any, kept: np.ndarray) -> tuple[float, float]:
    """The mean squares of least squares on these features, in training and test."""
    ones = [np.ones((len(x), 1)) for x in (split.train_x, split.test_x)]
    train = np.concatenate([ones[0], split.train_x[:, kept]], axis=1)
    test = np.concatenate([ones[1], split.test_x[:, kept]], axis=1)
    weights = np.linalg.lstsq(train, split.train_y)[0]
    pairs = ((train, split.train_y), (test, split.test_y))
    errors = [float(np.mean((x @ weights - y) ** 2)) for x, y in pairs]
    return errors[0], errors[1]


def _as_chosen(kept: np.ndarray, test_error: float, truth: Any) -> Chosen:
    return Chosen(np.nan, test_error, int(kept.sum()), *_mistakes(kept, truth))


def _mistakes(kept: np.ndarray, truth: Any) -> tuple[int | None, int | None]:
    if not len(truth):
        return None, None
    return int(np.sum(kept & (truth == 0))), int(np.sum(~kept & (truth != 0)))
