"""`proximal` and other ways to apply a prox: the problem each solves, and errors."""

import inspect
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from experiments.correctness.ways import mean_step
from tests.support.training import train

# f(x) = sum curvature (x - centre)^2 / 2, whose scales differ a hundredfold.
CURVATURE, CENTRE = np.array([1.0, 100.0]), np.array([1.0, 0.02])


def gradient(x: Any) -> Any:
    return CURVATURE * (x - CENTRE)


def lasso(strength: float) -> np.ndarray:
    """The minimiser of f + strength |x|_1, by its optimality conditions."""
    return np.sign(CENTRE) * np.maximum(abs(CENTRE) - strength / CURVATURE, 0)


def run(tx: Any, start: Any, steps: int, grad: Any = gradient) -> np.ndarray:
    return np.asarray(train(tx, grad, jnp.asarray(start), steps)[0])


def cosine(peak: float, steps: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(peak, steps)


DIRECTIONS: dict[str, tuple[Any, Any]] = {
    "plain": (optax.identity(), jaxreg.preconditioners.identity()),
    "average": (optax.ema(0.9), jaxreg.preconditioners.identity()),
    "momentum": (optax.trace(0.9), jaxreg.preconditioners.momentum(0.9)),
    "nesterov": (optax.trace(0.9, nesterov=True), jaxreg.preconditioners.momentum(0.9)),
    "adam": (optax.scale_by_adam(), jaxreg.preconditioners.adam()),
    "nadam": (optax.scale_by_adam(nesterov=True), jaxreg.preconditioners.adam()),
    "adam, eps": (
        optax.scale_by_adam(eps=0.1, eps_root=0.3),
        jaxreg.preconditioners.adam(eps=0.1, eps_root=0.3),
    ),
    "amsgrad": (optax.scale_by_amsgrad(), jaxreg.preconditioners.amsgrad()),
    "adamax": (optax.scale_by_adamax(), jaxreg.preconditioners.adamax()),
    "yogi": (optax.scale_by_yogi(), jaxreg.preconditioners.yogi()),
    "adan": (optax.scale_by_adan(), jaxreg.preconditioners.adan()),
    "rmsprop": (optax.scale_by_rms(), jaxreg.preconditioners.rmsprop()),
    "rmsprop, eps outside": (
        optax.scale_by_rms(eps=0.1, eps_in_sqrt=False),
        jaxreg.preconditioners.rmsprop(eps=0.1, eps_in_sqrt=False),
    ),
    "rmsprop, bias correction": (
        optax.scale_by_rms(bias_correction=True),
        jaxreg.preconditioners.rmsprop(decay=0.9),
    ),
    # Float32 rounds the variance of a steady gradient to some 1e-5 of its square.
    "rmsprop, centered": (
        optax.scale_by_stddev(eps=1.0),
        jaxreg.preconditioners.rmsprop(eps=1.0, centered=True),
    ),
    "rmsprop, centered, bias correction": (
        optax.scale_by_stddev(eps=1.0, bias_correction=True),
        jaxreg.preconditioners.rmsprop(eps=1.0, centered=True, decay=0.9),
    ),
    "rmsprop, momentum": (
        optax.chain(optax.scale_by_rms(), optax.trace(0.9)),
        jaxreg.preconditioners.momentum(0.9, jaxreg.preconditioners.rmsprop()),
    ),
    "adagrad": (optax.scale_by_rss(), jaxreg.preconditioners.adagrad()),
    "lamb": (
        optax.chain(optax.scale_by_adam(eps=1e-6), optax.scale_by_trust_ratio()),
        jaxreg.preconditioners.lamb(),
    ),
    "clip, adam": (
        optax.chain(optax.clip_by_global_norm(1e3), optax.scale_by_adam()),
        jaxreg.preconditioners.adam(),
    ),
    "injected adam": (
        optax.inject_hyperparams(optax.scale_by_adam)(b1=0.8),
        jaxreg.preconditioners.adam(),
    ),
    "masked adam": (
        optax.masked(optax.scale_by_adam(), [True, True]),
        jaxreg.preconditioners.adam(),
    ),
}
every_direction = pytest.mark.parametrize("name", DIRECTIONS)


@pytest.mark.parametrize("name", sorted(set(DIRECTIONS) - {"masked adam"}))
def test_a_preconditioner_is_its_directions_multiplier(name: str) -> None:
    assert jaxreg.preconditioners.check(*DIRECTIONS[name]) < 1e-3


@every_direction
@pytest.mark.parametrize("strength", [0.5, 1.5])
def test_the_solution_is_a_fixed_point_of_proximal(name, strength, x64) -> None:
    direction, metric = DIRECTIONS[name]
    tx = jaxreg.proximal(direction, 1e-3, jaxreg.L1(strength), preconditioner=metric)
    solution = lasso(strength)
    leaves = [jnp.asarray(solution[:1]), jnp.asarray(solution[1:])]

    def grad(x: Any) -> Any:
        return jnp.split(gradient(jnp.concatenate(x)), 2)

    x, _ = train(tx, grad, leaves, 2000)
    # Momenta that start at 0 leave the solution and come back.
    np.testing.assert_allclose(np.concatenate(x), solution, atol=2e-3)
    np.testing.assert_array_equal(np.concatenate(x) == 0, solution == 0)


PREBUILT: dict[str, Any] = {
    "sgd": lambda penalty, steps: jaxreg.prox_sgd(cosine(0.01, steps), penalty),
    "sgd, momentum": lambda penalty, steps: jaxreg.prox_sgd(
        cosine(0.001, steps), penalty, momentum=0.9
    ),
    "sgd, nesterov": lambda penalty, steps: jaxreg.prox_sgd(
        cosine(0.001, steps), penalty, 0.9, nesterov=True
    ),
    "adam": lambda penalty, steps: jaxreg.prox_adam(cosine(0.01, steps), penalty),
    "adamw": lambda penalty, steps: jaxreg.prox_adamw(
        cosine(0.01, steps), penalty, weight_decay=0.0
    ),
    "rmsprop": lambda penalty, steps: jaxreg.prox_rmsprop(cosine(0.01, steps), penalty),
    "adagrad": lambda penalty, steps: jaxreg.prox_adagrad(cosine(0.5, steps), penalty),
}


@pytest.mark.parametrize("name", PREBUILT)
@pytest.mark.parametrize("strength", [0.5, 1.5])
def test_prebuilt_optimizers_reach_the_solution(name, strength, x64) -> None:
    steps = 20_000
    tx = PREBUILT[name](jaxreg.L1(strength), steps)
    np.testing.assert_allclose(run(tx, np.zeros(2), steps), lasso(strength), atol=1e-7)


def test_without_a_penalty_they_are_the_optimizers_of_optax(x64) -> None:
    pairs = [
        (jaxreg.prox_sgd(0.003, jaxreg.L1(0.0), 0.9), optax.sgd(0.003, 0.9)),
        (jaxreg.prox_adam(0.01, jaxreg.L1(0.0)), optax.adam(0.01)),
        (
            jaxreg.prox_adamw(0.01, jaxreg.L1(0.0), weight_decay=0.1),
            optax.adamw(0.01, weight_decay=0.1),
        ),
        (
            jaxreg.prox_rmsprop(0.01, jaxreg.L1(0.0), momentum=0.5),
            optax.rmsprop(0.01, momentum=0.5),
        ),
        (
            jaxreg.prox_rmsprop(0.01, jaxreg.L1(0.0), bias_correction=True),
            optax.rmsprop(0.01, bias_correction=True),
        ),
        (
            jaxreg.prox_rmsprop(0.01, jaxreg.L1(0.0), centered=True, nesterov=True),
            optax.rmsprop(0.01, centered=True, nesterov=True),
        ),
        (jaxreg.prox_adagrad(0.1, jaxreg.L1(0.0)), optax.adagrad(0.1)),
    ]
    for ours, theirs in pairs:
        found, expected = run(ours, [3.0, -2.0], 100), run(theirs, [3.0, -2.0], 100)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_prebuilt_optimizers_take_the_arguments_of_optax() -> None:
    for ours in (
        jaxreg.prox_sgd,
        jaxreg.prox_adam,
        jaxreg.prox_adamw,
        jaxreg.prox_rmsprop,
        jaxreg.prox_adagrad,
    ):
        theirs = getattr(optax, ours.__name__.removeprefix("prox_"))
        wanted = inspect.signature(theirs).parameters
        found = dict(inspect.signature(ours).parameters)
        assert list(found)[:2] == ["learning_rate", "penalty"]
        for extra in ("penalty", "schedule"):
            del found[extra]
        assert list(found) == list(wanted)
        assert [p.default for p in found.values()] == [
            p.default for p in wanted.values()
        ]


def test_the_rate_as_threshold_after_adam_solves_another_problem(
    x64,
) -> None:
    steps = 20_000
    tail = jaxreg.shrink(jaxreg.L1(0.5), cosine(0.01, steps))
    found = run(optax.chain(optax.adam(cosine(0.01, steps)), tail), np.zeros(2), steps)
    # As if there were no penalty: the strength is below the gain of a steady gradient.
    np.testing.assert_allclose(found, CENTRE, atol=1e-3)


def test_the_rate_as_threshold_after_momentum_is_too_weak(
    x64,
) -> None:
    tail = jaxreg.shrink(jaxreg.L1(0.5), 0.001)
    found = run(optax.chain(optax.sgd(0.001, 0.9), tail), np.zeros(2), 40_000)
    np.testing.assert_allclose(found, lasso(0.05), atol=1e-9)


def test_steps_averaged_over_a_group_solve_another_problem(x64) -> None:
    penalty = jaxreg.GroupLasso(0.3, group_axis=0)
    steps = 20_000
    scale, centre = np.array([[1.0, 30.0]]), np.array([[0.8, 0.1]])

    def grad(x: Any) -> Any:
        return scale * (x - centre)

    def pull(x: np.ndarray) -> float:
        """The distance of a point from stationarity."""
        return float(np.max(penalty.stationarity(jnp.asarray(x), grad(x))))

    start = np.ones((1, 2))
    rate = cosine(0.01, steps)
    right = run(jaxreg.prox_adam(rate, penalty), start, steps, grad)
    wrong = run(mean_step(rate, penalty), start, steps, grad)
    assert pull(right) < 1e-6
    assert pull(wrong) > 0.05


def test_a_projection_after_adam_is_wrong_off_a_box(x64) -> None:
    steps, scale = 20_000, np.array([1.0, 10.0, 3.0])
    centre = np.array([0.6, 0.55, 0.5])

    def grad(x: Any) -> Any:
        return scale * (x - centre)

    # Lagrange: scale (x - centre) is one number, and x sums to 1.
    excess = (centre.sum() - 1) / np.sum(1 / scale)
    solution = centre - excess / scale
    simplex, start = jaxreg.Simplex(), np.ones(3) / 3
    rate = cosine(0.01, steps)
    euclid = run(
        optax.chain(optax.sgd(0.01), jaxreg.project(simplex)), start, steps, grad
    )
    np.testing.assert_allclose(euclid, solution, atol=1e-9)
    normal = run(jaxreg.regularize(optax.adam(rate), simplex), start, steps, grad)
    np.testing.assert_allclose(normal, solution, atol=1e-5)
    wrong = run(
        optax.chain(optax.adam(rate), jaxreg.project(simplex)), start, steps, grad
    )
    assert np.max(np.abs(wrong - solution)) > 0.05
    box = jaxreg.Box(0.0, 0.52)
    boxed = run(optax.chain(optax.adam(rate), jaxreg.project(box)), start, steps, grad)
    np.testing.assert_allclose(boxed, np.clip(centre, 0.0, 0.52), atol=1e-6)


def test_a_prox_belongs_inside_multisteps_not_after_it(x64) -> None:
    inside = optax.MultiSteps(jaxreg.prox_sgd(0.01, jaxreg.L1(0.5)), 4)
    found = run(inside.gradient_transformation(), np.zeros(2), 8000)
    np.testing.assert_allclose(found, lasso(0.5), atol=1e-9)
    steps = optax.MultiSteps(optax.sgd(0.01), 4).gradient_transformation()
    behind = optax.chain(steps, jaxreg.shrink(jaxreg.L1(0.5), 0.01))
    found = run(behind, np.zeros(2), 8000)
    assert np.max(np.abs(found - lasso(0.5))) > 0.2


def test_an_entry_without_a_gradient_is_left_alone() -> None:
    for build in (jaxreg.prox_adam, jaxreg.prox_rmsprop):
        tx = build(1e-3, jaxreg.L1(1e-4))
        x, _ = train(tx, lambda x: jnp.array([0.0, 1e-6]), jnp.ones(2), 10)
        assert x[0] == 1 and x[1] < 1


def test_a_schedule_scales_the_penalty_from_step_zero() -> None:
    def factor(count: Any) -> Any:
        return jnp.where(count < 1, 0.0, 2.0)

    for tx in (
        jaxreg.prox_sgd(0.25, jaxreg.L1(1.0), schedule=factor),
        jaxreg.shrink(jaxreg.L1(1.0), lambda count: 0.25, schedule=factor),
    ):
        x, state = jnp.ones(2), tx.init(jnp.ones(2))
        first, state = tx.update(jnp.zeros(2), state, x)
        second, _ = tx.update(jnp.zeros(2), state, x)
        np.testing.assert_array_equal(first, 0.0)
        np.testing.assert_array_equal(second, -0.5)


def test_a_leaf_masked_from_the_direction_has_preconditioner_one() -> None:
    mask = {"seen": True, "hidden": False}
    for direction, metric in (
        (optax.scale_by_adam(), jaxreg.preconditioners.adam()),
        (DIRECTIONS["lamb"][0], jaxreg.preconditioners.lamb()),
    ):
        masked = optax.masked(direction, mask)
        tx = jaxreg.proximal(masked, 0.25, jaxreg.L1(1.0), preconditioner=metric)
        params = {"seen": jnp.ones(2), "hidden": jnp.ones(2)}
        updates, _ = tx.update(params, tx.init(params), params)
        np.testing.assert_array_equal(updates["hidden"], -0.5)


@pytest.mark.parametrize(
    ("direction", "metric", "message"),
    [
        (
            optax.adam(lambda count: 1e-3),
            jaxreg.preconditioners.adam(),
            "rate schedule of its",
        ),
        (
            optax.scale_by_adam(),
            jaxreg.preconditioners.identity(),
            "is not the preconditioner of",
        ),
        (
            optax.identity(),
            jaxreg.preconditioners.adam(),
            "reads ScaleByAdamState, and the",
        ),
        (
            optax.chain(optax.scale_by_adam(), optax.trace(0.9)),
            jaxreg.preconditioners.adam(),
            "is not the preconditioner of a direction with the state TraceState",
        ),
        (
            optax.partition(
                {"a": optax.scale_by_adam(), "b": optax.scale_by_adam()}, ["a", "b"]
            ),
            jaxreg.preconditioners.adam(),
            "holds two states ScaleByAdamState",
        ),
    ],
)
def test_a_state_unknown_to_the_preconditioner_raises(
    direction, metric, message
) -> None:
    tx = jaxreg.proximal(direction, 1e-3, jaxreg.L1(1.0), preconditioner=metric)
    params = [jnp.ones(2), jnp.ones(2)]
    with pytest.raises(ValueError, match=message):
        tx.update(params, tx.init(params), params)


def test_check_finds_a_learning_rate_and_another_optimizer() -> None:
    for direction, metric in (
        (optax.adam(1e-3), jaxreg.preconditioners.adam()),
        (optax.scale_by_adam(b2=0.9999), jaxreg.preconditioners.adam(b2=0.9)),
        (optax.trace(0.9), jaxreg.preconditioners.momentum(0.5)),
    ):
        with pytest.raises(ValueError, match="without learning rate or sign"):
            jaxreg.preconditioners.check(direction, metric)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: jaxreg.proximal(1.0, 0.1, jaxreg.L1(1.0), preconditioner=None),
            "direction is",
        ),
        (
            lambda: jaxreg.proximal(
                optax.identity(), 0.1, jaxreg.L1(1.0), preconditioner=0.9
            ),
            "preconditioner is 0.9",
        ),
        (
            lambda: jaxreg.prox_sgd(0.1, jaxreg.L1(1.0), schedule=0.5),
            "schedule is 0.5",
        ),
        (lambda: jaxreg.prox_adam(0.1, jaxreg.HoyerSquare(1.0)), "proximal: "),
        (lambda: jaxreg.shrink(jaxreg.HoyerSquare(1.0), 0.1), "shrink: "),
        (lambda: jaxreg.hold_support("L1"), "penalty is 'L1'"),
    ],
)
def test_wrong_arguments_raise_at_the_call(call, message) -> None:
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_momentum_outside_zero_and_one_raises(decay: float) -> None:
    with pytest.raises(ValueError, match="from 0 to below 1"):
        jaxreg.preconditioners.momentum(decay)


def test_a_uniform_prox_after_adam_raises_with_the_fix() -> None:
    tx = jaxreg.prox_adam(0.1, jaxreg.NuclearNorm(1.0))
    params = jnp.ones((3, 2))
    with pytest.raises(ValueError, match="regularize"):
        tx.update(params, tx.init(params), params)
