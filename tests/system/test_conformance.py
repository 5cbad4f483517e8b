"""Optax's expectations of every transformation, met by all of ours."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from experiments.kit.transformations import TRANSFORMATIONS, Needs, Settings
from tests.support.trees import assert_equal

DTYPES = ("float16", "bfloat16", "float32", "float64")

SETTINGS = Settings(rate=1e-2, momentum=0.9, end_step=2)
# Each as a whole optimizer, and two as they stand in a chain.
TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    name: partial(row.optimizer, settings=SETTINGS)
    for name, row in TRANSFORMATIONS.items()
} | {
    "regularize in a chain": lambda penalty: optax.chain(
        optax.clip(1e3), TRANSFORMATIONS["regularize"].alone(penalty, SETTINGS)
    ),
    "add_penalty_gradient alone": jaxreg.add_penalty_gradient,
}

PENALTIES: dict[str, Any] = {
    "L1": jaxreg.L1(1e-3),
    "GroupLasso": jaxreg.GroupLasso(1e-3, group_axis=0),
    "on_kernels": jaxreg.on_kernels(jaxreg.L1(1e-3)),
    "by_path": jaxreg.by_path(
        [
            (r"in/kernel$", jaxreg.GroupLasso(1e-3, group_axis=1)),
            (r"kernel$", jaxreg.ElasticNet(1e-3, 1e-2)),
        ]
    ),
}

_ROWS = jaxreg.GroupLasso(1e-3, group_axis=0)
# Penalties of the same leaves where only groups, or only constraints, will do.
STAND_INS: dict[Needs, dict[str, Any]] = {
    Needs.GROUPS: {
        "L1": jaxreg.GroupLasso(1e-3, group_axis=1),
        "GroupLasso": _ROWS,
        "on_kernels": jaxreg.on_kernels(_ROWS),
        "by_path": jaxreg.by_path([("in/kernel$", _ROWS), ("kernel$", _ROWS)]),
    },
    Needs.CONSTRAINT: {
        "L1": jaxreg.Box(-1.0, 1.0),
        "GroupLasso": jaxreg.L2Ball(1.0, group_axis=0),
        "on_kernels": jaxreg.on_kernels(jaxreg.NonNegative()),
        "by_path": jaxreg.by_path(
            [("in/kernel$", jaxreg.L2Ball(1.0)), ("kernel$", jaxreg.TopK(5))]
        ),
    },
}

# The fields of states that have one array for each parameter.
LIKE_PARAMS = ("latent", "mu", "nu", "trace", "first_params", "gradient_sum")
LIKE_PARAMS += ("linear_sum", "square_sum", "penalty_weights", "sum_of_squares")

every_transform = pytest.mark.parametrize("transform", TRANSFORMS)
# By default entries, and groups under rules.
every_penalty = pytest.mark.parametrize(
    "penalty",
    [
        pytest.param(name, marks=[] if name in ("L1", "by_path") else pytest.mark.slow)
        for name in PENALTIES
    ],
)


def make_params(dtype: str = "float32") -> Any:
    kernel = np.random.default_rng(0).normal(size=(12, 3))
    return {
        "in": {"kernel": jnp.asarray(kernel, dtype), "table": jnp.ones((2, 3), dtype)},
        "out": {"kernel": jnp.asarray(kernel.T, dtype)},
    }


def make(transform: str, penalty: str) -> Any:
    needs = TRANSFORMATIONS[transform.split()[0]].needs
    return TRANSFORMS[transform](STAND_INS.get(needs, PENALTIES)[penalty])


def described(tree: Any) -> list[Any]:
    """Path, shape, dtype and weak type of every array of a tree."""
    with_paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    types = [(jax.tree_util.keystr(path), jax.typeof(x)) for path, x in with_paths]
    return [(path, t.shape, t.dtype, t.weak_type) for path, t in types]


@every_transform
@every_penalty
def test_unknown_extra_args_are_accepted_and_change_nothing(
    transform: str, penalty: str
) -> None:
    tx, params = make(transform, penalty), make_params()
    state = tx.init(params)
    plain = jax.make_jaxpr(tx.update)(params, state, params)
    extra = jax.make_jaxpr(lambda *args: tx.update(*args, value=1.0, key=0, note="x"))
    assert str(extra(params, state, params)) == str(plain)


def scale_by_extra_arg() -> optax.GradientTransformationExtraArgs:
    """Gradient descent whose rate is the extra argument `rate`, which it records."""

    def update(updates: Any, state: Any, params: Any = None, *, rate: Any) -> Any:
        del state, params
        return jax.tree.map(lambda g: -rate * g, updates), jnp.asarray(rate)

    return optax.GradientTransformationExtraArgs(lambda params: jnp.zeros(()), update)


@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_extra_args_reach_the_inner_optimizer_of_regularize(rate: float) -> None:
    tx = jaxreg.regularize(scale_by_extra_arg(), jaxreg.L1(1.0), width=0.5)
    params = jnp.array([4.0, -4.0])
    updates, state = tx.update(jnp.zeros(2), tx.init(params), params, rate=rate)
    np.testing.assert_array_equal(updates, [-rate, rate])
    assert state.inner_optimizer == rate


def test_extra_args_pass_through_add_penalty_gradient() -> None:
    tx = optax.chain(jaxreg.add_penalty_gradient(jaxreg.L1(1.0)), scale_by_extra_arg())
    params = jnp.array([4.0, -4.0])
    updates, state = tx.update(jnp.zeros(2), tx.init(params), params, rate=0.5)
    np.testing.assert_array_equal(updates, [-0.5, 0.5])
    assert state[1] == 0.5


@every_transform
@every_penalty
def test_the_second_step_does_not_compile_again(transform: str, penalty: str) -> None:
    tx, params = make(transform, penalty), make_params()
    traces = []

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        traces.append(1)
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    params, state = step(params, tx.init(params))
    step(params, state)
    assert len(traces) == 1


@every_transform
@every_penalty
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_state_keeps_structure_shapes_dtypes_and_weak_types(
    transform: str, penalty: str, dtype: str
) -> None:
    tx = make(transform, penalty)

    def scanned_and_branched(params: Any, state: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            return (params, tx.update(params, state, params)[1]), None

        (_, state), _ = jax.lax.scan(step, (params, state), length=2)
        return jax.lax.cond(
            params["in"]["kernel"][0, 0] > 0,
            lambda: tx.update(params, state, params),
            lambda: (jax.tree.map(jnp.zeros_like, params), state),
        )

    # Types are compared while tracing, by scan and cond too: no need to compile.
    with jax.enable_x64(True):
        params = make_params(dtype)
        state = tx.init(params)
        _, new_state = jax.eval_shape(tx.update, params, state, params)
        assert jax.tree.structure(new_state) == jax.tree.structure(state)
        assert described(new_state) == described(state)
        _, last = jax.eval_shape(scanned_and_branched, params, state)
        assert described(last) == described(state)


@every_transform
@pytest.mark.parametrize("dtype", DTYPES)
def test_updates_have_the_dtype_of_the_params(transform: str, dtype: str) -> None:
    tx = make(transform, "by_path")
    with jax.enable_x64(True):
        params = make_params(dtype)
        updates, _ = jax.eval_shape(tx.update, params, tx.init(params), params)
        assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}


def test_updates_keep_the_dtype_of_params_whatever_the_gradients() -> None:
    tx = jaxreg.regularize(optax.adam(1e-2), jaxreg.L1(1e-3))
    params = jnp.ones(3, jnp.bfloat16)
    updates, _ = tx.update(jnp.ones(3, jnp.float32), tx.init(params), params)
    assert updates.dtype == jnp.bfloat16


@every_transform
@every_penalty
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_init_of_shapes_alone_has_the_types_of_init(
    transform: str, penalty: str, dtype: str
) -> None:
    tx, params = make(transform, penalty), make_params(dtype)
    shapes = jax.eval_shape(lambda tree: tree, params)
    real = described(tx.init(params))
    assert described(jax.eval_shape(tx.init, params)) == real
    assert described(jax.eval_shape(tx.init, shapes)) == real
    assert described(tx.init(shapes)) == real


@every_transform
@every_penalty
def test_tree_map_params_maps_the_latent_and_the_moments_only(
    transform: str, penalty: str
) -> None:
    tx, params = make(transform, penalty), make_params()
    state = tx.init(params)
    assert_equal(optax.tree.map_params(tx, lambda x: x, state), state)

    doubled = optax.tree.map_params(tx, lambda x: 2 * x, state)
    before, _ = jax.tree_util.tree_flatten_with_path(state)
    for (path, old), new in zip(before, jax.tree.leaves(doubled), strict=True):
        name = jax.tree_util.keystr(path)
        like_params = any(f".{field}[" in name for field in LIKE_PARAMS)
        np.testing.assert_array_equal(new, 2 * old if like_params else old, name)


@every_transform
def test_tree_get_finds_one_count(transform: str) -> None:
    tx, params = make(transform, "L1"), make_params()
    _, state = tx.update(params, tx.init(params), params)
    row = TRANSFORMATIONS[transform.split()[0]]
    has_adam = row.inner is optax.adam or transform in ("prox_adam", "prox_adamw")
    has_adam = has_adam and not transform.endswith("alone")
    assert optax.tree.get(state, "count") == (1 if has_adam else None)


@pytest.mark.parametrize(
    "transform", ["regularize", "add_penalty_gradient", "dual_average", "ftrl"]
)
def test_a_missing_gradient_of_a_free_leaf_stays_missing(transform: str) -> None:
    # Around sgd, because optax.adam itself raises on a gradient of None.
    settings = Settings(inner=optax.sgd)
    tx = TRANSFORMATIONS[transform].alone(PENALTIES["on_kernels"], settings)
    params = make_params()
    grads = {**params, "in": {**params["in"], "table": None}}
    updates, _ = tx.update(grads, tx.init(params), params)
    assert updates["in"]["table"] is None
    full, _ = tx.update(params, tx.init(params), params)
    assert_equal(updates["out"], full["out"])
    assert_equal(updates["in"]["kernel"], full["in"]["kernel"])


@every_transform
def test_a_leaf_that_is_none_everywhere_is_no_leaf(transform: str) -> None:
    tx, params = make(transform, "on_kernels"), make_params()
    absent = {**params, "absent": None}
    updates, _ = tx.update(absent, tx.init(absent), absent)
    assert updates["absent"] is None
    assert_equal(updates["in"], tx.update(params, tx.init(params), params)[0]["in"])
