"""Rows of functions of singular values, and of regularizers that are gradients only."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

import jaxreg
from tests.laws.row import Leaves, Row
from tests.laws.rows.basic import huber

# Singular values are sums of many products, and a prox is made of three matrices: its
# rounding is some tens of units in the largest entry.
ROUNDING = 50.0

# Of rank three and more also where the laws make rows and columns zero and alike.
MATRICES = {"conv": (2, 2, 2, 5), "kernel": (6, 5), "wide": (5, 6), "empty": (0, 3)}
PROBE = {"kernel": (2, 1)}
TINY = {"kernel": (3, 2)}

OnSizes = Callable[[np.ndarray], np.ndarray]


def as_matrices(leaf: np.ndarray, split: int) -> np.ndarray:
    """One matrix per point of a leaf with a leading axis of points."""
    shape = leaf.shape[1:]
    rows, columns = math.prod(shape[:split]), math.prod(shape[split:])
    return leaf.reshape(len(leaf), rows, columns)


def spectral_value(params: Leaves, phi: OnSizes, split: int = -1) -> np.ndarray:
    """`sum_i phi(sigma_i)` of every leaf."""
    value = np.zeros(())
    for leaf in params.values():
        sizes = np.linalg.svd(as_matrices(leaf, split), compute_uv=False)
        value = value + phi(sizes).sum(1)
    return value


def on_sizes(params: Leaves, moved: OnSizes, split: int = -1) -> Leaves:
    """`U diag(moved(sigma)) V^T` of every leaf with a leading axis of points."""
    out = {}
    for name, leaf in params.items():
        u, sizes, v = np.linalg.svd(as_matrices(leaf, split), full_matrices=False)
        out[name] = ((u * moved(sizes)[:, None]) @ v).reshape(leaf.shape)
    return out


def on_point(dual: Leaves, moved: OnSizes, split: int = -1) -> Leaves:
    points = {name: leaf[None] for name, leaf in dual.items()}
    return {n: leaf[0] for n, leaf in on_sizes(points, moved, split).items()}


def leading(sizes: np.ndarray, rank: int) -> np.ndarray:
    return np.where(np.arange(sizes.shape[1]) < rank, sizes, 0.0)


def on_the_ball(sizes: np.ndarray) -> np.ndarray:
    return np.minimum(sizes, 0.8)


def cosines(params: Leaves, axis: int) -> np.ndarray:
    """The sum over pairs of groups; `axis` counts the leading axis of points."""
    value = np.zeros(())
    for leaf in params.values():
        moved = np.moveaxis(leaf, axis, 1)
        rows = moved.reshape(*moved.shape[:2], -1)
        lengths = np.sqrt((rows**2).sum(-1))
        gram = abs(rows @ np.swapaxes(rows, 1, 2))
        products = lengths[:, :, None] * lengths[:, None]
        ratios = np.where(products > 0, gram / np.where(products > 0, products, 1), 0)
        value = value + np.triu(ratios, 1).sum((1, 2))
    return value


def hoyer_square(params: Leaves) -> np.ndarray:
    value = np.zeros(())
    for leaf in params.values():
        flat = leaf.reshape(len(leaf), -1)
        square = (flat**2).sum(1)
        safe = np.where(square > 0, square, 1.0)
        value = value + np.where(square > 0, abs(flat).sum(1) ** 2 / safe, 0.0)
    return value


def nuclear_row(split: int) -> Row:
    return Row(
        name=f"NuclearNorm split at {split}",
        penalty=jaxreg.NuclearNorm(0.3, split=split),
        shapes=MATRICES,
        probe=PROBE,
        tiny=TINY,
        value=lambda params: spectral_value(params, lambda s: 0.3 * s, split),
        conjugate_prox=lambda dual, step: on_point(
            dual, lambda s: np.minimum(s, 0.3), split
        ),
        varying_step=False,
        is_coupled=True,
        moves_by_width=False,
        rounding=ROUNDING,
    )


def layers(params: Leaves, axis: int) -> Leaves:
    """The layers of each leaf along an axis, as leaves of their own."""
    return {
        f"{name} {row}": leaf.take(row, axis)
        for name, leaf in params.items()
        for row in range(leaf.shape[axis])
    }


def stacked_dual(dual: Leaves) -> Leaves:
    by_layer = on_point(layers(dual, 0), lambda s: np.minimum(s, 0.3))
    return {
        name: np.stack([by_layer[f"{name} {row}"] for row in range(len(leaf))])
        for name, leaf in dual.items()
    }


def constraint_row(
    name: str, penalty: jaxreg.Penalty, moved: OnSizes, is_convex: bool
) -> Row:
    return Row(
        name=name,
        penalty=penalty,
        shapes=MATRICES,
        probe=PROBE,
        tiny=TINY,
        project=lambda points: on_sizes(points, moved),
        feasible=lambda points: on_sizes(points, moved),
        is_convex=is_convex,
        varying_step=False,
        stationarity_kind="normal cone",
        is_coupled=True,
        moves_by_width=False,
        rounding=ROUNDING,
    )


def gradient_row(
    name: str, penalty: jaxreg.Penalty, value: Callable[[Leaves], np.ndarray]
) -> Row:
    return Row(
        name=name,
        penalty=penalty,
        shapes={"conv": (3, 2, 2, 4), "kernel": (5, 4)},
        probe={"kernel": (2, 1)},
        tiny=TINY,
        value=value,
        is_convex=False,
        varying_step=False,
        is_coupled=True,
        rounding=ROUNDING,
    )


ROWS = [
    nuclear_row(-1),
    nuclear_row(1),
    dataclasses.replace(
        nuclear_row(-1),
        name="NuclearNorm of layers",
        penalty=jaxreg.NuclearNorm(0.3, stacked=1),
        shapes={"conv": (2, 3, 2, 2, 3), "kernel": (3, 4, 2)},
        probe={"kernel": (2, 1, 1)},
        tiny={"kernel": (2, 2, 1)},
        value=lambda params: spectral_value(layers(params, 1), lambda s: 0.3 * s),
        conjugate_prox=lambda dual, step: stacked_dual(dual),
    ),
    Row(
        name="spectral ElasticNet",
        penalty=jaxreg.spectral(jaxreg.ElasticNet(0.3, 0.2)),
        shapes=MATRICES,
        probe=PROBE,
        tiny=TINY,
        value=lambda params: spectral_value(params, lambda s: 0.3 * s + 0.2 * s**2),
        conjugate_prox=lambda dual, step: on_point(
            dual, lambda s: huber({"sizes": s}, step, 0.3, 0.2)["sizes"]
        ),
        varying_step=False,
        is_coupled=True,
        moves_by_width=False,
        rounding=ROUNDING,
    ),
    dataclasses.replace(
        constraint_row(
            "RankAtMost", jaxreg.RankAtMost(2), lambda sizes: leading(sizes, 2), False
        ),
        # No tie of the second and third singular value at the laws' awkward entries,
        # where the nearest point would not be unique.
        shapes={"conv": (2, 2, 2, 7), "kernel": (6, 7), "wide": (5, 8)},
        tiny={"kernel": (3, 3)},
    ),
    constraint_row("SpectralBall", jaxreg.SpectralBall(0.8), on_the_ball, True),
    dataclasses.replace(
        constraint_row("Orthogonal", jaxreg.Orthogonal(), np.ones_like, False),
        # Of full rank where the laws fill them with 1, -1, 1, 1, -1, ...: one nearest
        # point. Leaves full of one number are of rank one, and have many.
        shapes={"conv": (2, 2, 1, 2), "kernel": (5, 2), "wide": (3, 4)},
        keeps_zero=False,
        is_continuous=False,
        tiny={"kernel": (2, 3)},
    ),
    gradient_row(
        "Orthogonality",
        jaxreg.Orthogonality(0.3, group_axis=0),
        lambda params: 0.3 * cosines(params, 1),
    ),
    dataclasses.replace(
        gradient_row(
            "Orthogonality over -1",
            jaxreg.Orthogonality(0.3, group_axis=-1),
            lambda params: 0.3 * cosines(params, -1),
        ),
    ),
    gradient_row(
        "HoyerSquare",
        jaxreg.HoyerSquare(0.3),
        lambda params: 0.3 * hoyer_square(params),
    ),
]
