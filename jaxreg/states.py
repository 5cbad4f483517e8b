"""State classes of the transformations, `Table` and `Verdict`, for type annotations."""

from jaxreg.reports.check import Verdict
from jaxreg.reports.table import Table
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
    "DualAverageState",
    "FtrlState",
    "ProximalState",
    "RegularizeState",
    "ReweightState",
    "ShrinkState",
    "Table",
    "TargetSparsityState",
    "Verdict",
]
