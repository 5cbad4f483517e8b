"""Classes of states and results, for type annotations."""

from jaxreg.compaction.compact import Compaction
from jaxreg.compaction.couplings import Couplings
from jaxreg.model_selection._path import Path
from jaxreg.reports.check import Verdict
from jaxreg.reports.table import Table
from jaxreg.solve._linear import Linear
from jaxreg.solve._minimise import Fit
from jaxreg.transforms.add_penalty_gradient import AddPenaltyGradientState
from jaxreg.transforms.dual_average import DualAverageState
from jaxreg.transforms.ftrl import FtrlState
from jaxreg.transforms.latent import RegularizeState
from jaxreg.transforms.proximal import ProximalState
from jaxreg.transforms.reweight import ReweightState
from jaxreg.transforms.shrink import ShrinkState
from jaxreg.transforms.target_sparsity import TargetSparsityState

__all__ = [
    "AddPenaltyGradientState",
    "Compaction",
    "Couplings",
    "DualAverageState",
    "Fit",
    "FtrlState",
    "Linear",
    "Path",
    "ProximalState",
    "RegularizeState",
    "ReweightState",
    "ShrinkState",
    "Table",
    "TargetSparsityState",
    "Verdict",
]
