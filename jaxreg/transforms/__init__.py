"""One Optax transformation per file."""

from jaxreg.transforms.add_penalty_gradient import (
    AddPenaltyGradientState,
    add_penalty_gradient,
)
from jaxreg.transforms.dual_average import DualAverageState, dual_average
from jaxreg.transforms.ftrl import FtrlState, ftrl
from jaxreg.transforms.half_space import half_space
from jaxreg.transforms.hold_support import hold_support, orthant
from jaxreg.transforms.latent import RegularizeState, latent
from jaxreg.transforms.metrics import (
    adagrad_metric,
    adam_metric,
    adamax_metric,
    adan_metric,
    amsgrad_metric,
    check_metric,
    identity_metric,
    lamb_metric,
    momentum_metric,
    rmsprop_metric,
    yogi_metric,
)
from jaxreg.transforms.project import project
from jaxreg.transforms.prox_optimizers import (
    prox_adagrad,
    prox_adam,
    prox_adamw,
    prox_rmsprop,
    prox_sgd,
)
from jaxreg.transforms.proximal import ProximalState, proximal
from jaxreg.transforms.regularize import regularize
from jaxreg.transforms.reweight import ReweightState, reweight
from jaxreg.transforms.shrink import ShrinkState, shrink
from jaxreg.transforms.target_sparsity import TargetSparsityState, target_sparsity

__all__ = [
    "AddPenaltyGradientState",
    "DualAverageState",
    "FtrlState",
    "ProximalState",
    "RegularizeState",
    "ReweightState",
    "ShrinkState",
    "TargetSparsityState",
    "adagrad_metric",
    "adam_metric",
    "adamax_metric",
    "adan_metric",
    "add_penalty_gradient",
    "amsgrad_metric",
    "check_metric",
    "dual_average",
    "ftrl",
    "half_space",
    "hold_support",
    "identity_metric",
    "lamb_metric",
    "latent",
    "momentum_metric",
    "orthant",
    "project",
    "prox_adagrad",
    "prox_adam",
    "prox_adamw",
    "prox_rmsprop",
    "prox_sgd",
    "proximal",
    "regularize",
    "reweight",
    "rmsprop_metric",
    "shrink",
    "target_sparsity",
    "yogi_metric",
]
