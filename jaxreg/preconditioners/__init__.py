"""Preconditioners of optimizers, for `jaxreg.proximal`."""

from jaxreg.preconditioners.factories import (
    adagrad,
    adam,
    adamax,
    adan,
    amsgrad,
    check,
    identity,
    lamb,
    momentum,
    rmsprop,
    yogi,
)

__all__ = [
    "adagrad",
    "adam",
    "adamax",
    "adan",
    "amsgrad",
    "check",
    "identity",
    "lamb",
    "momentum",
    "rmsprop",
    "yogi",
]
