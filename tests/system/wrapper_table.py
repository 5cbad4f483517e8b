"""Optax's wrappers around our transformations and inside them, with each outcome."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import optax

import jaxreg
from experiments.kit.transformations import TRANSFORMATIONS, Settings
from tests.support.fixed_points import SOLUTION, STRENGTH, TARGET, WIDTH

RATE = 0.01
IS_FREE = {"free": True, "rows": False, "vector": False}
LABELS = {"free": "free", "rows": "ours", "vector": "ours"}
IS_OURS = {name: not is_free for name, is_free in IS_FREE.items()}


@dataclasses.dataclass(frozen=True)
class Refused:
    """It raises, with this message."""

    message: str


@dataclasses.dataclass(frozen=True)
class Row:
    """It solves another problem or loses the zeros: a setup of blind_spots."""

    setup: str


# Of a maker and its argument, a wrapper around what it makes.
Maker = Callable[[Any], optax.GradientTransformation]
WRAPPERS: dict[str, Callable[[Maker, Any], Any]] = {
    "nothing": lambda make, x: make(x),
    "MultiSteps": lambda make, x: optax.MultiSteps(
        make(x), 3
    ).gradient_transformation(),
    "apply_every": lambda make, x: optax.chain(make(x), optax.apply_every(2)),
    "apply_if_finite": lambda make, x: optax.apply_if_finite(make(x), 3),
    "clip_by_global_norm": lambda make, x: optax.chain(
        optax.clip_by_global_norm(0.1), make(x)
    ),
    "conditionally_mask": lambda make, x: optax.conditionally_mask(
        make(x), lambda step, **_: step % 3 == 0
    ),
    "flatten": lambda make, x: optax.flatten(make(x)),
    "freeze": lambda make, x: optax.chain(make(x), optax.freeze(IS_FREE)),
    "inject_hyperparams": lambda make, x: optax.inject_hyperparams(lambda x: make(x))(
        x=x
    ),
    "lookahead": lambda make, x: optax.lookahead(make(x), 3, 0.5),
    "masked": lambda make, x: optax.masked(make(x), IS_OURS),
    "mechanize": lambda make, x: optax.contrib.mechanize(make(x), weight_decay=0.0),
    "partition": lambda make, x: optax.partition(
        {"ours": make(x), "free": optax.sgd(RATE)}, LABELS
    ),
    "schedule_free": lambda make, x: optax.contrib.schedule_free(make(x), RATE),
    "selective_transform": lambda make, x: optax.selective_transform(
        make(x), freeze_mask=IS_FREE
    ),
    "split_real_and_imaginary": lambda make, x: optax.contrib.split_real_and_imaginary(
        make(x)
    ),
}
# Wrappers that need no row of their own.
OTHER_WRAPPERS = {
    "chain": "in the table as clip_by_global_norm, freeze and apply_every",
    "conditionally_transform": "passes gradients on as updates: ascent",
    "galore": "an optimizer by default: test_every_optimizer.py",
    "inject_stateful_hyperparams": "the other name of inject_hyperparams",
    "multi_transform": "the other name of partition",
    "named_chain": "chain with names",
    "sam": "minimises another function than the loss",
    "with_extra_args_support": "changes no update",
}


def penalty(strength: Any) -> Any:
    rows = jaxreg.GroupLasso(strength, group_axis=0)
    return jaxreg.by_path([("vector$", jaxreg.L1(strength)), ("rows$", rows)])


def _rows(strength: Any) -> Any:
    return jaxreg.by_path([("rows$", jaxreg.GroupLasso(strength, group_axis=0))])


def _constraint(bound: Any) -> Any:
    ball = jaxreg.L2Ball(7 / 4 * bound, group_axis=0)
    return jaxreg.by_path([("vector$", jaxreg.Box(-0.5, bound)), ("rows$", ball)])


def _ridge(strength: Any) -> Any:
    return jaxreg.by_path([("rows|vector", jaxreg.L2(2 * strength))])


@dataclasses.dataclass(frozen=True)
class Setup:
    """A transformation of the table, its penalty, and the maker that is wrapped."""

    row: str
    maker: Callable[[Any], Any]
    penalty: Callable[[Any], Any] = penalty
    preconditioner: Any = None
    # A step on the support follows the gradient of loss + penalty.
    is_pulled: bool = False

    def build(self, strength: Any, wrapped: Callable[[Any], Any]) -> Any:
        settings = Settings(
            rate=RATE,
            inner=lambda rate: wrapped(self.maker),
            preconditioner=self.preconditioner,
            width=WIDTH,
        )
        rules = self.penalty(strength)
        tx = TRANSFORMATIONS[self.row].optimizer(rules, settings)
        pull = jaxreg.add_penalty_gradient(rules)
        return optax.chain(pull, tx) if self.is_pulled else tx


_ADAM, _IDENTITY = jaxreg.preconditioners.adam(), jaxreg.preconditioners.identity()
SETUPS: dict[str, Setup] = {
    "regularize": Setup("regularize", optax.adam),
    "prox_adam": Setup(
        "proximal", lambda rate: optax.scale_by_adam(), preconditioner=_ADAM
    ),
    "prox_sgd": Setup(
        "proximal", lambda rate: optax.identity(), preconditioner=_IDENTITY
    ),
    "shrink": Setup("shrink", optax.sgd),
    "dual_average": Setup("dual_average", optax.sgd),
    "ftrl": Setup("ftrl", optax.sgd),
    "add_penalty_gradient": Setup("add_penalty_gradient", optax.adam, _ridge),
    # Adam would take steps of what the gradients of groups round.
    "orthant": Setup("orthant", optax.sgd, is_pulled=True),
    "half_space": Setup("half_space", optax.sgd, _rows, is_pulled=True),
    "project": Setup("project", optax.sgd, _constraint),
    "hold_support": Setup("hold_support", optax.adam),
}
# The state of the wrapper, for a direction whose metric does not look inside it.
_UNKNOWN = {
    "MultiSteps": "MultiStepsState",
    "apply_every": "ApplyEvery",
    "apply_if_finite": "ApplyIfFiniteState",
    "conditionally_mask": "ConditionallyMaskState",
    "mechanize": "MechanicState",
    "schedule_free": "ScheduleFreeState",
}
_REFUSED_INSIDE = {
    wrapper: Refused(f"is not the preconditioner of a direction with the state {state}")
    for wrapper, state in _UNKNOWN.items()
}
_PAIR = Refused(
    r"updates and params differ in structure: updates has nothing at 'fast/"
)
_CLIPPED = "gradients clipped to norm 0.1 before it"
_NEIGHBOURS = {
    "apply_every": "apply_every(2) behind it",
    "clip_by_global_norm": _CLIPPED,
    "mechanize": "mechanize around it",
    "schedule_free": "schedule_free around it",
}
# The rows that hold for a transformation: those of the same iteration, or of single
# entries for groups.
_ROWS_OF = {
    "regularize": "",
    "prox_adam": "prox_adam, ",
    "prox_sgd": "prox_sgd, ",
    "shrink": "prox_sgd, ",
    "orthant": "orthant, ",
    "half_space": "orthant, ",
    "dual_average": "dual_average, ",
    "ftrl": "ftrl, ",
}

AROUND: dict[str, dict[str, Refused | Row]] = {
    name: {"flatten": Refused("matches no leaf. Leaves: ''")} for name in SETUPS
}
for _name, _way in _ROWS_OF.items():
    AROUND[_name] |= {w: Row(_way + setup) for w, setup in _NEIGHBOURS.items()}
AROUND["add_penalty_gradient"] |= {
    "clip_by_global_norm": Row(f"add_penalty_gradient, adam, {_CLIPPED}")
}
AROUND["project"] |= {"mechanize": Row("sgd, then project, mechanize around it")}

INSIDE: dict[str, dict[str, Refused | Row]] = {
    "regularize": {"lookahead": Refused("lookahead inside keeps two copies")},
    "prox_adam": {
        **_REFUSED_INSIDE,
        "lookahead": _PAIR,
        "clip_by_global_norm": Row("prox_adam, clipping to norm 0.1 in its direction"),
        "flatten": Refused("direction's state and params differ in structure"),
        "split_real_and_imaginary": Refused("state SplitRealAndImaginaryState"),
    },
    "prox_sgd": {
        **_REFUSED_INSIDE,
        "lookahead": _PAIR,
        "clip_by_global_norm": Row(f"prox_sgd, {_CLIPPED}"),
    },
    "shrink": {
        "MultiSteps": Row("MultiSteps(sgd, 4), then shrink"),
        "apply_every": Row("apply_every(2) of sgd, then shrink"),
        "clip_by_global_norm": Row(f"prox_sgd, {_CLIPPED}"),
        "conditionally_mask": Row("conditionally_mask(sgd), then shrink"),
        "lookahead": Row("lookahead(sgd), then shrink"),
        "mechanize": Row("mechanize(sgd), then shrink"),
        "schedule_free": Row("schedule_free(sgd), then shrink"),
    },
    "add_penalty_gradient": {"lookahead": _PAIR},
    "orthant": {"lookahead": _PAIR, "mechanize": Row("mechanize(adam), then orthant")},
    "half_space": {
        "lookahead": _PAIR,
        "mechanize": Row("mechanize(adam), then orthant"),
    },
    "project": {"mechanize": Row("mechanize(sgd), then project")},
    "hold_support": {},
}


def solution_of(transform: str) -> Any:
    """The point where a transformation stays."""
    halved = {name: leaf / 2 for name, leaf in TARGET.items()}
    if transform == "add_penalty_gradient":
        return {**halved, "free": TARGET["free"]}
    if transform == "half_space":
        return {**SOLUTION, "vector": TARGET["vector"]}
    if transform == "hold_support":
        pairs = {name: (TARGET[name], SOLUTION[name]) for name in TARGET}
        return {name: np.where(x == 0, 0, goal) for name, (goal, x) in pairs.items()}
    if transform == "project":
        # The rows of norm 7/8 are twice as long as the ball's radius.
        is_long = np.array([[True], [False], [True], [False]])
        rows = np.where(is_long, halved["rows"], TARGET["rows"])
        box = np.clip(TARGET["vector"], -0.5, STRENGTH)
        return {**TARGET, "rows": rows, "vector": box}
    return SOLUTION
