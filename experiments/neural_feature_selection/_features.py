"""The data of `neural_feature_selection`: what is drawn, and how many inputs stay."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from sklearn import model_selection

from experiments.kit import data_sets

MNIST, FASHION, DIGITS = "mnist", "fashion-mnist", "digits"
MICE, MICE_ROWS = "mice-protein", "mice-protein-rows"
KEPT = {MNIST: 50, FASHION: 50, MICE: 10, MICE_ROWS: 50, DIGITS: 10}
_DRAWN = 10_000
_HELD_OUT = 0.2


class _Rows(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    # Rows of one group are never parted.
    group: np.ndarray

    def take(self, chosen: np.ndarray) -> _Rows:
        return _Rows(*(column[chosen] for column in self))


def folders(datasets: tuple[str, ...]) -> tuple[str, ...]:
    """The folders in JAXREG_DATA that these data sets are read from."""
    names = (name.removesuffix("-rows") for name in datasets if name != DIGITS)
    return tuple(dict.fromkeys(names))


@functools.lru_cache(maxsize=1)
def draw(name: str, seed: int, tune: bool) -> data_sets.Split:
    """A training and a test part, by seed.

    Images: 10,000 and 10,000 drawn from all 70,000. Mice: a fifth of the mice of each
    class for testing, or of all rows where they are mixed; what is not measured gets
    the mean of the training part, whose range becomes [0, 1]. With `tune` the test part
    is a fifth of the training part, and what is kept for testing is not looked at.
    """
    train, test = _parts(name, seed)
    if tune:
        train, test = _parted(train, seed)
    x, test_x = train.x, test.x
    if name in (MICE, MICE_ROWS):
        x, test_x = _filled(x, test_x)
    return data_sets.Split(x, train.y, test_x, test.y)


def _parts(name: str, seed: int) -> tuple[_Rows, _Rows]:
    if name == DIGITS:
        split = data_sets.digits(seed)
        return _apart(split.train_x, split.train_y), _apart(*split[2:])
    if name in (MICE, MICE_ROWS):
        levels, classes, mouse = data_sets.mice_protein()
        whole = _Rows(levels, classes, mouse)
        return _parted(whole if name == MICE else _apart(levels, classes), seed)
    whole = _images(name)
    order = np.random.default_rng(seed).permutation(len(whole.y))
    return whole.take(order[:_DRAWN]), whole.take(order[_DRAWN : 2 * _DRAWN])


@functools.lru_cache(maxsize=1)
def _images(name: str) -> _Rows:
    train_x, train_y, test_x, test_y = data_sets.images(name)
    return _apart(np.concatenate([train_x, test_x]), np.concatenate([train_y, test_y]))


def _apart(x: np.ndarray, y: np.ndarray) -> _Rows:
    return _Rows(x, y, np.arange(len(y)))


def _parted(rows: _Rows, seed: int) -> tuple[_Rows, _Rows]:
    """Whole groups, a fifth of those of each class held out."""
    groups, first = np.unique(rows.group, return_index=True)
    _, held_out = model_selection.train_test_split(
        groups, test_size=_HELD_OUT, stratify=rows.y[first], random_state=seed
    )
    is_held = np.isin(rows.group, held_out)
    return rows.take(~is_held), rows.take(is_held)


def _filled(x: np.ndarray, test_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gaps filled and ranges set by `x`."""
    means, low, high = np.nanmean(x, 0), np.nanmin(x, 0), np.nanmax(x, 0)
    x, test_x = (
        (np.where(np.isnan(part), means, part) - low) / (high - low)
        for part in (x, test_x)
    )
    return x, test_x
