"""One Optax transformation per file."""

from jaxreg.transforms.add_penalty_gradient import add_penalty_gradient
from jaxreg.transforms.latent import RegularizeState, latent
from jaxreg.transforms.regularize import regularize

__all__ = ["RegularizeState", "add_penalty_gradient", "latent", "regularize"]
