"""jaxreg: penalties for JAX, composed into Optax optimizers."""

# Penalties
# Penalties from penalties
from jaxreg.calculus import (
    Overlap,
    anchored,
    conjugate_prox,
    envelope,
    grouped,
    nonnegative,
    scaled,
    spectral,
    weighted,
)
from jaxreg.constraints import (
    NM,
    Box,
    L1Ball,
    L2Ball,
    MinMaxNorm,
    NonNegative,
    Orthogonal,
    RankAtMost,
    Simplex,
    SpectralBall,
    TopK,
    UnitNorm,
)

# How a leaf splits into groups
from jaxreg.groups import Blocks

# Reading parameters
from jaxreg.measures import max_strength
from jaxreg.penalties import (
    L0,
    L1,
    L2,
    MCP,
    SCAD,
    SLOPE,
    CappedL1,
    ElasticNet,
    FusedLasso,
    GroupLasso,
    Hierarchical,
    HoyerSquare,
    Huber,
    LHalf,
    LInf,
    LogSum,
    Lp,
    NuclearNorm,
    Orthogonality,
    PiecewiseAffine,
    SparseGroupLasso,
    TotalVariation,
    TransformedL1,
    TrendFilter,
)
from jaxreg.penalty import Penalty
from jaxreg.report import Table, describe, summary

# Which penalty acts on which leaf
from jaxreg.rules import by_path, on_kernels

# Ways to apply a penalty
from jaxreg.transforms import (
    RegularizeState,
    add_penalty_gradient,
    latent,
    regularize,
)

__all__ = [
    "L0",
    "L1",
    "L2",
    "MCP",
    "NM",
    "SCAD",
    "SLOPE",
    "Blocks",
    "Box",
    "CappedL1",
    "ElasticNet",
    "FusedLasso",
    "GroupLasso",
    "Hierarchical",
    "HoyerSquare",
    "Huber",
    "L1Ball",
    "L2Ball",
    "LHalf",
    "LInf",
    "LogSum",
    "Lp",
    "MinMaxNorm",
    "NonNegative",
    "NuclearNorm",
    "Orthogonal",
    "Orthogonality",
    "Overlap",
    "Penalty",
    "PiecewiseAffine",
    "RankAtMost",
    "RegularizeState",
    "Simplex",
    "SparseGroupLasso",
    "SpectralBall",
    "Table",
    "TopK",
    "TotalVariation",
    "TransformedL1",
    "TrendFilter",
    "UnitNorm",
    "add_penalty_gradient",
    "anchored",
    "by_path",
    "conjugate_prox",
    "describe",
    "envelope",
    "grouped",
    "latent",
    "max_strength",
    "nonnegative",
    "on_kernels",
    "regularize",
    "scaled",
    "spectral",
    "summary",
    "weighted",
]
__version__ = "0.1.0"
