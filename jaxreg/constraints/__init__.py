"""One indicator per file; its prox is the projection."""

from jaxreg.constraints.box import Box
from jaxreg.constraints.l1_ball import L1Ball
from jaxreg.constraints.l2_ball import L2Ball
from jaxreg.constraints.min_max_norm import MinMaxNorm
from jaxreg.constraints.nm import NM
from jaxreg.constraints.non_negative import NonNegative
from jaxreg.constraints.orthogonal import Orthogonal
from jaxreg.constraints.rank_at_most import RankAtMost
from jaxreg.constraints.simplex import Simplex
from jaxreg.constraints.spectral_ball import SpectralBall
from jaxreg.constraints.top_k import TopK
from jaxreg.constraints.unit_norm import UnitNorm

__all__ = [
    "NM",
    "Box",
    "L1Ball",
    "L2Ball",
    "MinMaxNorm",
    "NonNegative",
    "Orthogonal",
    "RankAtMost",
    "Simplex",
    "SpectralBall",
    "TopK",
    "UnitNorm",
]
