"""jaxreg: penalties for JAX, composed into Optax optimizers."""

from typing import TYPE_CHECKING

from jaxreg import model_selection, preconditioners, solve, states
from jaxreg._core.constraint import Constraint
from jaxreg._core.groups import Blocks
from jaxreg._core.leafwise import Elementwise, Leafwise

# Write your own
from jaxreg._core.penalty import Facts, Penalty
from jaxreg._core.pytree import pytree_dataclass

# Made from another
from jaxreg.calculus.anchored import anchored
from jaxreg.calculus.envelope import conjugate_prox, envelope
from jaxreg.calculus.grouped import grouped
from jaxreg.calculus.nonnegative import nonnegative
from jaxreg.calculus.overlap import Overlap
from jaxreg.calculus.scaled import scaled
from jaxreg.calculus.spectral import spectral
from jaxreg.calculus.weighted import weighted

# Smaller models
from jaxreg.compaction.compact import compact
from jaxreg.compaction.coupled import coupled
from jaxreg.compaction.couplings import couplings
from jaxreg.constraints.box import Box
from jaxreg.constraints.l1_ball import L1Ball
from jaxreg.constraints.l2_ball import L2Ball
from jaxreg.constraints.min_max_norm import MinMaxNorm

# Constraints
from jaxreg.constraints.nm import NM
from jaxreg.constraints.non_negative import NonNegative
from jaxreg.constraints.orthogonal import Orthogonal
from jaxreg.constraints.rank_at_most import RankAtMost
from jaxreg.constraints.simplex import Simplex
from jaxreg.constraints.spectral_ball import SpectralBall
from jaxreg.constraints.top_k import TopK
from jaxreg.constraints.unit_norm import UnitNorm
from jaxreg.penalties.capped_l1 import CappedL1
from jaxreg.penalties.elastic_net import ElasticNet
from jaxreg.penalties.fused_lasso import FusedLasso
from jaxreg.penalties.group_lasso import GroupLasso
from jaxreg.penalties.hierarchical import Hierarchical
from jaxreg.penalties.hoyer_square import HoyerSquare
from jaxreg.penalties.huber import Huber

# Penalties
from jaxreg.penalties.l0 import L0
from jaxreg.penalties.l1 import L1
from jaxreg.penalties.l2 import L2
from jaxreg.penalties.linf import LInf
from jaxreg.penalties.log_sum import LogSum
from jaxreg.penalties.lp import Lp
from jaxreg.penalties.mcp import MCP
from jaxreg.penalties.nuclear_norm import NuclearNorm
from jaxreg.penalties.orthogonality import Orthogonality
from jaxreg.penalties.piecewise_affine import PiecewiseAffine
from jaxreg.penalties.scad import SCAD
from jaxreg.penalties.slope import SLOPE
from jaxreg.penalties.sparse_group_lasso import SparseGroupLasso
from jaxreg.penalties.total_variation import TotalVariation
from jaxreg.penalties.transformed_l1 import TransformedL1
from jaxreg.penalties.trend_filter import TrendFilter

# Reading
from jaxreg.reports.check import check
from jaxreg.reports.measure import max_strength, measure
from jaxreg.reports.table import describe, summary

# Which leaves
from jaxreg.rules.by_path import by_path
from jaxreg.rules.flax import (
    channel_scales,
    filters,
    heads,
    input_features,
    neurons,
    on_kernels,
)

# Solving
from jaxreg.solve._minimise import minimise

# Ways to apply a penalty
from jaxreg.transforms.add_penalty_gradient import add_penalty_gradient
from jaxreg.transforms.dual_average import dual_average
from jaxreg.transforms.ftrl import ftrl
from jaxreg.transforms.half_space import half_space
from jaxreg.transforms.hold_support import hold_support, orthant
from jaxreg.transforms.latent import latent
from jaxreg.transforms.project import project
from jaxreg.transforms.prox_optimizers import (
    prox_adagrad,
    prox_adam,
    prox_adamw,
    prox_rmsprop,
    prox_sgd,
)
from jaxreg.transforms.proximal import proximal
from jaxreg.transforms.regularize import regularize
from jaxreg.transforms.reweight import reweight
from jaxreg.transforms.shrink import shrink
from jaxreg.transforms.target_sparsity import target_sparsity

# Names of other libraries; a type checker that saw this would accept every name.
if not TYPE_CHECKING:
    from jaxreg._core.other_libraries import __getattr__ as __getattr__

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
    "Constraint",
    "ElasticNet",
    "Elementwise",
    "Facts",
    "FusedLasso",
    "GroupLasso",
    "Hierarchical",
    "HoyerSquare",
    "Huber",
    "L1Ball",
    "L2Ball",
    "LInf",
    "Leafwise",
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
    "Simplex",
    "SparseGroupLasso",
    "SpectralBall",
    "TopK",
    "TotalVariation",
    "TransformedL1",
    "TrendFilter",
    "UnitNorm",
    "add_penalty_gradient",
    "anchored",
    "by_path",
    "channel_scales",
    "check",
    "compact",
    "conjugate_prox",
    "coupled",
    "couplings",
    "describe",
    "dual_average",
    "envelope",
    "filters",
    "ftrl",
    "grouped",
    "half_space",
    "heads",
    "hold_support",
    "input_features",
    "latent",
    "max_strength",
    "measure",
    "minimise",
    "model_selection",
    "neurons",
    "nonnegative",
    "on_kernels",
    "orthant",
    "preconditioners",
    "project",
    "prox_adagrad",
    "prox_adam",
    "prox_adamw",
    "prox_rmsprop",
    "prox_sgd",
    "proximal",
    "pytree_dataclass",
    "regularize",
    "reweight",
    "scaled",
    "shrink",
    "solve",
    "spectral",
    "states",
    "summary",
    "target_sparsity",
    "weighted",
]
__version__ = "0.2.0"


def __dir__() -> list[str]:
    return sorted(__all__)
