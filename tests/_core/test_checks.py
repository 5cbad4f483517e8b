"""Errors of penalties: where and in which words; more in system/bad_input."""

import inspect

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
    penalty = jaxreg.grouped(jaxreg.ElasticNet(4.0, 1.0), group_axis=0)
    # Past the constructor, which raises the same.
    penalty = jax.tree.map(lambda number: number - 3, penalty)
    with pytest.raises(ValueError, match=r"l2 of ElasticNet\(l1=1.0, l2=-2.0\) is -2"):
        EDGES[edge](penalty)


MODEL = {f"layer_{i}": {"kernel": jnp.ones((3, 2))} for i in range(100)}
WITH_ANOTHER = {
    "describe": jaxreg.describe,
    "summary": jaxreg.summary,
    "measure": jaxreg.measure,
    "max_strength": jaxreg.max_strength,
    "conjugate_prox": lambda penalty, params: jaxreg.conjugate_prox(
        penalty, params, 1.0
    ),
    "weighted": jaxreg.weighted,
    "anchored": jaxreg.anchored,
    "scaled": jaxreg.scaled,
    "envelope": jaxreg.envelope,
    "grouped": jaxreg.grouped,
    "spectral": jaxreg.spectral,
    "half_space": jaxreg.half_space,
    "shrink": jaxreg.shrink,
    "neurons": jaxreg.neurons,
    "regularize": lambda penalty, optimizer: jaxreg.regularize(optimizer, penalty),
    "prox_adam": lambda penalty, rate: jaxreg.prox_adam(rate, penalty),
    "dual_average": lambda penalty, rate: jaxreg.dual_average(rate, penalty),
    "reweight": lambda penalty, build: jaxreg.reweight(build, penalty, 0.1, 1),
}


@pytest.mark.parametrize("name", WITH_ANOTHER)
@pytest.mark.parametrize("penalty", [jaxreg.L1(1.0), jaxreg.on_kernels(jaxreg.L1(1.0))])
def test_swapped_arguments_are_said_to_be_swapped(name, penalty) -> None:
    with pytest.raises(TypeError, match="the other way round; allowed: the pen") as e:
        WITH_ANOTHER[name](MODEL, penalty)
    # Two objects of 80 characters, and two lines.
    assert len(str(e.value)) < 400


TAKES_A_PENALTY = {
    **EDGES,
    **WITH_ANOTHER,
    "nonnegative": jaxreg.nonnegative,
    "the optimizer": lambda tx: jaxreg.regularize(tx, jaxreg.L1(1.0)),
    "a strength": lambda strength: EDGES["describe"](jaxreg.L1(strength)),
    "group_axis": lambda axis: jaxreg.GroupLasso(1.0, axis),
    "axis": lambda axis: jaxreg.FusedLasso(1.0, 1.0, axis),
    "split": lambda split: jaxreg.NuclearNorm(1.0, split),
    "stacked": lambda stacked: jaxreg.NuclearNorm(1.0, stacked=stacked),
    "a rule": lambda pattern: jaxreg.by_path([(pattern, jaxreg.L1(1.0))]),
    "rules": jaxreg.by_path,
    "every": lambda every: jaxreg.reweight(
        lambda p: optax.sgd(0.1), jaxreg.L1(1.0), 0.1, every
    ),
    "a schedule": lambda schedule: jaxreg.regularize(
        optax.sgd(0.1), jaxreg.L1(1.0), schedule=schedule
    ),
    "end_step": lambda steps: jaxreg.target_sparsity(
        optax.sgd(0.1), jaxreg.L1(1.0), 0.5, steps
    ),
}


@pytest.mark.parametrize("name", TAKES_A_PENALTY)
def test_messages_cut_what_they_show(name: str) -> None:
    arguments = (MODEL, PARAMS) if name in WITH_ANOTHER else (MODEL,)
    with pytest.raises((TypeError, ValueError), match=r"layer_0.*\.\.\.") as error:
        TAKES_A_PENALTY[name](*arguments)
    assert len(str(error.value)) < 400


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


@pytest.mark.parametrize("shape", [(), (0,), (1.0,), (True,), 2, [2]])
def test_blocks_of_other_than_lengths_raise(shape) -> None:
    with pytest.raises(TypeError, match="a tuple with the length of a block along"):
        jaxreg.Blocks(shape)


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


@pytest.mark.parametrize("content", [-1.0, None, "a spec", object()], ids=type)
def test_jax_rebuilds_a_penalty_of_whatever_it_puts_in(content: object) -> None:
    structure = jax.tree.structure(jaxreg.MCP(1.0, knot=2.0))
    rebuilt = jax.tree.unflatten(structure, [content, content])
    assert (rebuilt.strength, rebuilt.knot) == (content, content)


def test_a_grid_is_checked_where_it_is_made_and_used_under_vmap() -> None:
    values = jax.vmap(lambda penalty: penalty.value(jnp.ones(3)))(
        jaxreg.L1(jnp.array([1.0, 2.0]))
    )
    assert values.tolist() == [3.0, 6.0]
    with pytest.raises(ValueError, match=r"strength of L1.* is .*; allowed: a finite"):
        jaxreg.L1(jnp.array([1.0, -2.0]))
    with pytest.raises(ValueError, match=r"strength of L1.* has shape \(2,\)"):
        jaxreg.L1(jnp.array([1.0, 2.0])).value(jnp.ones(2))


@pytest.mark.parametrize(
    "penalty",
    [jaxreg.L1(1.0), jaxreg.GroupLasso(1.0, 0), jaxreg.weighted(jaxreg.MCP(1.0, 2), 3)],
    ids=lambda penalty: type(penalty).__name__,
)
def test_checks_leave_nothing_in_a_jitted_program(penalty) -> None:
    leaf = jnp.ones((3, 2))
    arguments = {"prox": (leaf, 0.5), "value": (leaf,), "step_for": (0.5,)}
    for name, numbers in arguments.items():
        method = getattr(type(penalty), name)
        checked, plain = (
            jax.make_jaxpr(function)(penalty, *numbers)
            for function in (method, inspect.unwrap(method))
        )
        assert str(checked) == str(plain)
