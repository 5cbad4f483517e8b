"""Rows of penalties on units that span leaves."""

import math

import numpy as np

import jaxreg
from jaxreg.compaction.coupled import Coupled, Slices, Units
from tests.laws.row import Leaves, Row
from tests.laws.rows.elementwise import mcp

# Two units, each of an entry of the bias, a column of the kernel, two rows of "reader".
TWO = Units(
    2,
    (
        Slices("bias", 0, 2),
        Slices("kernel", 1, 2),
        Slices("reader", 0, 4, (0, 1, 0, 1)),
    ),
    entries=6,
)
SHAPES = {"bias": (2,), "kernel": (3, 2), "reader": (4, 1)}
# Both entries are of one unit, for brute force.
ONE = Units(1, (Slices("bias", 0, 1), Slices("kernel", 1, 1)), entries=2)
PAIR = {"bias": (1,), "kernel": (1, 1)}


def norms(params: Leaves) -> np.ndarray:
    """The norms of the two units, behind the axis of points."""
    squares = params["bias"] ** 2 + (params["kernel"] ** 2).sum(1)
    rows = params["reader"].reshape(len(params["bias"]), 2, 2, -1)
    return np.sqrt(squares + (rows**2).sum((1, 3)))


def dual(point: Leaves, step: float) -> Leaves:
    """Each unit projected on the ball of radius 0.3 sqrt(6)."""
    del step
    norm = norms({name: leaf[None] for name, leaf in point.items()})[0]
    share = np.minimum(1, 0.3 * math.sqrt(6) / np.where(norm > 0, norm, 1.0))
    return {
        "bias": point["bias"] * share,
        "kernel": point["kernel"] * share,
        "reader": point["reader"] * np.tile(share, 2)[:, None],
    }


def root_mean_square(params: Leaves) -> np.ndarray:
    return np.sqrt((params["bias"][:, 0] ** 2 + params["kernel"][:, 0, 0] ** 2) / 2)


ROWS = [
    Row(
        name="coupled L1",
        penalty=Coupled(jaxreg.L1(0.3), TWO),
        shapes=SHAPES,
        probe={"bias": (2,), "kernel": (0, 2), "reader": (4, 0)},
        tiny={"bias": (2,), "kernel": (0, 2), "reader": (4, 1)},
        value=lambda params: 0.3 * math.sqrt(6) * norms(params).sum(-1),
        conjugate_prox=dual,
        varying_step=False,
        scope="tree",
        is_bound_to_tree=True,
    ),
    Row(
        name="coupled MCP",
        penalty=Coupled(jaxreg.MCP(0.3, 1.3), ONE),
        shapes=PAIR,
        probe=PAIR,
        value=lambda params: 2 * mcp(root_mean_square(params), 0.3, 1.3),
        is_convex=False,
        varying_step=False,
        scope="tree",
        is_bound_to_tree=True,
    ),
]
