"""Matrix penalties and constraints against NumPy, SciPy and their own definitions."""

import functools
from functools import cache
from typing import Any

import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import jaxreg
from jaxreg._numerics.singular_values import rank
from tests.support.training import train

pytestmark = pytest.mark.slow

NUCLEAR = jaxreg.NuclearNorm(0.3)
SPECTRAL = jaxreg.spectral(jaxreg.ElasticNet(0.3, 0.2))
MAPS = [
    NUCLEAR,
    SPECTRAL,
    jaxreg.RankAtMost(2),
    jaxreg.SpectralBall(1.2),
    jaxreg.Orthogonal(),
]
SHAPES = [(5, 3), (3, 5), (4, 4), (1, 4), (4, 1), (2, 2, 2, 3)]

maps = pytest.mark.parametrize("penalty", MAPS, ids=repr)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def normal(seed: int, shape: Any) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def thresholded(matrix: Any, threshold: float) -> Any:
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return (u * np.maximum(s - threshold, 0)) @ v


@pytest.mark.parametrize(
    ("shape", "split", "matrix"),
    [
        ((3, 2, 4, 5), -1, (24, 5)),
        ((6, 2, 3), 1, (6, 6)),
        ((6, 2, 3), 2, (12, 3)),
        ((6, 2, 3), -2, (6, 6)),
    ],
)
def test_the_axes_before_the_split_are_the_rows(shape, split, matrix, x64):
    v = normal(0, shape)
    expected = thresholded(v.reshape(matrix), 0.7 * 2.0).reshape(shape)
    out = jaxreg.NuclearNorm(0.7, split=split).prox(v, 2.0)
    # Rounding of float64 in numbers below 4.
    np.testing.assert_allclose(out, expected, atol=1e-13)


@pytest.mark.parametrize("split", [0, 3, -3, 7])
def test_a_split_that_leaves_no_rows_or_columns_raises(split):
    penalty = jaxreg.NuclearNorm(0.7, split=split)
    tx = jaxreg.regularize(optax.sgd(0.1), penalty)
    params = {"kernel": jnp.ones((2, 3, 4))}
    with pytest.raises(ValueError, match=r"'kernel' .* use a split from 1 to 2"):
        tx.update(params, tx.init(params), params)


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(jaxreg.NuclearNorm, 0.3),
        functools.partial(jaxreg.spectral, jaxreg.MCP(0.3, knot=3.0)),
        functools.partial(jaxreg.RankAtMost, 2),
        functools.partial(jaxreg.SpectralBall, 1.2),
        jaxreg.Orthogonal,
        functools.partial(jaxreg.TopK, 4),
        functools.partial(jaxreg.TopK, fraction=0.3),
    ],
    ids=[
        "NuclearNorm",
        "spectral",
        "RankAtMost",
        "SpectralBall",
        "Orthogonal",
        "TopK",
        "share",
    ],
)
def test_layers_of_a_stack_are_alone_in_every_method(make):
    stack, grads = normal(0, (3, 2, 4, 5)), normal(1, (3, 2, 4, 5))
    whole, alone = make(stacked=2), make()
    step = alone.step_for(0.2)

    def methods(penalty, leaf, grad):
        prox = penalty.prox(leaf, step)
        return (
            prox,
            penalty.subgradient(leaf),
            penalty.stationarity(prox, grad),
            penalty.nearest_latent(leaf + grad, prox, step),
        )

    found = methods(whole, stack, grads)
    for place in np.ndindex(3, 2):
        expected = methods(alone, stack[place], grads[place])
        # One program for a stack and for a matrix: some roundings of float32.
        jax.tree.map(
            lambda x, y, at=place: np.testing.assert_allclose(x[at], y, atol=1e-5),
            found,
            expected,
        )
    total = sum(alone.value(found[0][place]) for place in np.ndindex(3, 2))
    np.testing.assert_allclose(whole.value(found[0]), total, rtol=1e-5)


def test_a_leaf_with_too_few_axes_for_its_stack_raises():
    for penalty in (jaxreg.NuclearNorm(0.3, stacked=2), jaxreg.TopK(1, stacked=3)):
        with pytest.raises(ValueError, match=r"too few for layers stacked along"):
            penalty.prox(jnp.ones((2, 3, 4)), 1.0)


@pytest.mark.parametrize(
    "stacked, error", [(-1, ValueError), (1.0, TypeError), (True, TypeError)]
)
def test_a_stack_of_no_whole_number_of_axes_raises(stacked, error):
    for make in (jaxreg.Orthogonal, functools.partial(jaxreg.TopK, 1)):
        with pytest.raises(error, match=r"stacked is .* an int >= 0"):
            make(stacked=stacked)


@maps
def test_a_leaf_that_is_no_matrix_raises(penalty):
    rules = jaxreg.by_path([("bias", penalty)])
    with pytest.raises(ValueError, match=r"'bias' .* fewer than two axes and is no"):
        rules.prox({"bias": jnp.ones(3)}, 1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda split: jaxreg.NuclearNorm(1.0, split=split),
        lambda split: jaxreg.spectral(jaxreg.L1(1.0), split=split),
        lambda split: jaxreg.RankAtMost(1, split=split),
        lambda split: jaxreg.SpectralBall(1.0, split=split),
        lambda split: jaxreg.Orthogonal(split=split),
    ],
)
@pytest.mark.parametrize("split", [None, True, 1.0, (0, 1)])
def test_a_split_that_is_no_int_raises(make, split):
    with pytest.raises(TypeError, match=r"split is .*allowed: an int"):
        make(split)


def test_impossible_numbers_of_a_matrix_raise():
    with pytest.raises(TypeError, match="allowed is an elementwise penalty"):
        jaxreg.spectral(NUCLEAR)
    with pytest.raises(TypeError, match=r"rank is 1.5; allowed: an int >= 1"):
        jaxreg.RankAtMost(1.5)
    with pytest.raises(ValueError, match="rank is 0; allowed: an int >= 1"):
        jaxreg.RankAtMost(0)
    with pytest.raises(ValueError, match=r"radius .* is 0.0; allowed: a finite number"):
        jaxreg.regularize(optax.sgd(0.1), jaxreg.SpectralBall(0.0))
    with pytest.raises(TypeError, match=r"group_axis is \(0, 1\); allowed: an int"):
        jaxreg.Orthogonality(1.0, group_axis=(0, 1))


@pytest.mark.parametrize("penalty", [NUCLEAR, SPECTRAL, jaxreg.spectral(jaxreg.L2(1))])
@pytest.mark.parametrize("step", [0.3, 1.0, 5.0])
def test_no_search_over_two_by_two_matrices_beats_the_prox(penalty, step, x64):
    for seed in range(3):
        v = normal(seed, (2, 2))

        def height(flat, v=v):
            s = np.linalg.svd(flat.reshape(2, 2), compute_uv=False)
            h = sum(float(penalty.magnitude.value(jnp.asarray(one))) for one in s)
            return h + ((flat - v.ravel()) ** 2).sum() / (2 * step)

        found = height(np.asarray(penalty.prox(v, step)).ravel())
        starts = [np.zeros(4), v.ravel(), thresholded(v, 0.3).ravel()]
        for start in starts:
            best = scipy.optimize.minimize(height, start, method="Nelder-Mead")
            # Rounding in float64; the search itself ends 1e-4 away.
            assert found <= best.fun + 1e-12


def test_singular_values_shrink_by_the_threshold(x64):
    v = normal(0, (6, 4))
    sizes = np.linalg.svd(v, compute_uv=False)
    out = jaxreg.NuclearNorm(1.0).prox(v, sizes[2])
    # Rounding of float64.
    expected = np.maximum(sizes - sizes[2], 0)
    found = np.linalg.svd(out, compute_uv=False)
    np.testing.assert_allclose(found, expected, atol=1e-14)
    assert rank(out) == 2
    assert not np.any(jaxreg.NuclearNorm(1.0).prox(v, sizes[0] * 1.001))


def test_flat_penalties_leave_large_singular_values_unshrunk(x64):
    u, v = (np.linalg.qr(normal(seed, (5, 3)))[0] for seed in (0, 1))
    penalty = jaxreg.spectral(jaxreg.MCP(0.5, knot=3.0))
    out = penalty.prox((u * [5.0, 4.0, 0.3]) @ v.T, 1.0)
    # Rounding of float64.
    np.testing.assert_allclose(out, (u * [5.0, 4.0, 0.0]) @ v.T, atol=1e-14)


def test_a_matrix_stays_zero_while_the_gradient_is_weaker(x64):
    grad = normal(0, (4, 6))
    norm = np.linalg.norm(grad, 2)
    zero = jnp.zeros((4, 6))
    assert not np.any(jaxreg.NuclearNorm(norm * 1.0001).stationarity(zero, grad))
    assert np.any(jaxreg.NuclearNorm(norm * 0.9999).stationarity(zero, grad))


@pytest.mark.parametrize("sizes", [(1.5, 0.0), (1.5, 0.7), (0.0, 0.0), (0.8, 0.8)])
def test_stationarity_is_the_distance_to_the_nearest_subgradient(sizes, x64):
    (u, _, v), grad = np.linalg.svd(normal(0, (2, 2))), normal(1, (2, 2))
    used, idle = np.array(sizes) > 0, np.array(sizes) == 0

    def distance(flat):
        # Any matrix of norm 1 on the idle vectors, by clipping what the search walks.
        left, s, right = np.linalg.svd(flat.reshape(2, 2))
        free = (left * np.minimum(s, 1)) @ right * np.outer(idle, idle)
        inner = np.diag(used.astype(float)) + free
        return np.linalg.norm(grad + 0.3 * u @ inner @ v)

    starts = [0.1 * normal(seed, 4) for seed in range(4)]
    walks = [scipy.optimize.minimize(distance, s, method="Nelder-Mead") for s in starts]
    found = np.linalg.norm(NUCLEAR.stationarity((u * sizes) @ v, grad))
    # The search ends within 1e-4 of its own best.
    np.testing.assert_allclose(found, min(walk.fun for walk in walks), atol=2e-4)


@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
def test_the_prox_of_a_low_rank_start_is_that_matrix(shape, x64):
    low = normal(0, (shape[0], 2)) @ normal(1, (2, shape[1]))
    for penalty in (NUCLEAR, SPECTRAL):
        start = penalty.nearest_latent(jnp.asarray(low), jnp.asarray(low), 0.7)
        # Rounding of float64 in numbers below 5.
        np.testing.assert_allclose(penalty.prox(start, 0.7), low, atol=1e-14)
        assert rank(start) == rank(penalty.prox(start, 0.7)) == 2


def test_rank_counts_singular_values_above_stored_rounding():
    low = jnp.asarray(normal(0, (300, 5)) @ normal(1, (5, 100)), jnp.float32)
    for dtype in (jnp.float32, jnp.float16, jnp.bfloat16):
        assert rank(low.astype(dtype)) == 5
    assert rank(jnp.asarray(normal(0, (200, 200)), jnp.float32)) == 200
    assert rank(jnp.zeros((4, 3))) == 0
    assert rank(jnp.eye(4)) == 4


@maps
@shapes
def test_forward_and_reverse_derivatives_are_right(penalty, shape, x64):
    x, move = normal(0, shape), normal(1, shape)

    @jax.jit
    def prox(x, step=0.7):
        return penalty.prox(x, step)

    def quotient(ahead, behind):
        return (ahead - behind) / 2e-6

    slope = jax.jit(lambda x: jax.jvp(prox, (x,), (move,))[1])(x)
    expected = quotient(prox(x + 1e-6 * move), prox(x - 1e-6 * move))
    # Central differences: 1e-12 of curvature and 1e-9 of rounding.
    np.testing.assert_allclose(slope, expected, atol=1e-8)
    back = jax.jit(lambda x: jax.vjp(prox, x)[1](slope)[0])(x)
    # One number by both modes: rounding in float64.
    np.testing.assert_allclose(np.sum(back * move), np.sum(slope**2), rtol=1e-12)
    by_step = jax.jit(jax.jacfwd(lambda step: prox(x, step)))(0.7)
    expected = quotient(prox(x, 0.7 + 1e-6), prox(x, 0.7 - 1e-6))
    np.testing.assert_allclose(by_step, expected, atol=1e-8)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_second_derivatives_of_the_nuclear_norm_are_right(shape, x64):
    x, move = normal(0, shape), normal(1, shape)
    gradient = jax.jit(jax.grad(NUCLEAR.value))
    bend = jax.jit(lambda x: jax.jvp(gradient, (x,), (move,))[1])(x)
    ahead, behind = (gradient(x + h * move) for h in (1e-6, -1e-6))
    # Central differences: 1e-12 of curvature and 1e-9 of rounding.
    np.testing.assert_allclose(bend, (ahead - behind) / 2e-6, atol=1e-8)
    by_strength = jax.grad(lambda s, x: jaxreg.NuclearNorm(s).value(x))
    mixed = jax.jit(jax.grad(by_strength, 1))(0.3, x)
    unit = jaxreg.NuclearNorm(1.0).subgradient(x)
    # Rounding of float64.
    np.testing.assert_allclose(mixed, unit, atol=1e-14)


def test_the_derivative_by_the_strength_is_right(x64):
    x = normal(0, (5, 3))

    @jax.jit
    def prox(strength):
        return jaxreg.NuclearNorm(strength).prox(x, 0.7)

    expected = (prox(0.3 + 1e-6) - prox(0.3 - 1e-6)) / 2e-6
    # Central differences of a piecewise linear function: 1e-9 of rounding.
    np.testing.assert_allclose(jax.jit(jax.jacrev(prox))(0.3), expected, atol=1e-8)


TIED = {
    "zero": np.zeros((4, 3)),
    "identity": np.eye(4),
    "one alike": np.ones((3, 5)),
    "two pairs": np.diag([1.0, 1.0, 0.0, 0.0]),
    "at the threshold": np.diag([0.21, 0.21, 0.5]),
}


@maps
@pytest.mark.parametrize("matrix", TIED.values(), ids=TIED)
def test_derivatives_are_finite_at_equal_or_zero_values(penalty, matrix):
    """Those of jnp.linalg.svd are NaN there."""
    x = jnp.asarray(matrix, jnp.float32)
    for mode in (jax.jacfwd, jax.jacrev):
        assert np.isfinite(jax.jit(mode(lambda x: penalty.prox(x, 0.7)))(x)).all()
        assert np.isfinite(jax.jit(mode(penalty.value))(x)).all()


TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0]

# Singular values at which the prox is smooth, but not those of its vectors: no value is
# at a threshold, none of several nearest points is chosen.
ALIKE = {
    "RankAtMost": [[2.0, 2.0, 0.5], [2.0, 1.5, 0.0]],
    "Orthogonal": [[2.0, 2.0, 0.5], [3.0, 3.0, 3.0]],
}
# Those of convex penalties are smooth at zeros, too.
ALIKE_IF_CONVEX = [
    [3.0, 3.0, 3.0],
    [2.0, 2.0, 0.5],
    [2.0, 0.5, 0.5],
    [2.0, 2.0, 0.0],
    [0.0, 0.0, 0.0],
]


@maps
@pytest.mark.parametrize("is_wide", [False, True])
def test_second_derivatives_through_a_prox_are_right_at_ties(penalty, is_wide, x64):
    """Those of the nuclear norm were NaN at three equal values."""
    sizes = np.array(ALIKE.get(type(penalty).__name__, ALIKE_IF_CONVEX))
    tall = (TURN[:, :3] * sizes[:, None]) @ TURN[1:, 1:]
    matrices = tall.swapaxes(1, 2) if is_wide else tall
    weights, move = normal(0, matrices.shape[1:]), normal(1, matrices.shape[1:])

    def gradient(step, x):
        def height(step, x):
            return jnp.sum(weights * penalty.prox(x, step) ** 2)

        return jax.grad(height, (0, 1))(step, x)

    def bend(x):
        return jax.jvp(gradient, (0.7, x), (1.0, move))[1]

    found = jax.jit(jax.vmap(bend))(matrices)
    at = jax.jit(jax.vmap(gradient, (None, 0)))
    ahead, behind = (at(0.7 + h, matrices + h * move) for h in (1e-4, -1e-4))
    for slopes, above, below in zip(found, ahead, behind, strict=True):
        # Central differences: 1e-7 of curvature, 1e-8 of rounding close to a tie.
        np.testing.assert_allclose(slopes, (above - below) / 2e-4, atol=1e-6)


def test_reverse_over_reverse_is_forward_over_reverse_at_a_tie(x64):
    def height(x):
        return jnp.sum(normal(0, (3, 3)) * NUCLEAR.prox(x, 0.7) ** 2)

    bends = [
        jax.jit(mode(jax.grad(height)))(3.0 * np.eye(3))
        for mode in (jax.jacfwd, jax.jacrev)
    ]
    # One number by two modes: rounding of float64.
    np.testing.assert_allclose(*bends, atol=1e-12)


def test_the_derivative_through_jax_svd_is_nan_at_a_tie():
    def through_svd(x):
        u, s, v = jnp.linalg.svd(x, full_matrices=False)
        return (u * jnp.maximum(s - 0.2, 0)) @ v

    assert np.isnan(jax.jacfwd(through_svd)(jnp.eye(3))).any()


@maps
def test_a_prox_is_one_singular_value_decomposition(penalty):
    program = jax.make_jaxpr(lambda x: penalty.prox(x, 0.7))(jnp.ones((4, 3)))
    assert str(program).count(" svd[") == 1


def eager_compilations(function, *args, caplog) -> list[str]:
    function(*args)
    caplog.clear()
    with jax.log_compiles(), caplog.at_level("WARNING"):
        function(*args)
    return [text for text in caplog.messages if text.startswith("Compiling")]


@maps
def test_eager_calls_compile_nothing_the_second_time(penalty, caplog):
    x = jnp.asarray(normal(0, (6, 4)), jnp.float32)

    def act(x):
        penalty.prox(x, 0.7), penalty.stationarity(x, x), penalty.subgradient(x)
        return jax.grad(penalty.value)(x)

    assert not eager_compilations(act, x, caplog=caplog)


def normal_part(penalty, x, grad) -> float:
    """The norm of the projection of -grad on the normal cone at x, by NumPy."""
    u, s, v = np.linalg.svd(x, full_matrices=True)
    kept = int((s > 1e-9).sum())
    if isinstance(penalty, jaxreg.RankAtMost):
        idle = u[:, kept:].T @ -grad @ v[kept:].T
        return np.linalg.norm(idle) if kept == penalty.rank else 0.0
    if isinstance(penalty, jaxreg.Orthogonal):
        inner = x.T @ -grad if x.shape[0] >= x.shape[1] else -grad @ x.T
        return np.linalg.norm(inner + inner.T) / 2
    tight = int((s > penalty.radius - 1e-9).sum())
    inner = u[:, :tight].T @ -grad @ v[:tight].T
    levels = np.linalg.eigvalsh((inner + inner.T) / 2)
    return np.linalg.norm(np.maximum(levels, 0))


@pytest.mark.parametrize("penalty", MAPS[2:], ids=repr)
@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (4, 4)])
def test_constraint_stationarity_is_the_rest_off_its_normal_cone(penalty, shape, x64):
    for seed in range(3):
        x = np.asarray(penalty.prox(normal(seed, shape), 1.0))
        grad = normal(seed + 10, shape)
        found = np.linalg.norm(penalty.stationarity(x, grad)) ** 2
        expected = np.linalg.norm(grad) ** 2 - normal_part(penalty, x, grad) ** 2
        # Rounding of float64; by Moreau the two parts are at right angles.
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_normal_cone_of_the_spectral_ball_agrees_with_search(x64):
    grad = normal(1, (2, 2))

    def distance(flat):
        # All singular values are at the radius: any W without a negative level.
        root = flat.reshape(2, 2)
        return np.linalg.norm(grad + root @ root.T)

    starts = [normal(seed, 4) for seed in range(4)]
    walks = [scipy.optimize.minimize(distance, s, method="Nelder-Mead") for s in starts]
    found = np.linalg.norm(jaxreg.SpectralBall(1.2).stationarity(1.2 * np.eye(2), grad))
    # The search ends within 1e-4 of its own best.
    np.testing.assert_allclose(found, min(walk.fun for walk in walks), atol=2e-4)


def test_below_its_rank_only_zero_gradients_are_stationary(x64):
    low = np.outer(normal(0, 4), normal(1, 3))
    grad = normal(2, (4, 3))
    found = jaxreg.RankAtMost(2).stationarity(low, grad)
    # Rounding of float64: the matrix is its own projection.
    np.testing.assert_allclose(found, abs(grad), atol=1e-14)


@pytest.mark.parametrize("penalty", MAPS[2:], ids=repr)
def test_a_point_off_the_set_is_not_stationary(penalty, x64):
    x = 3 * normal(0, (5, 4))
    assert np.max(penalty.stationarity(x, np.zeros((5, 4)))) > 0.1


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (4, 4), (3, 3, 2, 5)])
def test_orthogonal_returns_orthonormal_columns_or_rows(shape):
    for leaf in (jnp.zeros(shape), jnp.ones(shape), jnp.asarray(normal(0, shape))):
        out = jaxreg.Orthogonal().prox(leaf.astype(jnp.float32), 1.0)
        matrix = np.asarray(out).reshape(-1, shape[-1])
        short = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        # Rounding of float32 in sums of at most 18 products.
        np.testing.assert_allclose(short.T @ short, np.eye(short.shape[1]), atol=5e-6)


@cache
def solution(penalty: Any) -> tuple[Any, Any]:
    """The matrix that `regularize` reaches on |x - target|^2 / 2, and the target."""
    target = normal(0, (6, 4))
    tx = jaxreg.regularize(
        optax.adam(optax.cosine_decay_schedule(3e-2, 4000)), penalty, width=0.2
    )
    x, _ = train(tx, lambda x: x - target, normal(1, (6, 4)), 4000)
    return np.asarray(x), target


def test_regularize_reaches_the_closed_form_of_the_nuclear_norm(x64):
    x, target = solution(jaxreg.NuclearNorm(1.0))
    # Adam with a rate that ends at 0.
    np.testing.assert_allclose(x, thresholded(target, 1.0), atol=1e-6)
    assert rank(jnp.asarray(x)) == np.linalg.matrix_rank(thresholded(target, 1.0), 1e-9)


@pytest.mark.parametrize("penalty", [jaxreg.RankAtMost(2), jaxreg.SpectralBall(1.0)])
def test_regularize_reaches_the_projection_on_a_set_of_matrices(penalty, x64):
    x, target = solution(penalty)
    # Adam with a rate that ends at 0.
    np.testing.assert_allclose(x, penalty.prox(target, 1.0), atol=1e-6)


def test_matrix_completion_is_that_of_proximal_gradient_in_numpy(x64):
    truth = normal(0, (12, 2)) @ normal(1, (2, 8))
    seen = np.random.default_rng(2).random((12, 8)) < 0.7
    expected = np.zeros((12, 8))
    for _ in range(5000):
        expected = thresholded(expected - seen * (expected - truth), 0.5)
    tx = jaxreg.regularize(optax.sgd(0.2), jaxreg.NuclearNorm(0.5), width=0.5)
    found, _ = train(tx, lambda x: seen * (x - truth), jnp.zeros((12, 8)), 5000)
    # Both have converged to about 1e-9.
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert rank(found) == np.linalg.matrix_rank(expected, 1e-9) < 8


class LinenConv(nn.Module):
    """One convolution."""

    @nn.compact
    def __call__(self, images: Any) -> Any:
        return nn.Conv(8, (3, 3))(images)


LOW_RANK = jaxreg.by_path([(r"kernel$", jaxreg.NuclearNorm(0.5))])


def loss_of(answers: Any, images: Any) -> Any:
    # Only the first channel matters.
    return jnp.mean((answers - images[..., :1]) ** 2)


def rank_of_kernel(kernel: Any) -> int:
    assert kernel.shape == (3, 3, 4, 8)
    return int(rank(kernel.reshape(36, 8)))


def low_rank_adam() -> Any:
    return jaxreg.regularize(optax.adam(1e-2), LOW_RANK, width=0.1)


def test_a_convolution_of_linen_becomes_one_of_low_rank():
    model, images = LinenConv(), jnp.asarray(normal(0, (4, 6, 6, 4)), jnp.float32)
    params = model.init(jax.random.key(0), images)
    assert rank_of_kernel(params["params"]["Conv_0"]["kernel"]) == 8
    grads_of = jax.grad(lambda p: loss_of(model.apply(p, images), images))
    params, _ = train(low_rank_adam(), grads_of, params, 200)
    # All outputs are alike.
    assert rank_of_kernel(params["params"]["Conv_0"]["kernel"]) == 1


def test_a_convolution_of_nnx_becomes_one_of_low_rank():
    images = jnp.asarray(normal(0, (4, 6, 6, 4)), jnp.float32)
    model = nnx.Conv(4, 8, kernel_size=(3, 3), rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, low_rank_adam(), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> None:
        grads = nnx.grad(lambda m: loss_of(m(images), images))(model)
        optimizer.update(model, grads)

    assert rank_of_kernel(model.kernel[...]) == 8
    for _ in range(200):
        step(model, optimizer)
    # All outputs are alike.
    assert rank_of_kernel(model.kernel[...]) == 1


def keras_orthogonal(matrix: Any, factor: float, mode: str) -> float:
    """Keras' OrthogonalRegularizer, by the formula of its documentation."""
    rows = matrix if mode == "rows" else matrix.T
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    gram = rows @ rows.T * (1 - np.eye(len(rows)))
    return factor * 0.5 * abs(gram).sum() / (len(rows) * (len(rows) - 1) / 2)


@pytest.mark.parametrize(("mode", "axis"), [("rows", 0), ("columns", 1)])
def test_orthogonality_times_the_pairs_is_that_of_keras(mode, axis, x64):
    matrix = normal(0, (5, 4))
    count = matrix.shape[axis]
    penalty = jaxreg.Orthogonality(0.01 / (count * (count - 1) / 2), group_axis=axis)
    # Rounding of float64.
    expected = keras_orthogonal(matrix, 0.01, mode)
    np.testing.assert_allclose(penalty.value(matrix), expected, rtol=1e-14)


def test_orthogonality_of_a_zero_group_is_0_without_gradient():
    rows = jnp.array([[0.0, 0.0], [1.0, 0.0], [3.0, 4.0]])
    penalty = jaxreg.Orthogonality(1.0, group_axis=0)
    # Rounding of float32.
    np.testing.assert_allclose(penalty.value(rows), 0.6, rtol=1e-6)
    slope = penalty.subgradient(rows)
    assert np.isfinite(slope).all() and not np.any(slope[0]) and np.any(slope[1])
    assert not np.any(penalty.subgradient(jnp.eye(3)))


def test_orthogonality_multiplies_matrices_once():
    penalty = jaxreg.Orthogonality(1.0, group_axis=-1)
    program = str(jax.make_jaxpr(penalty.value)(jnp.ones((3, 3, 4, 8))))
    assert program.count("dot_general") == 1


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30])
def test_hoyer_square_has_its_gradient_at_every_scale(size):
    x = normal(0, (5, 4))
    total, square = abs(x).sum(), (x**2).sum()
    expected = 2 * np.sign(x) * total / square**2 * (square - abs(x) * total)
    found = jaxreg.HoyerSquare(1.0).subgradient(jnp.asarray(size * x, jnp.float32))
    # Of degree -1; rounding of float32 in a difference of numbers below 10.
    np.testing.assert_allclose(np.asarray(found, float) * size, expected, atol=1e-5)


def test_hoyer_square_counts_equal_entries_and_is_zero_at_zero():
    penalty = jaxreg.HoyerSquare(2.0)
    for alive in (1, 5, 12):
        leaf = jnp.where(jnp.arange(12) < alive, -0.3, 0.0).reshape(3, 4)
        # Rounding of float32.
        np.testing.assert_allclose(penalty.value(leaf), 2 * alive, rtol=1e-6)
    zero = jnp.zeros((3, 4))
    assert penalty.value(zero) == 0 and not np.any(penalty.subgradient(zero))


GRADIENTS = [jaxreg.Orthogonality(0.1, group_axis=0), jaxreg.HoyerSquare(0.1)]


@pytest.mark.parametrize("penalty", GRADIENTS, ids=repr)
def test_regularize_raises_on_a_penalty_without_a_prox(penalty):
    rules = jaxreg.by_path([("bias", jaxreg.L1(1.0)), ("kernel", penalty)])
    for one in (penalty, rules):
        with pytest.raises(TypeError, match=r"add_penalty_gradient\(it\) first in the"):
            jaxreg.regularize(optax.adam(1e-2), one)


@pytest.mark.parametrize("penalty", GRADIENTS, ids=repr)
def test_a_gradient_before_regularize_keeps_the_zeros(penalty):
    target = jnp.asarray(normal(0, (6, 4)), jnp.float32)

    def end(*first: Any) -> Any:
        lasso = jaxreg.regularize(optax.adam(1e-2), jaxreg.L1(0.3))
        tx = optax.chain(*first, lasso)
        return train(tx, lambda x: x - target, jnp.ones((6, 4)), 500)[0]

    plain, guided = end(), end(jaxreg.add_penalty_gradient(penalty))
    assert penalty.value(guided) < 0.95 * penalty.value(plain)
    assert np.any(guided == 0)
