"""`minimise`: loss + penalty to a tolerance, with a word when it was not reached."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_numbers, check_order, check_prox
from jaxreg._core.groups import check_count
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Number, Penalty, Tree, is_real_floating, widened
from jaxreg._core.pytree import text_of
from jaxreg._core.ranges import check_positive, is_array
from jaxreg.rules.by_path import paths, read
from jaxreg.solve import _general
from jaxreg.solve._implicit import differentiable
from jaxreg.solve._linear import Linear, loss_of, on_coefficients, standardised
from jaxreg.solve._working_set import CAPACITY, FIRST_CAPACITY, solve_linear

OnFailure = Literal["warn", "raise", "ignore"]

_REASONS = {
    _general.MAX_STEPS: "after {steps} steps, the most allowed",
    _general.PRECISION: "where rounding stops it, after {steps} steps",
}

_ENDINGS = {
    _general.CONVERGED: "converged after {steps} steps",
    _general.NOT_FINITE: "not converged, a number was not finite",
} | {reason: f"not converged {ending}" for reason, ending in _REASONS.items()}

# The leaves of which a fit that is printed counts each.
_MOST_LEAVES = 4

_MENDS = {
    _general.MAX_STEPS: "raise max_steps",
    _general.PRECISION: "raise tolerance, or use float64 (jax_enable_x64)",
}


class ConvergenceWarning(UserWarning):
    """Warns that a fit outside of `jit` did not reach its tolerance.

    `warnings.simplefilter("error", ConvergenceWarning)` makes an error of it.

    >>> import warnings, jaxreg
    >>> warnings.simplefilter("error", jaxreg.solve.ConvergenceWarning)
    """


class ConvergenceError(ArithmeticError):
    """Says that a fit met numbers that are not finite, or with "raise" its failure.

    >>> import jax.numpy as jnp, jaxreg
    >>> start = jnp.full(2, jnp.nan)
    >>> try:
    ...     jaxreg.minimise(lambda w: jnp.sum(w**2), jaxreg.L1(1.0), start)
    ... except jaxreg.solve.ConvergenceError as error:
    ...     print(error)
    minimise: params holds numbers that are not finite
    """


class Fit(NamedTuple):
    """The result of `minimise`: arrays, so that it may leave `jit` and `vmap`.

    Attributes:
      params: the solution, with the structure and dtypes of the parameters.
      converged: `stationarity <= tolerance`.
      stationarity: the largest entry of `penalty.stationarity(params, grads)` over
        `scale`: the distance to a solution, relative to the strength.
      scale: the largest gradient of a penalised parameter at the solution, which for L1
        is its strength; at least a thousandth of that at zero, in float32 a hundredth.
      objective: loss + penalty at the solution.
      steps: the number of gradient and Newton steps.
      reason: why it ended. 0: converged; 1: `max_steps`; 2: rounding allows no more;
        3: a number was not finite.
    """

    params: Tree
    converged: jax.Array
    stationarity: jax.Array
    scale: jax.Array
    objective: jax.Array
    steps: jax.Array
    reason: jax.Array

    def __repr__(self) -> str:
        return text_of(self, _lines, self.reason, rank=0)


def minimise(
    loss: Callable[..., jax.Array] | Linear,
    penalty: Penalty,
    params: Tree | None = None,
    *,
    data: tuple[Any, ...] = (),
    tolerance: Number = 1e-4,
    max_steps: int = 10_000,
    on_failure: OnFailure = "warn",
) -> Fit:
    """Minimises `loss(params, *data) + penalty(params)`, to a tolerance.

    For losses that are computed on all the data: linear and generalised linear models,
    matrix factorisations, small networks. Accelerated proximal gradient steps and,
    where they pay, semismooth Newton steps; no learning rate. A convex problem is
    solved; any other ends at a stationary point. For minibatches there is
    `jaxreg.regularize`.

    "Converged" means that no entry is further from stationarity than `tolerance` times
    the strength: for L1 the largest of `||grad_i| - strength|` where `w_i != 0` and of
    `max(|grad_i| - strength, 0)` elsewhere. Half precision parameters are solved for in
    float32. It runs inside `jit` and `vmap`, where nothing can be said but by
    `Fit.converged`; outside, the same function with new data, strengths or tolerances
    is compiled once.

    The solution has derivatives, by `data`, by the numbers of the penalty and by what
    the loss closes over, through the optimality condition and not through the steps.
    They are right where the set of zeros does not change; ask for a tolerance of 1e-6
    or less. Where the solution is not unique, they are those of least norm. Second
    derivatives raise.

    Args:
      loss: a smooth function of the parameters and the data, a scalar; means over
        samples keep strengths comparable. Or `jaxreg.solve.linear(x, y)`, a linear
        model, whose penalty acts on the coefficients; `params` may then be left out.
      penalty: any penalty or constraint with a prox, or `by_path` rules of them.
      params: where to start, a tree of real arrays; `fit.params` of another strength is
        a warm start.
      data: further arguments of the loss, trees of arrays. Arrays that the loss closes
        over instead become constants, and are compiled again with every new function.
      tolerance: > 0, relative to the strength. 1e-4 suits float32; on hard problems it
        may end before, with reason 2.
      max_steps: the number of steps at most.
      on_failure: outside `jit`, if it did not converge: "warn" (`ConvergenceWarning`),
        "raise" (`ConvergenceError`) or "ignore". Numbers that are not finite raise
        unless told to ignore them.

    Raises:
      TypeError, ValueError: a rule that catches no leaf, a leaf that the penalty cannot
        take or that is not real, a loss that is no scalar, an argument out of range.
      ConvergenceError: see `on_failure`.

    References: Beck and Teboulle 2009, A fast iterative shrinkage-thresholding
    algorithm; Robinson 1992, Normal maps induced by linear transformations; Bertrand et
    al. 2022, Implicit differentiation for fast hyperparameter selection.

    >>> import jax.numpy as jnp, jaxreg
    >>> def loss(w, x, y):
    ...     return jnp.mean((x @ w - y) ** 2) / 2
    >>> x = jnp.array([[1.0, 0.2], [0.5, -1.0], [-1.0, 0.3]])
    >>> y = jnp.array([2.0, 1.0, -2.0])
    >>> fit = jaxreg.minimise(loss, jaxreg.L1(0.3), jnp.zeros(2), data=(x, y))
    >>> print([f"{weight:.3f}" for weight in fit.params], bool(fit.converged))
    ['1.600', '0.000'] True
    """
    check_order(penalty, loss=loss)
    _check(loss, data, tolerance, max_steps, on_failure)
    _check_data(loss, data)
    check_numbers(penalty)
    check_prox("minimise", penalty)
    if isinstance(loss, Linear):
        within = standardised(loss)
        start = within.problem.zeros() if params is None else within.into(params)
        penalty, data = on_coefficients(penalty), (within.problem,)
        read(penalty, start)
        fit = _fit_linear(penalty, start, data, tolerance, max_steps)
        _report(fit, start, data, tolerance, on_failure)
        return fit._replace(params=within.back(fit.params))
    if params is None:
        raise TypeError(
            "minimise: params is None; allowed: a tree of arrays to start from, as "
            "minimise(loss, penalty, params). Only jaxreg.solve.linear has its own"
        )
    fit = _minimised(loss, penalty, params, data, tolerance, max_steps)
    _report(fit, params, data, tolerance, on_failure)
    return fit


def _minimised(
    loss: Callable[..., jax.Array],
    penalty: Penalty,
    params: Tree,
    data: tuple[Any, ...],
    tolerance: Number,
    max_steps: int,
) -> Fit:
    read(penalty, params)
    params = jax.tree.map(jnp.asarray, params)
    _check_params(params)
    start = jax.tree.map(widened, params)
    loss, data = _without_closure(loss, start, data)
    fit = _fit(loss, penalty, start, data, tolerance, max_steps)
    solved = jax.tree.map(lambda x, like: x.astype(like.dtype), fit.params, params)
    return fit._replace(params=solved)


def _fit_linear(
    penalty: Penalty,
    start: Tree,
    data: tuple[Linear],
    tolerance: Number,
    max_steps: Number,
) -> Fit:
    """The fit of a linear problem, outside of traces from a small working set on."""
    arguments = (penalty, start, data, tolerance, max_steps)
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(arguments)):
        return _fit(loss_of, *arguments)
    fit = _fit(loss_of, *arguments, capacity=FIRST_CAPACITY)
    if fit.reason != _general.CAPACITY:
        return fit
    left = max_steps - fit.steps
    rest = _fit(loss_of, penalty, fit.params, data, tolerance, left)
    return rest._replace(steps=fit.steps + rest.steps)


@functools.partial(jax.jit, static_argnames=("loss", "capacity"))
def _fit(
    loss: Callable[..., jax.Array],
    penalty: Penalty,
    params: Tree,
    data: tuple[Any, ...],
    tolerance: Number,
    max_steps: Number,
    capacity: int = CAPACITY,
) -> Fit:
    held, start, known = jax.lax.stop_gradient((penalty, params, data))
    if loss is loss_of:
        (problem,) = known
        solution, _ = solve_linear(
            problem, held, start, tolerance, max_steps, capacity=capacity
        )
    else:
        solution = _general.solve(
            lambda x: loss(x, *known), held, start, tolerance, max_steps
        )
    point = solution.point
    solved = differentiable(loss, (penalty, data), point.params, solution.step)
    value = loss(solved, *data)
    return Fit(
        params=solved,
        converged=solution.reason == _general.CONVERGED,
        stationarity=point.relative,
        scale=point.scale,
        objective=value + penalty.value(solved).astype(value.dtype),
        steps=solution.steps,
        reason=solution.reason,
    )


def _without_closure(
    loss: Callable[..., jax.Array], params: Tree, data: tuple[Any, ...]
) -> tuple[Callable[..., jax.Array], tuple[Any, ...]]:
    """The loss as a function of all that it depends on, traced arrays included.

    `jax.closure_convert` leaves integers and booleans where they are: labels, masks.
    """
    traced, shape = jax.make_jaxpr(loss, return_shape=True)(params, *data)
    if not isinstance(shape, jax.ShapeDtypeStruct) or shape.shape:
        raise TypeError(
            f"minimise: loss returned {shown(shape)}; allowed: a scalar, as "
            "jnp.mean(...) gives. Leave auxiliary outputs out"
        )
    constants = traced.consts
    if not any(isinstance(constant, jax.core.Tracer) for constant in constants):
        return loss, data
    count = len(data)

    def of_all(params: Tree, *rest: Any) -> jax.Array:
        leaves = jax.tree.leaves((params, rest[:count]))
        return jax.core.eval_jaxpr(traced.jaxpr, rest[count:], *leaves)[0]

    return of_all, (*data, *constants)


def _check(
    loss: object, data: object, tolerance: Number, max_steps: int, on_failure: str
) -> None:
    if not isinstance(loss, Linear) and not callable(loss):
        raise TypeError(
            f"minimise: loss is {shown(loss)}; allowed: a function loss(params, *data) "
            "that returns a scalar"
        )
    if not isinstance(data, tuple) or (data and isinstance(loss, Linear)):
        raise TypeError(
            f"minimise: data is {shown(data)}; allowed: a tuple of the arguments of "
            "the loss behind the parameters, as data=(x, y)"
        )
    check_positive("minimise: tolerance", tolerance)
    check_count("minimise: max_steps", max_steps, 1)
    if on_failure not in ("warn", "raise", "ignore"):
        raise ValueError(
            f"minimise: on_failure is {shown(on_failure)}; allowed: 'warn', 'raise' "
            "or 'ignore'"
        )


def _check_data(loss: object, data: tuple[Any, ...]) -> None:
    for name, leaf in zip(paths(data), jax.tree.leaves(data), strict=True):
        if not is_array(leaf):
            raise TypeError(
                f"minimise: data at {name!r} is {shown(leaf)}; allowed: arrays and "
                "numbers. Bind options to the loss with functools.partial"
            )
    if not callable(loss):
        return
    try:
        signature = inspect.signature(loss)
    except ValueError:  # Some functions written in C have none.
        return
    try:
        signature.bind(None, *data)
    except TypeError as error:
        raise TypeError(
            f"minimise: the loss is called as loss(params, *data), here with "
            f"{len(data)} arguments behind params: {error}. Write data=(x, y) for "
            "loss(params, x, y), data=((x, y),) for a loss that takes one pair"
        ) from error


def _check_params(params: Tree) -> None:
    for name, leaf in zip(paths(params), jax.tree.leaves(params), strict=True):
        if not is_real_floating(leaf):
            raise TypeError(
                f"minimise: leaf {name!r} of params is of dtype {leaf.dtype}; allowed: "
                "real floating arrays. Pass what is not fitted as data="
            )


def _lines(fit: Fit) -> tuple[str, dict[str, str]]:
    """The title and the rows of `print(fit)`."""
    leaves = jax.device_get(jax.tree.leaves(fit.params))
    counts = [((leaf != 0).sum(), leaf.size) for leaf in leaves]
    texts = [f"{nonzeros} of {size}" for nonzeros, size in counts]
    if len(leaves) > _MOST_LEAVES:
        texts = [" of ".join(str(sum(each)) for each in zip(*counts, strict=True))]
    elif all(paths(fit.params)):
        named = zip(paths(fit.params), texts, strict=True)
        texts = [f"{name} {text}" for name, text in named]
    return _ENDINGS[int(fit.reason)].format(steps=int(fit.steps)), {
        "stationarity": f"{float(fit.stationarity):.1g} of the strength",
        "objective": f"{float(fit.objective):.4g}",
        "non-zeros": ", ".join(texts),
    }


def _report(
    fit: Fit, params: Tree, data: tuple[Any, ...], tolerance: Number, on_failure: str
) -> None:
    """Warns or raises if a fit outside of a trace has not converged."""
    if isinstance(fit.reason, jax.core.Tracer):
        if on_failure == "raise":
            raise ValueError(
                "minimise: on_failure='raise' cannot raise inside jit, vmap or grad; "
                "look at the field converged of the result there"
            )
        return
    reason = int(fit.reason)
    if reason == _general.CONVERGED or on_failure == "ignore":
        return
    if reason == _general.NOT_FINITE:
        raise ConvergenceError(f"minimise: {_first_not_finite(params, data)}")
    ending = _REASONS[reason].format(steps=int(fit.steps))
    message = (
        f"minimise: not converged {ending}: stationarity is "
        f"{float(fit.stationarity):.1e} of the strength, tolerance {tolerance:g}; "
        f"standardise the columns of the data, or {_MENDS[reason]}"
    )
    if on_failure == "raise":
        raise ConvergenceError(message)
    warnings.warn(message, ConvergenceWarning, stacklevel=3)


def _first_not_finite(params: Tree, data: tuple[Any, ...]) -> str:
    """A sentence that names the first array with a number that is not finite."""
    for kind, tree in (("params", params), ("data", data)):
        for name, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True):
            if not jnp.all(jnp.isfinite(leaf)):
                where = f"{kind} at {name!r}" if name else kind
                return f"{where} holds numbers that are not finite"
    return (
        "the loss or its gradient is not finite, with finite params and data; start "
        "elsewhere, or scale the data"
    )
