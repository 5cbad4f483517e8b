"""Every transformation of jaxreg, a row each: how to build it, and what it solves.

Whoever runs "all ways" iterates over `TRANSFORMATIONS`: a new transformation is one row
here. A row builds the transformation alone, or with its optimizer as a whole:

    row = TRANSFORMATIONS["shrink"]
    row.alone(penalty, Settings(rate=0.01))       # jaxreg.shrink(penalty, 0.01)
    row.optimizer(penalty, Settings(rate=0.01))   # chain(adam(0.01), shrink(...))
    row.optimizer(penalty, Settings(rate=0.01, inner=optax.sgd))
"""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, cast

import jax
import optax

import jaxreg

# From a step count to a number.
Schedule = Callable[[Any], Any]
Rate = float | jax.Array | Schedule
# From a learning rate to an optimizer, or to a direction, which ignores the rate.
InnerMaker = Callable[[Rate], optax.GradientTransformation]


class Family(enum.Enum):
    """The mechanism of a transformation, which also says where it stands in a chain."""

    NORMAL_MAP = "a prox of a latent, around an optimizer"
    PROXIMAL = "a prox after a direction, in the metric of its preconditioner"
    RUNNING_SUMS = "a prox of running sums of gradients"
    REWEIGHTED = "a transformation whose strengths are set anew now and then"
    GRADIENT = "the penalty's gradient, before an optimizer"
    LAST = "a change of the new parameters, after an optimizer"


class Needs(enum.Enum):
    """The penalties that a transformation takes."""

    ANY = "any penalty"
    PROX = "a penalty with a prox"
    STEPS_PER_ENTRY = "a penalty whose prox takes steps that differ between entries"
    CONVEX = "a convex penalty with a prox"
    ZEROS = "a penalty that makes zeros"
    WEIGHTS = "a penalty that can be weighted"
    GROUPS = "a penalty on groups"
    CONSTRAINT = "a constraint"


class Problem(enum.Enum):
    """The problem whose solution is where a transformation stays."""

    PENALTY = "loss + penalty"
    DECOUPLED = "decoupled: the loss, on weights whose gradients are steady"
    BALANCE = "a balance of loss + penalty and decoupled decay"
    CONSTRAINED = "the loss, within the constraint"
    OTHER_METRIC = "no problem: the projection has another metric than Adam"
    SHARE_OF_ZEROS = "the loss, with the wanted share of zeros"
    REWEIGHTED = "loss + LogSum(strength * eps, eps), with L1"
    SUPPORT = "the loss, on the entries that are not zero"
    ORTHANT = "the loss, on the entries that are not zero, which keep their sign"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Arguments of a row in addition to the penalty; a row ignores those of others.

    `inner` is the optimizer around or beside which a transformation stands, or the
    direction of `proximal`; None takes the row's own. `preconditioner` belongs to that
    direction. None elsewhere takes the default of the library.
    """

    rate: Rate = 0.01
    inner: InnerMaker | None = None
    # The library exports the factories, not their class.
    preconditioner: Any = None
    schedule: Schedule | None = None
    width: float = 0.05
    momentum: float | None = None
    weight_decay: float = 1e-4
    beta: float = 1.0
    target: float = 0.5
    end_step: int = 10
    eps: float = 0.1
    every: int = 1


DEFAULTS = Settings()
Build = Callable[[jaxreg.Penalty, Settings], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class Transformation:
    """A transformation of jaxreg, named after its function.

    `solves` is the problem with the row's own `inner`; `solves_after_sgd` the one with
    plain SGD at the same rate, and `speaks_as` the function that its messages name,
    where these differ.
    """

    name: str
    family: Family
    needs: Needs
    state: type
    solves: Problem
    build: Build
    inner: InnerMaker | None = None
    solves_after_sgd: Problem | None = None
    speaks_as: str | None = None
    takes_schedule: bool = True

    @property
    def speaker(self) -> str:
        """The function that its error messages name."""
        return self.speaks_as or self.name

    def problem(self, *, after_sgd: bool = False) -> Problem:
        """The problem that `optimizer` solves, with plain SGD or the row's `inner`."""
        return (self.solves_after_sgd if after_sgd else None) or self.solves

    def alone(
        self, penalty: jaxreg.Penalty, settings: Settings = DEFAULTS
    ) -> optax.GradientTransformation:
        """The transformation itself, without an optimizer before or after it."""
        return self.build(penalty, self._completed(settings))

    def optimizer(
        self, penalty: jaxreg.Penalty, settings: Settings = DEFAULTS
    ) -> optax.GradientTransformation:
        """A whole optimizer: with an optimizer before or after it where one belongs."""
        settings = self._completed(settings)
        transformation = self.build(penalty, settings)
        if self.family is Family.GRADIENT:
            return optax.chain(transformation, _inner(settings))
        if self.family is Family.LAST:
            return optax.chain(_inner(settings), transformation)
        return transformation

    def title(self, penalty: str, inner: str = "adam") -> str:
        """Its name in a table: `regularize(adam), L1` or `adam, shrink L1`."""
        match self.family:
            case Family.NORMAL_MAP:
                return f"{self.name}({inner}), {penalty}"
            case Family.GRADIENT:
                return f"{self.name} {penalty}, {inner}"
            case Family.LAST:
                return f"{inner}, {self.name} {penalty}"
        return f"{self.name}, {penalty}"

    def example_penalty(
        self, strength: float | jax.Array = 0.1, group_axis: int = 0
    ) -> jaxreg.Penalty:
        """A penalty on rows that it takes; `project` takes constraints alone."""
        if self.needs is Needs.CONSTRAINT:
            return jaxreg.L2Ball(strength, group_axis=group_axis)
        return jaxreg.GroupLasso(strength, group_axis=group_axis)

    def _completed(self, settings: Settings) -> Settings:
        if settings.inner is not None:
            return settings
        return dataclasses.replace(settings, inner=self.inner)


def of_family(*families: Family) -> tuple[str, ...]:
    """The names of the rows of these families."""
    return tuple(n for n, row in TRANSFORMATIONS.items() if row.family in families)


def _inner(settings: Settings) -> optax.GradientTransformation:
    assert settings.inner is not None
    return settings.inner(settings.rate)


def _proximal(
    penalty: jaxreg.Penalty, settings: Settings
) -> optax.GradientTransformation:
    own = jaxreg.preconditioners.momentum(0.9)
    return jaxreg.proximal(
        _inner(settings),
        settings.rate,
        penalty,
        preconditioner=settings.preconditioner or own,
        schedule=settings.schedule,
    )


def _adaptive(function: Callable[..., optax.GradientTransformation]) -> Transformation:
    """The row of a prox optimizer that takes a rate, a penalty and a schedule."""
    return Transformation(
        function.__name__,
        Family.PROXIMAL,
        Needs.STEPS_PER_ENTRY,
        jaxreg.states.ProximalState,
        Problem.PENALTY,
        lambda penalty, s: function(s.rate, penalty, schedule=s.schedule),
        speaks_as="proximal",
    )


def _last(
    function: Callable[[jaxreg.Penalty], optax.GradientTransformation],
    needs: Needs,
    solves: Problem,
    solves_after_sgd: Problem | None = None,
) -> Transformation:
    """The row of a stateless transformation that takes only a penalty."""
    return Transformation(
        function.__name__,
        Family.LAST,
        needs,
        optax.EmptyState,
        solves,
        lambda penalty, s: function(penalty),
        inner=optax.adam,
        solves_after_sgd=solves_after_sgd,
        takes_schedule=False,
    )


_ROWS = (
    Transformation(
        "regularize",
        Family.NORMAL_MAP,
        Needs.PROX,
        jaxreg.states.RegularizeState,
        Problem.PENALTY,
        lambda penalty, s: jaxreg.regularize(_inner(s), penalty, s.width, s.schedule),
        inner=optax.adam,
    ),
    Transformation(
        "target_sparsity",
        Family.NORMAL_MAP,
        Needs.ZEROS,
        jaxreg.states.TargetSparsityState,
        Problem.SHARE_OF_ZEROS,
        lambda penalty, s: jaxreg.target_sparsity(
            _inner(s), penalty, s.target, s.end_step, width=s.width
        ),
        inner=optax.adam,
        speaks_as="regularize",
        takes_schedule=False,
    ),
    Transformation(
        "proximal",
        Family.PROXIMAL,
        Needs.STEPS_PER_ENTRY,
        jaxreg.states.ProximalState,
        Problem.PENALTY,
        _proximal,
        inner=lambda rate: optax.trace(0.9),
    ),
    Transformation(
        "prox_sgd",
        Family.PROXIMAL,
        Needs.PROX,
        jaxreg.states.ProximalState,
        Problem.PENALTY,
        lambda penalty, s: jaxreg.prox_sgd(
            s.rate, penalty, s.momentum, schedule=s.schedule
        ),
        speaks_as="proximal",
    ),
    _adaptive(jaxreg.prox_adam),
    dataclasses.replace(
        _adaptive(jaxreg.prox_adamw),
        solves=Problem.BALANCE,
        build=lambda penalty, s: jaxreg.prox_adamw(
            s.rate, penalty, weight_decay=s.weight_decay, schedule=s.schedule
        ),
    ),
    _adaptive(jaxreg.prox_rmsprop),
    _adaptive(jaxreg.prox_adagrad),
    Transformation(
        "reweight",
        Family.REWEIGHTED,
        Needs.WEIGHTS,
        jaxreg.states.ReweightState,
        Problem.REWEIGHTED,
        lambda penalty, s: jaxreg.reweight(
            lambda weighted: jaxreg.prox_sgd(s.rate, weighted), penalty, s.eps, s.every
        ),
        speaks_as="proximal",
        takes_schedule=False,
    ),
    Transformation(
        "dual_average",
        Family.RUNNING_SUMS,
        Needs.CONVEX,
        jaxreg.states.DualAverageState,
        Problem.PENALTY,
        lambda penalty, s: jaxreg.dual_average(
            s.rate, penalty, s.momentum or 0.0, schedule=s.schedule
        ),
    ),
    Transformation(
        "ftrl",
        Family.RUNNING_SUMS,
        Needs.STEPS_PER_ENTRY,
        jaxreg.states.FtrlState,
        Problem.PENALTY,
        # `ftrl` raises on a learning rate schedule.
        lambda penalty, s: jaxreg.ftrl(
            cast(float, s.rate), penalty, s.beta, schedule=s.schedule
        ),
    ),
    Transformation(
        "add_penalty_gradient",
        Family.GRADIENT,
        Needs.ANY,
        jaxreg.states.AddPenaltyGradientState,
        Problem.PENALTY,
        lambda penalty, s: jaxreg.add_penalty_gradient(penalty, schedule=s.schedule),
        inner=optax.adam,
    ),
    Transformation(
        "shrink",
        Family.LAST,
        Needs.PROX,
        jaxreg.states.ShrinkState,
        Problem.DECOUPLED,
        lambda penalty, s: jaxreg.shrink(penalty, s.rate, schedule=s.schedule),
        inner=optax.adam,
        solves_after_sgd=Problem.PENALTY,
    ),
    _last(jaxreg.project, Needs.CONSTRAINT, Problem.OTHER_METRIC, Problem.CONSTRAINED),
    _last(jaxreg.hold_support, Needs.ANY, Problem.SUPPORT),
    _last(jaxreg.orthant, Needs.ANY, Problem.ORTHANT),
    _last(jaxreg.half_space, Needs.GROUPS, Problem.SUPPORT),
)
TRANSFORMATIONS: dict[str, Transformation] = {row.name: row for row in _ROWS}
