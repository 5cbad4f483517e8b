"""jaxreg: penalties for JAX, composed into Optax optimizers."""

# Penalties
# Penalties from penalties
from jaxreg.calculus import grouped
from jaxreg.penalties import L1, L2, ElasticNet, GroupLasso
from jaxreg.penalty import Penalty

# Reading parameters
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
    "L1",
    "L2",
    "ElasticNet",
    "GroupLasso",
    "Penalty",
    "RegularizeState",
    "Table",
    "add_penalty_gradient",
    "by_path",
    "describe",
    "grouped",
    "latent",
    "on_kernels",
    "regularize",
    "summary",
]
__version__ = "0.1.0"
