"""Data sets as arrays: scikit-learn's own, and larger ones from JAXREG_DATA."""

import contextlib
import csv
import gzip
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from sklearn import datasets, model_selection

from experiments.harness.contract import RunError


class Split(NamedTuple):
    """Inputs of shape (samples, features), float32 in [0, 1], and integer labels."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def digits(seed: int) -> Split:
    """1,797 images of 8x8 pixels, 80 % for training, stratified by class and seed."""
    images, labels = datasets.load_digits(return_X_y=True)
    return _split(images.astype(np.float32) / 16, labels.astype(np.int32), seed)


def validation(split: Split, seed: int) -> Split:
    """The training part split again: a fifth of it, to choose by, is the test part."""
    return _split(split.train_x, split.train_y, seed)


def _split(x: np.ndarray, y: np.ndarray, seed: int) -> Split:
    train_x, test_x, train_y, test_y = model_selection.train_test_split(
        x, y, test_size=0.2, stratify=y, random_state=seed
    )
    return Split(train_x, train_y, test_x, test_y)


def diabetes(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """442 patients, 10 features: training, validation and test part, 60, 20 and 20 %.

    Features and answers have mean 0 and variance 1 in the training part.
    """
    data, target = datasets.load_diabetes(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(data))
    parts = np.split(order, [round(share * len(data)) for share in (0.6, 0.8)])
    x, y = (
        (whole - whole[parts[0]].mean(axis=0)) / whole[parts[0]].std(axis=0)
        for whole in (data, target)
    )
    return [(x[part], y[part]) for part in parts]


# What readers say of such a file.
_DAMAGE = (
    EOFError,
    IndexError,
    ValueError,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    zlib.error,
)


def data_folder(name: str) -> pathlib.Path:
    """The folder of a larger data set.

    Raises:
      FileNotFoundError: JAXREG_DATA is not set or holds no such folder.
    """
    root = os.environ.get("JAXREG_DATA", "")
    folder = pathlib.Path(root) / name
    if not root or not folder.is_dir():
        raise FileNotFoundError(
            f"{name}: no folder of this name in JAXREG_DATA={root!r}; set JAXREG_DATA "
            f"to the folder that holds {name}/"
        )
    return folder


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
    """Names the file in the error of one that is cut off or damaged."""
    try:
        yield
    except _DAMAGE as error:
        raise RunError(
            f"{path} is cut off or damaged ({error}); download it again"
        ) from error


def images(name: str) -> Split:
    """60,000 and 10,000 images of 28x28 pixels, in the original order.

    Of the folder "mnist" or "fashion-mnist".
    """
    folder = data_folder(name)
    train_x, train_y, test_x, test_y = (
        _idx(folder / f"{name}.gz")
        for name in (
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        )
    )
    return Split(_pixels(train_x), _labels(train_y), _pixels(test_x), _labels(test_y))


def _idx(path: pathlib.Path) -> np.ndarray:
    with _reading(path):
        content = gzip.decompress(path.read_bytes())
        axes = content[3]
        shape = np.frombuffer(content, ">u4", count=axes, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255.0


def _labels(labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.int32)


class Expression(NamedTuple):
    """Positive levels of expression, (samples, genes), and classes 0 and 1.

    A gene counts as expressed differently where its highest level is over `fold` times
    its lowest and over `difference` more: to be read off the training samples.
    """

    levels: np.ndarray
    classes: np.ndarray
    fold: float
    difference: float


def standardised(data: Expression, learnt_from: np.ndarray) -> np.ndarray:
    """Logarithms of all samples, standardised as `learnt_from` (a mask) alone says.

    A gene that those samples express alike is 0 everywhere, so that no fit can use it
    and the shape is the same for each choice of samples.
    """
    seen = data.levels[learnt_from]
    low, high = seen.min(axis=0), seen.max(axis=0)
    varies = (high > data.fold * low) & (high - low > data.difference)
    logs = np.log10(data.levels)
    mean, deviation = (f(logs[learnt_from], axis=0) for f in (np.mean, np.std))
    scores = (logs - mean) / np.where(varies, deviation, 1)
    return np.where(varies, scores, 0).astype(np.float32)


def gene_expression(name: str) -> Expression:
    """Two microarray studies, without anything learnt from their samples.

    "golub": ALL and AML leukemias, 7,129 genes, levels cut to 100 and 16,000; a gene
    has to vary over 5-fold and by 500 (Dudoit, Fridlyand and Speed 2002, who read this
    off all samples). "alon": normal and tumour colon tissue, 2,000 genes.
    """
    path = data_folder("microarray") / f"{name}.npz"
    with _reading(path), path.open("rb") as file:
        held = np.load(file, allow_pickle=False)
        levels, labels = held["X"], held["y"]
    classes = np.unique(labels, return_inverse=True)[1].astype(np.float32)
    if name == "golub":
        return Expression(np.clip(levels, 100, 16_000), classes, 5.0, 500.0)
    return Expression(levels, classes, 1.0, 0.0)


class Mice(NamedTuple):
    """77 levels of protein per row, NaN where unmeasured; 15 rows of each mouse."""

    levels: np.ndarray
    classes: np.ndarray
    mouse: np.ndarray


def mice_protein() -> Mice:
    """1,080 rows of 72 mice in 8 classes (genotype, treatment and training)."""
    path = data_folder("mice-protein") / "Data_Cortex_Nuclear.csv"
    with _reading(path), path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
        levels = np.array([[_level(text) for text in row[1:78]] for row in rows], "f4")
        names, kinds = ([row[column] for row in rows] for column in (0, 81))
    _, classes = np.unique(kinds, return_inverse=True)
    _, mouse = np.unique([name.split("_")[0] for name in names], return_inverse=True)
    return Mice(levels, _labels(classes), mouse)


def _level(text: str) -> float:
    return float(text) if text else np.nan


def tiny_shakespeare() -> np.ndarray:
    """1,115,394 characters of Shakespeare in order, as numbers of 65 symbols."""
    text = (data_folder("tinyshakespeare") / "input.txt").read_bytes()
    _, tokens = np.unique(np.frombuffer(text, np.uint8), return_inverse=True)
    return tokens.astype(np.int32)
