"""Errors of penalties: where and in which words; more in system/bad_input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg

PARAMS = {"kernel": jnp.ones((3, 2))}

EDGES = {
    "regularize": lambda penalty: jaxreg.regularize(optax.sgd(0.1), penalty),
    "add_penalty_gradient": jaxreg.add_penalty_gradient,
    "by_path": lambda penalty: jaxreg.by_path([("kernel", penalty)]),
    "on_kernels": jaxreg.on_kernels,
    "describe": lambda penalty: jaxreg.describe(penalty, PARAMS),
    "summary": lambda penalty: jaxreg.summary(penalty, PARAMS),
}


@pytest.mark.parametrize("edge", EDGES)
def test_the_field_and_the_penalty_are_named_inside_a_lift(edge: str) -> None:
    penalty = jaxreg.grouped(jaxreg.ElasticNet(1.0, -2.0), group_axis=0)
    with pytest.raises(ValueError, match=r"l2 of ElasticNet\(l1=1.0, l2=-2.0\) is -2"):
        EDGES[edge](penalty)


@pytest.mark.parametrize("strength", [0, 1, 0.0, np.float64(1), np.int32(2)])
@pytest.mark.parametrize("edge", EDGES)
def test_every_real_scalar_is_a_strength(strength, edge: str) -> None:
    assert EDGES[edge](jaxreg.L1(strength)) is not None
    assert EDGES[edge](jaxreg.L1(jnp.asarray(strength))) is not None


def test_a_traced_strength_is_not_checked() -> None:
    def total(strength):
        return jaxreg.on_kernels(jaxreg.L1(strength)).value(PARAMS)

    assert jax.jit(total)(2.0) == 12.0


@pytest.mark.parametrize("axis", [1.0, "0", None, (), (0, 1.0), [0], True, np.True_])
def test_a_group_axis_of_other_than_ints_raises_at_once(axis) -> None:
    with pytest.raises(TypeError, match="allowed: an int, or a tuple of ints"):
        jaxreg.GroupLasso(1.0, group_axis=axis)
    with pytest.raises(TypeError, match="allowed: an int, or a tuple of ints"):
        jaxreg.grouped(jaxreg.L1(1.0), group_axis=axis)


def test_grouped_takes_elementwise_penalties_only() -> None:
    rules = jaxreg.on_kernels(jaxreg.L1(1.0))
    for penalty in (jaxreg.GroupLasso(1.0, 0), rules, 1.0):
        with pytest.raises(TypeError, match="allowed is an elementwise penalty"):
            jaxreg.grouped(penalty, group_axis=0)


def update(tx, params):
    return tx.update(params, tx.init(params), params)


AT_PARAMS = {
    "describe": jaxreg.describe,
    "summary": jaxreg.summary,
    "add_penalty_gradient": lambda penalty, params: update(
        jaxreg.add_penalty_gradient(penalty), params
    ),
    "value of by_path": lambda penalty, params: jaxreg.by_path([("", penalty)]).value(
        params
    ),
}


@pytest.mark.parametrize("use", AT_PARAMS)
@pytest.mark.parametrize(
    "axis, shape, message",
    [
        ((0, -2), (3, 2), r"group_axis \(0, -2\) names one twice"),
        ((0, 1), (3, 2), r"has no axis left within a group"),
    ],
)
def test_a_leaf_that_does_not_split_into_groups_raises(
    use: str, axis, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        AT_PARAMS[use](jaxreg.GroupLasso(1.0, group_axis=axis), {"w": jnp.ones(shape)})


@pytest.mark.parametrize("use", AT_PARAMS)
def test_free_leaves_may_have_any_dtype(use: str) -> None:
    params = {"steps": jnp.ones((), jnp.int32), "kernel": jnp.ones((3, 2))}
    if use != "value of by_path":
        AT_PARAMS[use](jaxreg.on_kernels(jaxreg.L1(1.0)), params)
    assert jaxreg.on_kernels(jaxreg.L1(1.0)).prox(params, 0.5)["steps"] == 1
