"""Grids, folds and sweeps: against scikit-learn and against fits one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import datasets, linear_model, model_selection

import jaxreg
from experiments.kit import linear_models
from tests.support.training import train

FOLDS = 5


@pytest.fixture
def diabetes(x64):
    x, y = datasets.load_diabetes(return_X_y=True)
    return (x - x.mean(axis=0)) / x.std(axis=0), (y - y.mean()) / y.std()


@jax.jit
def sweep_lasso(x, y, strengths, masks):
    """The weights and the errors on the fold, of cold and warm starts."""
    # Centred columns are orthogonal to that of the intercept.
    rate = 1 / jnp.maximum(len(x), jnp.linalg.norm(x, 2) ** 2)

    def fit(strength, params, mask):
        train, step = ~mask / jnp.sum(~mask), rate * jnp.sum(~mask)
        params = linear_models.fit_with_intercept(
            jaxreg.scaled(jaxreg.L1(1.0), strength),
            False,
            step,
            params,
            (x, y),
            train,
            tolerance=1e-10,
            most=50_000,
        ).params
        off = params["bias"] + x @ params["kernel"] - y
        return params, (params["kernel"], jnp.sum(mask * off**2) / jnp.sum(mask))

    def zero(mask):
        return {"bias": jnp.zeros(()), "kernel": jnp.zeros(x.shape[1])}

    return [
        jaxreg.model_selection.sweep(fit, strengths, masks, start=zero, warm_start=warm)
        for warm in (False, True)
    ]


def test_the_grid_is_that_of_scikit_learn(diabetes):
    x, y = diabetes
    pull = jnp.asarray(-x.T @ y / len(y))
    largest = jaxreg.max_strength(jaxreg.L1(1.0), pull).overall
    path, _, _ = linear_model.lasso_path(x, y, eps=1e-2)
    # max_strength bisects to rounding.
    found = jaxreg.model_selection.strength_grid(largest, 100, ratio=1e-2)
    np.testing.assert_allclose(found, path, rtol=1e-12)


def test_all_weights_are_zero_at_the_first_strength_alone():
    pull = jnp.array([0.5, -2.0, 1.0])
    largest = jaxreg.max_strength(jaxreg.L1(1.0), pull).overall
    grid = jax.jit(lambda x: jaxreg.model_selection.strength_grid(x, 20))(largest)
    assert grid[0] == largest
    counts = [jnp.sum(jaxreg.L1(s).prox(-pull, 1.0) != 0) for s in grid[:2]]
    assert counts == [0, 1]


@pytest.mark.parametrize("samples", [7, 100, 101])
@pytest.mark.parametrize("folds", [2, 5, 7])
@pytest.mark.slow
def test_each_sample_is_held_out_once_and_folds_are_stratified(samples, folds):
    labels = np.random.default_rng(0).integers(0, 3, samples)
    masks = jaxreg.model_selection.fold_masks(jax.random.key(1), folds, samples, labels)
    assert masks.shape == (folds, samples) and masks.dtype == bool
    assert (masks.sum(axis=0) == 1).all()
    for chosen in (np.ones(samples, bool), labels == 0, labels == 1, labels == 2):
        counts = (masks & chosen).sum(axis=1)
        assert counts.max() - counts.min() <= 1


def test_folds_follow_the_key_alone_and_are_the_same_inside_jit():
    one, other = (
        jaxreg.model_selection.fold_masks(jax.random.key(seed), 5, 50)
        for seed in (0, 1)
    )
    jitted = jax.jit(lambda key: jaxreg.model_selection.fold_masks(key, 5, 50))(
        jax.random.key(0)
    )
    np.testing.assert_array_equal(one, jitted)
    assert (one != other).any()


@pytest.mark.slow
def test_the_curve_and_the_choice_are_those_of_lasso_cv(diabetes):
    x, y = diabetes
    masks = jaxreg.model_selection.fold_masks(jax.random.key(0), FOLDS, len(y))
    splits = [(np.flatnonzero(~mask), np.flatnonzero(mask)) for mask in masks]
    path = linear_model.lasso_path(x, y, eps=1e-2)[0][::4]
    theirs = linear_model.LassoCV(alphas=path, cv=splits, tol=1e-12, max_iter=100_000)
    theirs.fit(x, y)
    (_, cold), (_, warm) = sweep_lasso(x, y, path, masks)
    for errors in (cold, warm):
        # Two algorithms, each stopped at 1e-10 and better.
        np.testing.assert_allclose(errors, theirs.mse_path_, rtol=1e-7)
        curve = jaxreg.model_selection.validation_curve(errors)
        assert path[curve.least] == theirs.alpha_


@pytest.mark.slow
def test_warm_and_cold_starts_find_the_solution_of_each_fold(diabetes):
    x, y = diabetes
    masks = jaxreg.model_selection.fold_masks(jax.random.key(0), FOLDS, len(y))
    strengths = jaxreg.model_selection.strength_grid(0.5, 6, ratio=1e-2)
    (cold, _), (warm, _) = sweep_lasso(x, y, strengths, masks)
    np.testing.assert_allclose(warm, cold, atol=1e-8)
    for fold, mask in enumerate(masks):
        alone = linear_model.Lasso(float(strengths[3]), tol=1e-12, max_iter=100_000)
        alone.fit(x[~mask], y[~mask])
        np.testing.assert_allclose(cold[3, fold], alone.coef_, atol=1e-8)


def test_results_have_the_axes_of_strengths_and_points_in_order():
    def fit(strength, params, first, second):
        return params, {"sum": strength + first["a"] + second, "pair": jnp.zeros(2)}

    strengths, second = jnp.array([100.0, 200.0]), jnp.arange(4.0)
    first = {"a": jnp.array([10.0, 20.0, 30.0])}
    wanted = strengths[:, None, None] + first["a"][:, None] + second
    for warm in (False, True):
        found = jaxreg.model_selection.sweep(
            fit, strengths, first, second, start=lambda *points: 0.0, warm_start=warm
        )
        np.testing.assert_array_equal(found["sum"], wanted)
        assert found["pair"].shape == (2, 3, 4, 2)


def test_a_warm_start_begins_where_the_last_fit_ended():
    def fit(strength, params, shift):
        return params + strength, params + strength

    def swept(warm):
        strengths, shifts = jnp.array([1.0, 2.0, 4.0]), jnp.array([0.0, 10.0])
        return jaxreg.model_selection.sweep(
            fit, strengths, shifts, start=lambda shift: shift, warm_start=warm
        )

    np.testing.assert_array_equal(swept(True), [[1, 11], [3, 13], [7, 17]])
    np.testing.assert_array_equal(swept(False), [[1, 11], [2, 12], [4, 14]])


def small_network():
    """A fit of a network to a sum of two units, and its start."""
    x = jax.random.normal(jax.random.key(0), (64, 4))
    y = jax.nn.relu(x[:, 0]) + jax.nn.relu(x[:, 1])
    penalty = jaxreg.on_kernels(jaxreg.L1(1.0))

    def loss(params):
        hidden = jax.nn.relu(x @ params["first"]["kernel"])
        return jnp.mean((hidden @ params["last"]["kernel"] - y) ** 2)

    def fit(strength, params):
        tx = jaxreg.regularize(optax.adam(1e-2), jaxreg.scaled(penalty, strength))
        params, _ = train(tx, jax.grad(loss), params, 500)
        return params, loss(params)

    def start():
        keys = jax.random.split(jax.random.key(1))
        shapes = {"first": (4, 16), "last": (16,)}
        return {
            name: {"kernel": 0.5 * jax.random.normal(key, shape)}
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    return fit, start


@pytest.mark.slow
def test_a_strong_warm_start_leaves_a_network_dead():
    """The failure that the docstring of `sweep` warns about."""
    fit, start = small_network()

    def swept(strengths, warm):
        run = jax.jit(
            lambda: jaxreg.model_selection.sweep(
                fit, strengths, start=start, warm_start=warm
            )
        )
        return run()

    down = jnp.array([10.0, 0.001])
    cold, strong_first, weak_first = (
        swept(down, False),
        swept(down, True),
        swept(down[::-1], True),
    )
    assert cold[1] < 0.05
    assert weak_first[0] == pytest.approx(cold[1])
    assert strong_first[1] == pytest.approx(cold[0])
    assert cold[0] > 0.5


def test_halves_come_in_complementary_pairs():
    keys = jax.random.split(jax.random.key(0), 3)
    halves = jax.vmap(lambda key: jaxreg.model_selection.fold_masks(key, 2, 10))(keys)
    np.testing.assert_array_equal(halves[:, 0], ~halves[:, 1])
    assert (halves.sum(axis=2) == 5).all()


def test_stratified_folds_have_the_counts_of_scikit_learn():
    labels = datasets.load_digits().target
    ours = jaxreg.model_selection.fold_masks(
        jax.random.key(0), FOLDS, len(labels), labels
    )
    theirs = model_selection.StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    for mask, (_, held) in zip(ours, theirs.split(labels, labels), strict=True):
        counts = [np.bincount(part) for part in (labels[mask], labels[held])]
        # Both round shares of a class down or up.
        assert abs(counts[0] - counts[1]).max() <= 1
