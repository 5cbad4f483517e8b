"""Penalties made from penalties."""

from jaxreg.calculus.anchored import anchored
from jaxreg.calculus.envelope import conjugate_prox, envelope
from jaxreg.calculus.grouped import GroupPenalty, grouped
from jaxreg.calculus.nonnegative import nonnegative
from jaxreg.calculus.overlap import Overlap
from jaxreg.calculus.scaled import scaled
from jaxreg.calculus.spectral import SpectralPenalty, spectral
from jaxreg.calculus.weighted import weighted

__all__ = [
    "GroupPenalty",
    "Overlap",
    "SpectralPenalty",
    "anchored",
    "conjugate_prox",
    "envelope",
    "grouped",
    "nonnegative",
    "scaled",
    "spectral",
    "weighted",
]
