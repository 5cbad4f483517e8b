"""First mistakes of users of other libraries: each message says what to write."""

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from jaxreg._core.other_libraries import CALLS

L1, L2, ROWS = jaxreg.L1(0.5), jaxreg.L2(0.25), jaxreg.GroupLasso(0.5, group_axis=0)
PARAMS = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
LINEAR = jaxreg.solve.linear(np.eye(4, 2), np.array([1.0, 2.0, 3.0, 4.0]))


def first(tx: Any, **extra: Any) -> Any:
    return tx.update(PARAMS, tx.init(PARAMS), PARAMS, **extra)


def inside(optimizer: Any, penalty: Any = L1) -> Callable[[], Any]:
    return lambda: first(jaxreg.regularize(optimizer, penalty))


def around(tail: Any) -> Any:
    return optax.chain(optax.sgd(0.1), tail)


# The first link of optax.contrib.dpsgd, which warns about its own seed.
PRIVATE = optax.contrib.differentially_private_aggregate(
    1.0, 0.1, key=jax.random.key(0)
)
ONCE = "the optimizer applies a penalty already"
MISTAKES: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "a penalty in a chain": (
        AttributeError,
        "L1 is a penalty and has no 'init'...jaxreg.regularize(optimizer, penalty)",
        lambda: optax.chain(optax.adam(1e-3), L1),
    ),
    "update of a constraint": (
        AttributeError,
        "NonNegative is a penalty and has no 'update'...jaxreg.regularize(",
        lambda: jaxreg.NonNegative().update(PARAMS, (), PARAMS),
    ),
    "an optimizer as the rate of prox_adam": (
        TypeError,
        "learning_rate is an Optax optimizer; allowed: a number...optimizer write "
        "jaxreg.regularize(optimizer, penalty)",
        lambda: jaxreg.prox_adam(optax.adam(1e-3), L1),
    ),
    "an optimizer as the rate of shrink": (
        TypeError,
        "shrink: learning_rate is an Optax optimizer",
        lambda: jaxreg.shrink(L1, optax.adam(1e-3)),
    ),
    "an optimizer as the rate of ftrl": (
        TypeError,
        "ftrl: learning_rate is an Optax optimizer",
        lambda: jaxreg.ftrl(optax.adam(1e-3), L1),
    ),
    "an optimizer as the rate of dual_average": (
        TypeError,
        "dual_average: learning_rate is an Optax optimizer",
        lambda: jaxreg.dual_average(optax.adam(1e-3), L1),
    ),
    "a text as strength": (
        TypeError,
        "strength of L1(strength='0.01') is '0.01'; allowed: a real number",
        lambda: jaxreg.L1("0.01"),  # type: ignore[arg-type]
    ),
    "a text as strength by keyword": (
        TypeError,
        "l2 of ElasticNet(l1=1.0, l2='1') is '1'; allowed: a real number",
        lambda: jaxreg.ElasticNet(1.0, l2="1"),  # type: ignore[arg-type]
    ),
    "axis for group_axis": (
        TypeError,
        "GroupLasso has no argument 'axis'; allowed: GroupLasso(strength, group_axis)",
        lambda: jaxreg.GroupLasso(0.1, axis=0),  # type: ignore[call-arg]
    ),
    "the arguments of scikit-learn": (
        TypeError,
        "ElasticNet has no arguments 'alpha', 'l1_ratio'; allowed: ElasticNet(l1, l2), "
        "ElasticNet.from_sklearn(alpha, l1_ratio)",
        lambda: jaxreg.ElasticNet(alpha=1.0, l1_ratio=0.5),  # type: ignore[call-arg]
    ),
    "a number times a penalty": (
        TypeError,
        "2 * L1(strength=0.5): a penalty...multiply its strength...jaxreg.scaled(",
        lambda: 2 * L1,
    ),
    "a penalty times an array": (
        TypeError,
        "a penalty...multiply its strength...jaxreg.scaled(penalty, factor)",
        lambda: L1 * jnp.ones(()),
    ),
    "a tuple of penalties": (
        TypeError,
        "penalty is (L1(...; add up penalties of the same leaves, first + second",
        lambda: jaxreg.regularize(optax.adam(1e-3), (L1, L2)),  # type: ignore[arg-type]
    ),
    "rules without by_path": (
        TypeError,
        "penalty is [('kernel$'...; give the rules to jaxreg.by_path(rules)",
        lambda: jaxreg.regularize(
            optax.adam(1e-3),
            [("kernel$", L1)],  # type: ignore[arg-type]
        ),
    ),
    "a dict of rules": (
        TypeError,
        "penalty is {'kernel$'...; give the rules to jaxreg.by_path(rules.items())",
        lambda: jaxreg.regularize(
            optax.adam(1e-3),
            {"kernel$": L1},  # type: ignore[arg-type]
        ),
    ),
    "a grid that is an array of JAX": (
        TypeError,
        "PiecewiseAffine: grid is an array of JAX; allowed: numbers, as "
        "tuple(grid.tolist())",
        lambda: jaxreg.PiecewiseAffine.to_grid(0.1, jnp.array([-1.0, 1.0])),
    ),
    "no group_axis": (
        TypeError,
        "group_axis is None; allowed: an int, or a tuple of ints",
        lambda: jaxreg.GroupLasso(0.1, None),  # type: ignore[arg-type]
    ),
    "sam that evaluates gradients itself": (
        ValueError,
        "grad_fn gives gradients at latents...Use optax.contrib.sam with "
        "opaque_mode=False",
        inside(optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1), opaque_mode=True)),
    ),
    "dpsgd inside": (
        ValueError,
        "gradients per example...optax.chain("
        "optax.contrib.differentially_private_aggregate(...), "
        "jaxreg.regularize(optax.sgd(...), penalty))",
        inside(optax.chain(PRIVATE, optax.sgd(0.1))),
    ),
    "regularize inside": (
        ValueError,
        f"{ONCE} (RegularizeState in...plain optimizer...sum or jaxreg.by_path",
        inside(jaxreg.regularize(optax.sgd(0.1), L2)),
    ),
    "a constraint inside": (
        ValueError,
        f"{ONCE} (RegularizeState in",
        inside(jaxreg.regularize(optax.adam(0.1), jaxreg.L2Ball(1.0))),
    ),
    "prox_sgd inside": (
        ValueError,
        f"{ONCE} (ProximalState in",
        inside(jaxreg.prox_sgd(0.1, L1)),
    ),
    "shrink inside": (
        ValueError,
        f"{ONCE} (ShrinkState in",
        inside(around(jaxreg.shrink(L1, 0.1))),
    ),
    "target_sparsity inside": (
        ValueError,
        f"{ONCE} (RegularizeState in",
        inside(jaxreg.target_sparsity(optax.sgd(0.1), L1, 0.5, 10)),
    ),
    "regularize inside target_sparsity": (
        ValueError,
        ONCE,
        lambda: first(
            jaxreg.target_sparsity(jaxreg.regularize(optax.sgd(0.1), L1), L1, 0.5, 10)
        ),
    ),
    "dual_average inside": (
        ValueError,
        f"{ONCE} (DualAverageState in",
        inside(jaxreg.dual_average(0.1, L1)),
    ),
    "ftrl inside": (
        ValueError,
        f"{ONCE} (FtrlState in",
        inside(jaxreg.ftrl(0.1, L1)),
    ),
    "the gradient of a penalty inside": (
        ValueError,
        f"{ONCE} (AddPenaltyGradientState in",
        inside(optax.chain(jaxreg.add_penalty_gradient(L2), optax.adam(0.1))),
    ),
    "a path of the penalty and the problem": (
        TypeError,
        "problem is L1(strength=0.5): the arguments are the other way round",
        lambda: jaxreg.model_selection.path(L1, LINEAR),
    ),
    "a fit of the penalty and the loss": (
        TypeError,
        "loss is L1(strength=0.5): the arguments are the other way round",
        lambda: jaxreg.minimise(L1, LINEAR),
    ),
    "a path of a penalty without a largest strength": (
        ValueError,
        "path: penalty is L2(strength=0.25), whose largest strength is inf; ...pass "
        "strengths=, strongest first",
        lambda: jaxreg.model_selection.path(LINEAR, L2),
    ),
    "a path of a penalty of strength 0": (
        ValueError,
        "path: penalty is L1(strength=0.0), whose largest strength is 0; ...of "
        "strength 1",
        lambda: jaxreg.model_selection.path(LINEAR, jaxreg.L1(0.0)),
    ),
    "a path from weak to strong": (
        ValueError,
        "path: strengths increase from 0.1 to 1; allowed: strongest first",
        lambda: jaxreg.model_selection.path(LINEAR, L1, strengths=[0.1, 1.0]),
    ),
    "classes as text": (
        TypeError,
        "linear: y is array(['no', 'yes']...; allowed: real numbers",
        lambda: jaxreg.solve.linear(np.eye(2), np.array(["no", "yes"])),
    ),
    "a seed as a key": (
        TypeError,
        "fold_masks: key is 0; allowed: a key, as jax.random.key(0)",
        lambda: jaxreg.model_selection.fold_masks(0, 5, 40),
    ),
    "layers as a list": (
        ValueError,
        "no regular expression; allowed: a str, as 'first|hidden'",
        lambda: jaxreg.neurons(L1, layers=["first"]),
    ),
    "layers as a glob": (
        ValueError,
        "'*first' is no regular expression: ...; allowed: a pattern for re.search, in "
        "which any text is '.*'",
        lambda: jaxreg.neurons(L1, layers="*first"),
    ),
    "layers with the name of the leaf": (
        ValueError,
        "contains 'first/kernel$'; leave '/kernel' out of layers",
        lambda: jaxreg.describe(
            jaxreg.neurons(L1, layers="first/kernel$"), {"first": PARAMS}
        ),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_message_of_a_mistake_says_what_to_write(mistake: str) -> None:
    error, message, make = MISTAKES[mistake]
    pattern = ".*".join(map(re.escape, message.split("...")))
    with pytest.raises(error, match=f"(?s){pattern}"):
        make()


def test_sum_adds_penalties() -> None:
    assert sum([L1, L2]) == jaxreg.ElasticNet(0.5, 0.25)
    with pytest.raises(TypeError, match="unsupported operand"):
        1 + L1  # type: ignore[operator]


def test_a_penalty_does_not_pass_for_a_transformation() -> None:
    assert not hasattr(L1, "init") and not hasattr(jaxreg.L1, "update")
    for twin in (copy.deepcopy(ROWS), pickle.loads(pickle.dumps(ROWS))):
        assert twin == ROWS


def test_a_penalty_is_not_a_schedule_to_inject_hyperparams() -> None:
    # A __call__ with a message would make Optax take the penalty for a schedule.
    tx = optax.inject_hyperparams(jaxreg.prox_sgd)(learning_rate=0.1, penalty=L1)
    assert set(tx.init(PARAMS).hyperparams) == {"learning_rate"}


def test_a_constructor_keeps_its_signature() -> None:
    assert list(inspect.signature(jaxreg.GroupLasso).parameters) == [
        "strength",
        "group_axis",
    ]


def test_a_grid_of_strengths_is_still_built_by_vmap() -> None:
    strengths = jnp.array([0.0, 1.0])
    values = jax.vmap(lambda s: jaxreg.L1(s).value(jnp.ones(2)))(strengths)
    np.testing.assert_array_equal(values, [0.0, 2.0])


def test_sam_on_gradients_of_the_loop_works_inside() -> None:
    updates, _ = first(
        jaxreg.regularize(optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1)), L1)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize("name", CALLS)
def test_a_name_of_another_library_gives_the_call(name: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(CALLS[name])):
        getattr(jaxreg, name)
    suggested = re.findall(r"jaxreg((?:\.\w+)+)", CALLS[name])
    assert suggested or "optax." in CALLS[name]
    for path in suggested:
        module: Any = jaxreg
        for part in path.split(".")[1:]:
            assert part in dir(module)
            module = getattr(module, part)
    for part in re.findall(r"optax((?:\.\w+)+)", CALLS[name]):
        assert hasattr(optax, part[1:])


def test_a_suggested_call_is_the_function_of_its_name() -> None:
    text = "jaxreg has no 'prox_lasso'; jaxreg.L1(strength).prox(params, step) does it"
    with pytest.raises(AttributeError, match=f"^{re.escape(text)}$"):
        jaxreg.prox_lasso  # noqa: B018  the attribute itself raises


def test_a_name_of_nobody_has_the_message_of_python() -> None:
    assert not set(CALLS) & set(dir(jaxreg))
    with pytest.raises(AttributeError, match="module 'jaxreg' has no attribute 'L3'"):
        jaxreg.L3  # noqa: B018  the attribute itself raises
