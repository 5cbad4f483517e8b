"""Which neighbours of a transformation change the solution without its knowledge?

Question: Which wrappers and neighbours leave the solution of loss + L1 alone, and how
wrong is the answer with the others? The setups without another name in front are those
of `regularize(adam)`. The problem has the known answer (0.5, 0.015, 0): half the sum of
a (x - b)^2, a = (1, 100, 1), b = (1, 0.02, 0.3), L1 of strength 0.5; for `project` the
box up to 0.5, with the answer (0.5, 0.02, 0.3). Beside each answer stand the two that
tell wrong chains from right ones: `pulled` of `jaxreg.measure`, a mean over the run
where the state has a latent, and the problem that `jaxreg.check` names.

Claim: A transformation sees gradients, parameters and its own state, nothing else.

Expected: no error for what may stand there; for the rest an error or a lost zero worth
knowing. Noise of standard deviation 1 on the gradients shows what decay inside does in
training. `pulled` sees what stands behind `regularize`, `check` also what stands before
it; neither sees noise, the start, or how the parameters are used.

Cost: about 2 minutes on 2 cores.

Command: python -m experiments blind_spots
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax

import jaxreg
from experiments.correctness._quadratic import (
    SOLUTION,
    STRENGTH,
    as_text,
    is_exact,
    plot_errors,
    row_of,
    solve,
)
from experiments.harness.contract import Row
from experiments.kit.transformations import TRANSFORMATIONS, Settings

DEFAULT = True

_EMA = "an average of the params is used"
_NOISY = ", noisy gradients"
_FLAT = ", begun where a gradient is 0"
_PROJECTED = ", then project"
_CUT = 1000.0
_NOTABLE = 0.01


@dataclasses.dataclass(frozen=True)
class Config:
    """Adam with a cosine from `peak` to 0, started at (2, 2, 2), float64.

    One in `every` setups is run.
    """

    steps: int = 8000
    peak: float = 0.01
    every: int = 1


QUICK = Config(every=12)

Maker = Callable[[optax.Schedule], optax.GradientTransformation]


_L1 = jaxreg.L1(STRENGTH)
_BOX = jaxreg.Box(-1.0, 0.5)
_BOXED = (0.5, 0.02, 0.3)


def _ours(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    return jaxreg.regularize(inner, _L1)


def _way(name: str, own_rate: float | None = None) -> Maker:
    """The maker of a row of the table of transformations, with L1."""
    return lambda rate: TRANSFORMATIONS[name].optimizer(
        _L1, Settings(rate=rate if own_rate is None else own_rate)
    )


def _pair(lookahead: optax.GradientTransformation) -> optax.GradientTransformation:
    """Lookahead with its slow copy in the state, so that the fast one is the params."""

    def init(params: Any) -> Any:
        pair = optax.LookaheadParams.init_synced(params)
        return lookahead.init(pair), params

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        pair = optax.LookaheadParams(fast=params, slow=state[1])
        moves, inner = lookahead.update(updates, state[0], pair)
        return moves.fast, (inner, optax.apply_updates(state[1], moves.slow))

    return optax.GradientTransformation(init, update)


def _mechanized(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    return optax.contrib.mechanize(inner, weight_decay=0.0)


def _every_fourth(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    return optax.conditionally_mask(inner, lambda step, **_: step % 4 == 0)


_SETUPS: dict[str, Maker] = {
    "regularize(adam) alone": _way("regularize"),
    "clipping inside it": lambda rate: _ours(
        optax.chain(optax.clip_by_global_norm(0.1), optax.adam(rate))
    ),
    "MultiSteps inside it": lambda rate: _ours(
        optax.MultiSteps(optax.adam(rate), 4).gradient_transformation()
    ),
    "MultiSteps around it": lambda rate: optax.MultiSteps(
        _ours(optax.adam(rate)), 4
    ).gradient_transformation(),
    "apply_if_finite around it": lambda rate: optax.apply_if_finite(
        _ours(optax.adam(rate)), 3
    ),
    "lookahead around it": lambda rate: _pair(
        optax.lookahead(_ours(optax.adam(rate)), 5, 0.5)
    ),
    "schedule_free inside it": lambda rate: _ours(
        optax.contrib.schedule_free(optax.adam(rate, b1=0.0), rate)
    ),
    "weight decay 0.1 inside it": lambda rate: _ours(
        optax.adamw(rate, weight_decay=0.1)
    ),
    "fromage(0.01) inside it": lambda rate: _ours(optax.fromage(0.01)),
    "gradients of a halved loss": lambda rate: optax.chain(
        optax.scale(0.5), _ours(optax.adam(rate))
    ),
    "its updates halved": lambda rate: optax.chain(
        _ours(optax.adam(rate)), optax.scale(0.5)
    ),
    "its updates clipped to 1e-4": lambda rate: optax.chain(
        _ours(optax.adam(rate)), optax.clip(1e-4)
    ),
    "weight decay after it": lambda rate: optax.chain(
        _ours(optax.adam(rate)), optax.add_decayed_weights(-1e-3)
    ),
    _EMA: _way("regularize"),
    "prox_adam, gradients of a halved loss": lambda rate: optax.chain(
        optax.scale(0.5), jaxreg.prox_adam(rate, _L1)
    ),
    "prox_adam, its updates halved": lambda rate: optax.chain(
        jaxreg.prox_adam(rate, _L1), optax.scale(0.5)
    ),
    "prox_adam, clipping to norm 0.1 in its direction": lambda rate: jaxreg.proximal(
        optax.chain(optax.clip_by_global_norm(0.1), optax.scale_by_adam()),
        rate,
        _L1,
        preconditioner=jaxreg.preconditioners.adam(),
    ),
    "bfloat16 average inside it": lambda rate: _ours(
        optax.adam(rate, mu_dtype="bfloat16")
    ),
    "prox_adam, bfloat16 average": lambda rate: jaxreg.prox_adam(
        rate, _L1, mu_dtype="bfloat16"
    ),
    f"prox_adam, b1 0.99, bfloat16 average{_NOISY}": lambda rate: jaxreg.prox_adam(
        rate, _L1, b1=0.99, mu_dtype="bfloat16"
    ),
    "prox_sgd, momentum 0.9, bfloat16 trace": lambda rate: jaxreg.prox_sgd(
        rate, _L1, momentum=0.9, accumulator_dtype="bfloat16"
    ),
    f"prox_adam{_FLAT}": _way("prox_adam"),
    "proximal(adam(1e-2), 1.0): an alias as direction": lambda rate: jaxreg.proximal(
        optax.adam(1e-2), 1.0, _L1, preconditioner=jaxreg.preconditioners.adam()
    ),
    "dual_average alone": _way("dual_average", 0.01),
    f"regularize(adam) alone{_NOISY}": _way("regularize"),
    f"weight decay 0.1 inside it{_NOISY}": lambda rate: _ours(
        optax.adamw(rate, weight_decay=0.1)
    ),
    f"prox_adam alone{_NOISY}": _way("prox_adam"),
    f"prox_adamw, weight decay 0.1{_NOISY}": lambda rate: jaxreg.prox_adamw(
        rate, _L1, weight_decay=0.1
    ),
}

# Whole optimizers, by the prefix of the names of their setups.
_WAYS: dict[str, Maker] = {
    "": _way("regularize"),
    "prox_adam, ": _way("prox_adam"),
    "prox_sgd, ": _way("prox_sgd"),
    "orthant, ": lambda rate: optax.chain(
        jaxreg.add_penalty_gradient(_L1), _way("orthant")(rate)
    ),
    # Their rates fall by themselves, or have to be constant.
    "dual_average, ": _way("dual_average", 0.01),
    "ftrl, ": _way("ftrl", 0.1),
}
_AROUND: dict[str, Callable[[Any, optax.Schedule], Any]] = {
    "gradients clipped to norm 0.1 before it": lambda tx, rate: optax.chain(
        optax.clip_by_global_norm(0.1), tx
    ),
    "apply_every(2) behind it": lambda tx, rate: optax.chain(tx, optax.apply_every(2)),
    "schedule_free around it": lambda tx, rate: optax.contrib.schedule_free(tx, rate),
    "mechanize around it": lambda tx, rate: _mechanized(tx),
}
# Wrappers of the SGD that stands before a prox.
_INSIDE: dict[str, Callable[[Any, optax.Schedule], Any]] = {
    "MultiSteps(sgd, 4)": lambda sgd, rate: optax.MultiSteps(
        sgd, 4
    ).gradient_transformation(),
    "conditionally_mask(sgd)": lambda sgd, rate: _every_fourth(sgd),
    "apply_every(2) of sgd": lambda sgd, rate: optax.chain(sgd, optax.apply_every(2)),
    "schedule_free(sgd)": lambda sgd, rate: optax.contrib.schedule_free(sgd, rate),
    "mechanize(sgd)": lambda sgd, rate: _mechanized(sgd),
}


def _wrapped(way: str, neighbour: str) -> Maker:
    return lambda rate: _AROUND[neighbour](_WAYS[way](rate), rate)


def _shrunk(inside: str) -> Maker:
    return lambda rate: optax.chain(
        _INSIDE[inside](optax.sgd(rate), rate), jaxreg.shrink(_L1, rate)
    )


_SETUPS |= {
    way + neighbour: _wrapped(way, neighbour) for neighbour in _AROUND for way in _WAYS
}
_SETUPS |= {f"{inside}, then shrink": _shrunk(inside) for inside in _INSIDE}
_SETUPS |= {
    "add_penalty_gradient, adam, gradients clipped to norm 0.1 before it": (
        lambda rate: optax.chain(
            optax.clip_by_global_norm(0.1),
            jaxreg.add_penalty_gradient(_L1),
            optax.adam(rate),
        )
    ),
    "lookahead(sgd), then shrink": lambda rate: _pair(
        optax.chain(optax.lookahead(optax.sgd(rate), 5, 0.5), jaxreg.shrink(_L1, rate))
    ),
    "mechanize(adam), then orthant": lambda rate: optax.chain(
        jaxreg.add_penalty_gradient(_L1),
        _mechanized(optax.adam(rate)),
        jaxreg.orthant(_L1),
    ),
    f"mechanize(sgd){_PROJECTED}": lambda rate: optax.chain(
        _mechanized(optax.sgd(rate)), jaxreg.project(_BOX)
    ),
    f"sgd{_PROJECTED}, mechanize around it": lambda rate: _mechanized(
        optax.chain(optax.sgd(rate), jaxreg.project(_BOX))
    ),
}


def cells(config: Config) -> list[Row]:
    """One cell per setup."""
    return [{"setup": setup} for setup in list(_SETUPS)[:: config.every]]


def measure(config: Config, setup: str) -> Row:
    """The row of `answer_of`, and the problem that `jaxreg.check` names."""
    tx, steps = _built(config, setup)
    verdict = jaxreg.check(tx, _penalty_of(setup), steps=steps)
    return {**answer_of(config, setup), "check": verdict.problem}


def _built(config: Config, setup: str) -> tuple[optax.GradientTransformation, int]:
    """The transformation and its number of steps."""
    tx = _SETUPS[setup](optax.cosine_decay_schedule(config.peak, config.steps))
    # These update once in four steps.
    quarters = setup.startswith(("MultiSteps", "conditionally_mask"))
    return tx, config.steps * (4 if quarters else 1)


def _penalty_of(setup: str) -> jaxreg.Penalty:
    return _BOX if _PROJECTED in setup else _L1


def answer_of(config: Config, setup: str) -> Row:
    """The answer, its distance from the solution, its exact zeros, and `pulled`.

    Diverging answers are cut at 1000.
    """
    tx, steps = _built(config, setup)
    penalty, start = _penalty_of(setup), 1.0 if setup.endswith(_FLAT) else 2.0
    has_latent = bool(optax.tree.get_all_with_path(tx.init(jnp.ones(3)), "latent"))

    def pulled(params: Any, average: Any, state: Any) -> jax.Array | float:
        if not has_latent:
            return math.nan
        used = average if setup == _EMA else params
        return jaxreg.measure(penalty, used, opt_state=state)["pulled"]

    noise = float(setup.endswith(_NOISY))
    result = solve(tx, steps, noise=noise, start=start, watch=pulled)
    answer = result.average if setup == _EMA else result.last
    answer = np.clip(np.nan_to_num(answer, nan=_CUT), -_CUT, _CUT)
    return {
        **row_of(answer, _BOXED if _PROJECTED in setup else SOLUTION),
        "pulled": float(f"{result.watched:.2g}") if has_latent else None,
    }


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """The answers as text, beside what tells right from wrong ones."""
    return as_text(rows)


def verdict(config: Config, rows: list[Row]) -> str:
    """The number of setups that reach the solution, and the worst."""
    exact = sum(map(is_exact, rows))
    worst = max(rows, key=lambda row: row["error"])
    missed = [row["setup"] for row in rows if is_missed(row)]
    return (
        f"measured: {exact} of {len(rows)} setups reach the solution with its "
        f"exact zero; the worst, {worst['setup']!r}, is off by {worst['error']:g}. "
        f"check finds all but {len(missed)} of those that are off by more than "
        f"{_NOTABLE:g} or lose a zero{': ' if missed else ''}{'; '.join(missed)}."
    )


def is_wrong(row: Row) -> bool:
    """True if an answer is off by more than a hundredth, or loses an exact zero."""
    zeros = 0 if _PROJECTED in row["setup"] else 1
    return bool(row["error"] > _NOTABLE or row["zeros"] < zeros)


def is_missed(row: Row) -> bool:
    """True if an answer is wrong and `check` says that the chain is right."""
    return is_wrong(row) and row["check"] == "loss + penalty"


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Bars of the error, on a logarithmic axis from rounding to divergence."""
    figure = plot_errors([row["setup"] for row in rows], rows)
    figure.set_size_inches(9, 0.7 + 0.2 * len(rows))
    figure.axes[0].set_xscale("log")
    figure.axes[0].margins(x=0.12, y=0.01)
    return figure
