"""Every transformation and report of the catalogue, and how each is called."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

import jaxreg

PARAMS = {"body": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}}

TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "regularize": lambda p: jaxreg.regularize(optax.adam(0.01), p),
    "target_sparsity": lambda p: jaxreg.target_sparsity(optax.adam(0.01), p, 0.5, 9),
    "proximal": lambda p: jaxreg.proximal(
        optax.trace(0.9), 0.01, p, preconditioner=jaxreg.preconditioners.momentum(0.9)
    ),
    "prox_sgd": lambda p: jaxreg.prox_sgd(0.01, p),
    "prox_adam": lambda p: jaxreg.prox_adam(0.01, p),
    "prox_adamw": lambda p: jaxreg.prox_adamw(0.01, p),
    "prox_rmsprop": lambda p: jaxreg.prox_rmsprop(0.01, p),
    "prox_adagrad": lambda p: jaxreg.prox_adagrad(0.01, p),
    "reweight": lambda p: jaxreg.reweight(
        lambda q: jaxreg.prox_sgd(0.01, q), p, 0.1, every=1
    ),
    "dual_average": lambda p: jaxreg.dual_average(0.01, p),
    "ftrl": lambda p: jaxreg.ftrl(0.01, p),
    "add_penalty_gradient": lambda p: jaxreg.add_penalty_gradient(p),
    "shrink": lambda p: jaxreg.shrink(p, 0.01),
    "project": lambda p: jaxreg.project(p),
    "hold_support": lambda p: jaxreg.hold_support(p),
    "orthant": lambda p: jaxreg.orthant(p),
    "half_space": lambda p: jaxreg.half_space(p),
}
REPORTS: dict[str, Callable[[Any, Any], Any]] = {
    "describe": jaxreg.describe,
    "summary": jaxreg.summary,
    "measure": jaxreg.measure,
    "max_strength": jaxreg.max_strength,
}

RULES: dict[str, Callable[[Any], Any]] = {
    "by_path": lambda p: jaxreg.by_path([("kernel$", p)]),
    "on_kernels": jaxreg.on_kernels,
}

EVERY = tuple(TRANSFORMS)
WITH_REPORTS = (*EVERY, *REPORTS)
EVERYWHERE = (*WITH_REPORTS, *RULES)
# Who speaks, where that is another transformation.
SPEAKERS = {name: "proximal" for name in TRANSFORMS if name.startswith("prox_")}
SPEAKERS |= {"target_sparsity": "regularize", "reweight": "proximal"}
PROXIMAL = ("proximal", "prox_adam", "prox_adamw", "prox_rmsprop", "prox_adagrad")
SUMS = ("dual_average", "ftrl")
NORMAL_MAPS = ("regularize", "target_sparsity")
TAILS = ("shrink", "project", "hold_support", "orthant", "half_space")


def penalty(way: str, strength: Any = 0.1, axis: int = 0) -> Any:
    """A penalty on rows that the way takes; `project` takes constraints alone."""
    kind = jaxreg.L2Ball if way == "project" else jaxreg.GroupLasso
    return kind(strength, group_axis=axis)


def on_kernels(way: str) -> Any:
    return jaxreg.on_kernels(penalty(way))


def build(way: str, one: Any) -> Any:
    """The transformation or the rules, or what a report gives for `PARAMS`."""
    if way in REPORTS:
        return REPORTS[way](one, PARAMS)
    return {**TRANSFORMS, **RULES}[way](one)


def use(way: str, one: Any, params: Any) -> Any:
    """The first update with gradients equal to the parameters, or the report."""
    return REPORTS[way](one, params) if way in REPORTS else first(way, one, params)


def first(way: str, one: Any, params: Any, grads: Any = None, state: Any = None) -> Any:
    """The updates of one step and the new state."""
    tx = TRANSFORMS[way](one)
    state = tx.init(params) if state is None else state
    return tx.update(params if grads is None else grads, state, params)
