"""One penalty per file, named as the literature names it."""

from jaxreg.penalties.capped_l1 import CappedL1
from jaxreg.penalties.elastic_net import ElasticNet
from jaxreg.penalties.fused_lasso import FusedLasso
from jaxreg.penalties.group_lasso import GroupLasso
from jaxreg.penalties.hierarchical import Hierarchical
from jaxreg.penalties.hoyer_square import HoyerSquare
from jaxreg.penalties.huber import Huber
from jaxreg.penalties.l0 import L0
from jaxreg.penalties.l1 import L1
from jaxreg.penalties.l2 import L2
from jaxreg.penalties.lhalf import LHalf
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

__all__ = [
    "L0",
    "L1",
    "L2",
    "MCP",
    "SCAD",
    "SLOPE",
    "CappedL1",
    "ElasticNet",
    "FusedLasso",
    "GroupLasso",
    "Hierarchical",
    "HoyerSquare",
    "Huber",
    "LHalf",
    "LInf",
    "LogSum",
    "Lp",
    "NuclearNorm",
    "Orthogonality",
    "PiecewiseAffine",
    "SparseGroupLasso",
    "TotalVariation",
    "TransformedL1",
    "TrendFilter",
]
