"""A changed penalty between a save and the restore: training resumes, or raises."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import jaxreg
from tests.support.training import train

GOAL = np.random.default_rng(0).normal(size=(6, 4)).astype("f4")
RATE = 0.05


def start() -> Any:
    return {"kernel": jnp.asarray(GOAL[::-1]), "bias": jnp.ones(4)}


def pull(params: Any) -> Any:
    """The gradient of half the squared distance to the goal."""
    return {"kernel": params["kernel"] - GOAL, "bias": params["bias"]}


def frozen(penalty: Any) -> Any:
    return jaxreg.regularize(optax.sgd(0.0), penalty)


def moving(penalty: Any) -> Any:
    return jaxreg.regularize(optax.sgd(RATE), penalty)


def trained(tx: Any, params: Any, state: Any, steps: int = 60) -> Any:
    return train(tx, pull, params, steps, state)


def saved(folder: Path, tx: Any) -> None:
    """The checkpoint of some steps with a transformation."""
    params, state = trained(tx, start(), tx.init(start()))
    with ocp.CheckpointManager(folder) as manager:
        manager.save(1, args=ocp.args.StandardSave({"params": params, "state": state}))


def restored(folder: Path, tx: Any) -> Any:
    """The checkpoint as this transformation, perhaps another one, sees it."""
    params = jax.eval_shape(start)
    target = {"params": params, "state": jax.eval_shape(tx.init, params)}
    with ocp.CheckpointManager(folder) as manager:
        found = manager.restore(1, args=ocp.args.StandardRestore(target))
    assert jax.tree.structure(found) == jax.tree.structure(target)
    return found["params"], found["state"]


def kernels(penalty: Any) -> Any:
    return jaxreg.by_path([("kernel$", penalty)])


CHANGES = {
    "L1": (jaxreg.L1(0.2), jaxreg.L1(0.6)),
    "rows": tuple(jaxreg.GroupLasso(s, group_axis=0) for s in (0.2, 0.6)),
    "L2": (jaxreg.L2(0.2), jaxreg.L2(0.6)),
    "MCP": tuple(jaxreg.MCP(s, 2.0) for s in (0.2, 0.4)),
    "ElasticNet": (jaxreg.ElasticNet(0.2, 0.5), jaxreg.ElasticNet(0.6, 0.1)),
    "entries, then rows": (jaxreg.L1(0.2), jaxreg.GroupLasso(0.6, group_axis=0)),
    "rows, then columns": tuple(
        jaxreg.GroupLasso(0.4, group_axis=axis) for axis in (0, 1)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_penalty_resumes_from_the_restored_params(
    change: str, tmp_path: Path
) -> None:
    before, after = map(kernels, CHANGES[change])
    saved(tmp_path, moving(before))
    params, state = restored(tmp_path, moving(after))
    # At a rate of 0 the update moves nothing but what a jump would.
    still, _ = trained(frozen(after), params, state, steps=1)
    # The prox of a latent returns its params to eps of their size and of the width.
    jax.tree.map(
        lambda old, new: np.testing.assert_allclose(old, new, rtol=0, atol=2e-6),
        still,
        params,
    )
    last, _ = trained(moving(after), params, state, steps=1500)
    expected = after.prox({"kernel": GOAL, "bias": jnp.zeros(4)}, 1.0)["kernel"]
    np.testing.assert_allclose(last["kernel"], expected, atol=1e-5)
    np.testing.assert_array_equal(last["kernel"] == 0, expected == 0)


@pytest.mark.parametrize("change", ["L1", "rows", "L2", "MCP"])
def test_another_strength_keeps_every_latent(change: str, tmp_path: Path) -> None:
    before, after = map(kernels, CHANGES[change])
    saved(tmp_path, moving(before))
    params, state = restored(tmp_path, frozen(after))
    _, gone_on = trained(frozen(after), params, state, steps=1)
    np.testing.assert_array_equal(gone_on.latent["kernel"], state.latent["kernel"])


def test_a_leaf_that_becomes_free_is_trained_on(tmp_path: Path) -> None:
    both = jaxreg.by_path([("kernel|bias", jaxreg.L1(0.2))])
    saved(tmp_path, moving(both))
    tx = moving(jaxreg.by_path([("bias", jaxreg.L1(0.2))]))
    params, state = restored(tmp_path, tx)
    last, _ = trained(tx, params, state, steps=600)
    np.testing.assert_allclose(last["kernel"], GOAL, atol=1e-5)


def test_a_leaf_that_becomes_penalised_raises_by_its_path(tmp_path: Path) -> None:
    saved(tmp_path, moving(kernels(jaxreg.L1(0.2))))
    tx = moving(jaxreg.by_path([("kernel|bias", jaxreg.L1(0.2))]))
    path = r"\('state', 'latent', 'bias'\) not found"
    with pytest.raises(ValueError, match=path):
        restored(tmp_path, tx)
    # The fix in the documentation: restore the parameters with the old penalty.
    params, _ = restored(tmp_path, moving(kernels(jaxreg.L1(0.2))))
    last, _ = trained(tx, params, tx.init(params), steps=600)
    np.testing.assert_array_equal(last["bias"], 0)


OTHERS = {
    "shrink": lambda p: optax.chain(optax.sgd(RATE), jaxreg.shrink(p, RATE)),
    "prox_adam": lambda p: jaxreg.prox_adam(RATE, p),
    "dual_average": lambda p: jaxreg.dual_average(RATE, p),
    "ftrl": lambda p: jaxreg.ftrl(RATE, p),
    "add_penalty_gradient": lambda p: optax.chain(
        jaxreg.add_penalty_gradient(p), optax.sgd(RATE)
    ),
    "hold_support": lambda p: optax.chain(optax.sgd(RATE), jaxreg.hold_support(p)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_state_without_arrays_per_leaf_takes_any_rules(
    name: str, tmp_path: Path
) -> None:
    saved(tmp_path, OTHERS[name](kernels(jaxreg.L1(0.2))))
    rules = jaxreg.by_path(
        [("kernel", jaxreg.GroupLasso(0.2, group_axis=0)), ("bias", jaxreg.L1(0.1))]
    )
    tx = OTHERS[name](rules)
    params, state = restored(tmp_path, tx)
    last, _ = trained(tx, params, state)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(last))


def test_without_a_target_orbax_forgets_what_the_nodes_were(tmp_path: Path) -> None:
    tx = moving(kernels(jaxreg.L1(0.2)))
    saved(tmp_path, tx)
    with ocp.CheckpointManager(tmp_path) as manager:
        found = manager.restore(1, args=ocp.args.StandardRestore())
    assert isinstance(found["state"], dict)
    assert found["state"]["latent"]["bias"] is None
    with pytest.raises(TypeError, match="state is of type dict; allowed"):
        tx.update(found["params"], found["state"], found["params"])
