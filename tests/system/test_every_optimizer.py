"""Every optimizer of Optax: inside `regularize`, and as a direction of `proximal`."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support.fixed_points import (
    PENALTY,
    SOLUTION,
    STEPS,
    STRENGTH,
    TARGET,
    WIDTH,
    as_arrays,
    assert_same_zeros,
    distance,
    run,
)
from tests.transforms.test_proximal import DIRECTIONS

MODULES = (optax, optax.contrib)
RATE = 0.01

# By name, the arguments beside a learning rate of `RATE` and no weight decay: what has
# it factor and project small leaves, and 1 where it finds its own rate.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "acprop": {},
    "adabelief": {},
    "adadelta": {},
    "adafactor": {"min_dim_size_to_factor": 2},
    "adagrad": {},
    "adam": {},
    "adamax": {},
    "adamaxw": {},
    "adamw": {},
    "adan": {},
    "ademamix": {},
    "adopt": {},
    "amsgrad": {},
    "cocob": {"learning_rate": 1.0},
    "dadapt_adamw": {"learning_rate": 1.0},
    "dog": {"learning_rate": 1.0},
    "dowg": {"learning_rate": 1.0},
    "fromage": {},
    "galore": {"rank": 2},
    "lamb": {},
    "lars": {},
    "lbfgs": {"linesearch": None},
    "lion": {},
    "madgrad": {},
    "muon": {},
    "nadam": {},
    "nadamw": {},
    "noisy_sgd": {"key": 0},
    "novograd": {},
    "optimistic_adam": {"optimism": RATE},
    "optimistic_adam_v2": {},
    "optimistic_gradient_descent": {},
    "prodigy": {"learning_rate": 1.0},
    "radam": {},
    "rmsprop": {},
    "rprop": {},
    "schedule_free_adamw": {},
    "schedule_free_sgd": {},
    "sgd": {},
    "sign_sgd": {},
    "signum": {},
    "simplified_ademamix": {},
    "sm3": {},
    "yogi": {},
}

NEED_THE_LOSS = {
    "momo": "the value of the loss",
    "momo_adam": "the value of the loss",
    "polyak_sgd": "the value of the loss",
    "reduce_on_plateau": "the value of the loss",
    "sophia": "the loss, whose Hessian it samples",
}
EXCEPTIONS = NEED_THE_LOSS | {
    "differentially_private_aggregate": "takes the gradients of single examples",
    "dpsgd": "takes the gradients of single examples, and its noise stays",
    "mechanize": "wraps an optimizer: test_every_wrapper.py",
    "normalize": "a part of sam: it divides a zero gradient by its norm",
    "sam": "wraps two optimizers, and minimises another function than the loss",
    "schedule_free": "wraps an optimizer: test_every_wrapper.py",
    "split_real_and_imaginary": "wraps an optimizer: test_every_wrapper.py",
}

# What does not rest where its gradient is 0 keeps to a bound.
BOUNDS = {
    # Its decay by 1 / sqrt(1 + rate^2) has no switch; a step is the rate times a leaf's
    # norm, here at most 2, whatever the gradient.
    "fromage": 2 * RATE,
    # Noise of variance 0.01 / step^0.55, of which descent keeps at most rate / 2: six
    # standard deviations at the last step.
    "noisy_sgd": 6 * 0.1 * STEPS**-0.275 * (RATE / 2) ** 0.5,
    # They recombine points that are equal, and round: once, or once per step.
    "madgrad": 1e-15,
    "schedule_free_sgd": 1e-12,
    # As well, and Adam takes steps of up to its rate for a rounding error: a tenth of
    # them is in the params, all of them are in its base point.
    "schedule_free_adamw": RATE / 10,
    # Its momentum begins at 1e-6 and leads away; it is back to rounding.
    "yogi": 1e-15,
}
# 0 / 0 until there has been a gradient: they begin after one that has faded.
WARM = ("dadapt_adamw", "prodigy")

# The default run and CI have one of each kind, a release all.
DEFAULT = ("adam", "adafactor", "lamb", "lion", "muon", "prodigy", "rprop", "sgd")


def at_its_time(name: str) -> Any:
    return pytest.param(name, marks=() if name in DEFAULT else pytest.mark.release)


available = pytest.mark.parametrize(
    "name",
    [
        at_its_time(name)
        for name in sorted(OPTIMIZERS)
        if any(hasattr(module, name) for module in MODULES)
    ],
)


pytestmark = pytest.mark.usefixtures("x64")


def alias(name: str) -> Callable[..., Any]:
    return getattr(optax, name, None) or getattr(optax.contrib, name)


def make(name: str) -> Any:
    arguments = {"learning_rate": RATE, **OPTIMIZERS[name]}
    if "weight_decay" in inspect.signature(alias(name)).parameters:
        arguments["weight_decay"] = 0.0
    if "key" in arguments:
        arguments["key"] = jax.random.key(arguments["key"])
    return alias(name)(**arguments)


def is_alias(name: str, thing: Any, module: Any) -> bool:
    """True if it takes a learning rate or, in contrib, returns a transformation."""
    is_function = inspect.isfunction(thing) or isinstance(thing, functools.partial)
    # What scales is a part of an optimizer.
    if not is_function or name.startswith(("_", "scale_by_")):
        return False
    signature = inspect.signature(thing)
    takes_rate = any("learning_rate" in name for name in signature.parameters)
    makes = "GradientTransformation" in str(signature.return_annotation)
    return takes_rate or (module is optax.contrib and makes)


def test_every_optimizer_of_optax_is_tested_or_an_exception() -> None:
    found = {n for m in MODULES for n, f in vars(m).items() if is_alias(n, f, m)}
    assert found - set(OPTIMIZERS) - set(EXCEPTIONS) == set()
    assert set(OPTIMIZERS) & set(EXCEPTIONS) == set()


@pytest.mark.parametrize("name", NEED_THE_LOSS)
def test_optimizers_that_need_the_loss_raise_on_gradients_alone(name: str) -> None:
    # A rate for those that have no default.
    tx, x = alias(name)(0.1), jnp.ones(2)
    with pytest.raises((TypeError, ValueError), match=r"'value'|obj_fn must be prov"):
        tx.update(x, tx.init(x), x)


def warmed(optimizer: Any, trained: Any) -> Any:
    """Its state after one gradient and many of zero."""
    update = jax.jit(optimizer.update)
    _, state = update(trained, optimizer.init(trained), trained)
    nothing = jax.tree.map(jnp.zeros_like, trained)
    for _ in range(8000):
        _, state = update(nothing, state, trained)
    return state


@available
@pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated")
@pytest.mark.slow
def test_the_solution_stays_inside_regularize(name: str) -> None:
    optimizer = make(name)
    tx = jaxreg.regularize(optimizer, PENALTY, WIDTH)
    step = WIDTH / STRENGTH
    trained = as_arrays(
        jax.tree.map(lambda x, goal: x - step * (x - goal), SOLUTION, TARGET)
    )
    state = tx.init(as_arrays(SOLUTION))
    latent = {**trained, "free": state.latent["free"]}
    first = warmed(optimizer, trained) if name in WARM else optimizer.init(trained)
    state = state._replace(latent=latent, inner_optimizer=first)

    last, end = run(tx, SOLUTION, state, TARGET)
    bound = BOUNDS.get(name, 0.0)
    assert distance(last, SOLUTION) <= bound
    assert distance(end.latent, latent) <= bound
    assert_same_zeros(last, SOLUTION)
    # And what is no solution does not stay.
    moved, _ = run(tx, SOLUTION, state, jax.tree.map(lambda goal: goal + 0.25, TARGET))
    assert distance(moved, SOLUTION) > 10 * bound + 0.01


def steady_problem() -> Any:
    """Target and solution of L1 and of a group lasso, with gradients of many sizes."""
    target = [np.array([2.0, -1.0, 0.125, -0.0625]), np.ones((2, 3))]
    target[1] = np.array([[1.0, -0.3, 0.05], [0.2, 0.1, -0.1]])
    shrunk = np.maximum(np.abs(target[0]) - STRENGTH, 0) * np.sign(target[0])
    norms = np.linalg.norm(target[1], axis=1, keepdims=True)
    rows = target[1] * np.maximum(1 - 3**0.5 * STRENGTH / norms, 0)
    return target, [shrunk, rows]


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.slow
def test_the_solution_stays_under_proximal_with_a_warm_state(name: str) -> None:
    direction, metric = DIRECTIONS[name]
    direction = optax.with_extra_args_support(direction)
    penalty = jaxreg.by_path(
        [("0", jaxreg.L1(STRENGTH)), ("1", jaxreg.GroupLasso(STRENGTH, group_axis=0))]
    )
    tx = jaxreg.proximal(direction, 1e-3, penalty, preconditioner=metric)
    target, solution = as_arrays(steady_problem())
    steady = jax.tree.map(jnp.subtract, solution, target)

    def feed(state: Any, _: Any) -> Any:
        return direction.update(steady, state, solution)[1], None

    state = tx.init(solution)
    warm, _ = jax.lax.scan(feed, state.direction, length=STEPS)
    last, _ = run(tx, solution, state._replace(direction=warm), target)
    # The steps are those of float64; the sums of 20,000 of them round.
    assert distance(last, solution) < 1e-12
    assert_same_zeros(last, solution)
    # Without the penalty the gradients lead away.
    assert distance(solution, target) > 0.1
