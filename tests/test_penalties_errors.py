"""What penalties refuse, where, and in which words."""

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
REFUSED = {
    "negative": (-1.0, ValueError, r"is -1.0; allowed: a finite number >= 0"),
    "nan": (float("nan"), ValueError, r"is nan; allowed: a finite number >= 0"),
    "infinity": (float("inf"), ValueError, r"is inf; allowed: a finite number >= 0"),
    "jax negative": (jnp.asarray(-1.0), ValueError, r"allowed: a finite number >= 0"),
    "numpy nan": (np.float32("nan"), ValueError, r"allowed: a finite number >= 0"),
    "bool": (True, TypeError, r"is True; allowed: a real number >= 0"),
    "string": ("1e-3", TypeError, r"is '1e-3'; allowed: a real number >= 0"),
    "None": (None, TypeError, r"is None; allowed: a real number >= 0"),
    "complex": (1j, TypeError, r"allowed: a real number >= 0"),
    "numpy complex": (np.complex64(1j), TypeError, r"allowed: a real number >= 0"),
    "numpy bool": (np.True_, TypeError, r"allowed: a real number >= 0"),
    "jax bool": (jnp.asarray(True), TypeError, r"allowed: a real number >= 0"),
    "array": (np.ones(3), ValueError, r"has shape \(3,\); allowed: one number"),
    "jax array": (jnp.ones(3), ValueError, r"has shape \(3,\); allowed: one number"),
    "schedule": (lambda step: 1.0, TypeError, r"allowed: a real number >= 0"),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("kind", REFUSED)
def test_a_strength_that_cannot_be_is_refused_where_it_is_used(
    kind: str, edge: str
) -> None:
    strength, error, message = REFUSED[kind]
    with pytest.raises(error, match=message):
        EDGES[edge](jaxreg.L1(strength))


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


@pytest.mark.parametrize("edge", EDGES)
def test_what_is_no_penalty_is_refused(edge: str) -> None:
    with pytest.raises(TypeError, match=r"penalty is 0.001; allowed: a jaxreg penalty"):
        EDGES[edge](0.001)
    with pytest.raises(TypeError, match=r"penalty is <class .*allowed: a jaxreg"):
        EDGES[edge](jaxreg.L1)


@pytest.mark.parametrize("axis", [1.0, "0", None, (), (0, 1.0), [0], True, np.True_])
def test_a_group_axis_of_other_than_ints_is_refused_at_once(axis) -> None:
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
        (0, (3,), r"GroupLasso\(.*on leaf 'w' of shape \(3,\).*fewer than two axes"),
        (0, (), r"on leaf 'w' of shape \(\).*fewer than two axes"),
        (2, (3, 2), r"has axes 0 to 1, and group_axis is \(2,\)"),
        (-3, (3, 2), r"has axes 0 to 1, and group_axis is \(-3,\)"),
        ((0, -2), (3, 2), r"group_axis \(0, -2\) names one twice"),
        ((0, 1), (3, 2), r"has no axis left within a group"),
    ],
)
def test_a_leaf_that_does_not_split_into_groups_is_refused(
    use: str, axis, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        AT_PARAMS[use](jaxreg.GroupLasso(1.0, group_axis=axis), {"w": jnp.ones(shape)})


@pytest.mark.parametrize("use", AT_PARAMS)
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64, jnp.bool_])
def test_leaves_that_are_not_real_floating_point_are_refused(use: str, dtype) -> None:
    params = {"w": jnp.ones((3, 2), dtype)}
    with pytest.raises(TypeError, match=r"on leaf 'w' of dtype \w+: allowed are real"):
        AT_PARAMS[use](jaxreg.L1(1.0), params)


@pytest.mark.parametrize("use", AT_PARAMS)
def test_free_leaves_may_have_any_dtype(use: str) -> None:
    params = {"steps": jnp.ones((), jnp.int32), "kernel": jnp.ones((3, 2))}
    if use != "value of by_path":
        AT_PARAMS[use](jaxreg.on_kernels(jaxreg.L1(1.0)), params)
    assert jaxreg.on_kernels(jaxreg.L1(1.0)).prox(params, 0.5)["steps"] == 1
