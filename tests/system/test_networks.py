"""One rule list on a network of Flax NNX and on the same network of Linen."""

import functools
from typing import Any

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support import networks
from tests.support.networks import NETWORKS, Run

STEPS = 150
FRAMEWORKS = ("nnx", "linen")
# CI trains these, a release all.
IN_CI = {("mlp", "nnx"), ("transformer", "nnx")}


def optimizer_of(name: str) -> Any:
    rules = NETWORKS[name].penalty
    return jaxreg.regularize(optax.adam(1e-2), rules, width=0.02)


@functools.cache
def trained(name: str, framework: str) -> Run:
    """By the framework's own optimizer; what several tests look at."""
    tx = optimizer_of(name)
    return networks.train_by_framework(NETWORKS[name], framework, tx, STEPS)


def case(name: str, framework: str) -> Any:
    group = pytest.mark.xdist_group(f"{name} {framework}")
    time = pytest.mark.slow if (name, framework) in IN_CI else pytest.mark.release
    return pytest.param(name, framework, marks=[group, time], id=f"{name}-{framework}")


every_network = pytest.mark.parametrize("name", NETWORKS)
every_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
every_case = pytest.mark.parametrize(
    ("name", "framework"), [case(n, kind) for n in NETWORKS for kind in FRAMEWORKS]
)


def shapes_of(name: str, framework: str) -> Any:
    network = NETWORKS[name]
    if framework == "nnx":
        abstract = nnx.eval_shape(lambda: network.in_nnx(nnx.Rngs(0)))
        return nnx.to_pure_dict(nnx.state(abstract, nnx.Param))
    key = jax.random.key(0)
    return jax.eval_shape(network.in_linen.init, key, network.inputs)["params"]


def plain_path(path: str) -> str:
    return path.replace("blocks_", "blocks/")


@every_network
@every_framework
def test_one_rule_list_makes_equal_groups_in_both_frameworks(
    name: str, framework: str
) -> None:
    network = NETWORKS[name]
    table = jaxreg.describe(network.penalty, shapes_of(name, framework))
    found = {
        plain_path(row["leaf"]): row["groups"]
        for row in table.rows
        if row["penalty"] != "free"
    }
    assert found == network.groups


@every_case
def test_training_lowers_the_loss(name: str, framework: str) -> None:
    losses = trained(name, framework).losses
    assert losses[-1] < 0.25 * losses[0]


@every_case
def test_zeros_are_exact_where_rules_act_and_nowhere_else(
    name: str, framework: str
) -> None:
    penalised = NETWORKS[name].groups
    zeros = {
        path: np.mean(leaf == 0)
        for path, leaf in trained(name, framework).params.items()
    }
    assert {path for path, share in zeros.items() if share} <= set(penalised)
    assert np.mean([zeros[path] for path in penalised]) > 0.05


@every_case
def test_groups_are_zero_whole_or_not_at_all(name: str, framework: str) -> None:
    params = trained(name, framework).params
    owners = {
        plain_path(row["leaf"]): row["penalty"]
        for row in jaxreg.describe(
            NETWORKS[name].penalty, shapes_of(name, framework)
        ).rows
    }
    dead = 0
    for path, count in NETWORKS[name].groups.items():
        if count is not None:
            leaf = jnp.asarray(params[path])
            gone = int(owners[path].layout.dead_in_leaves([leaf])[0])
            assert np.sum(leaf == 0) == gone * leaf.size // count, path
            dead += gone
    assert dead > 0


@every_case
def test_a_plain_loop_gives_the_numbers_of_the_framework(
    name: str, framework: str
) -> None:
    # Later some groups are at the edge of dying, and one rounding decides which lives.
    network, tx, steps = NETWORKS[name], optimizer_of(name), 40
    ours = networks.train_by_framework(network, framework, tx, steps)
    plain = networks.train_plainly(network, framework, tx, steps)
    for one, other in zip(ours[:2], plain[:2], strict=True):
        assert one.keys() == other.keys()
        for path, leaf in one.items():
            if path.endswith("key/bias"):
                continue  # softmax hides it: adam takes steps by its rounding
            # Two programs add in other orders; adam divides small gradients by their
            # own size, which carries a rounding from step to step.
            np.testing.assert_allclose(leaf, other[path], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.losses, plain.losses, rtol=1e-4, atol=1e-5)


@every_framework
@pytest.mark.slow
def test_the_penalty_moves_no_bias_scale_or_statistic(framework: str) -> None:
    # Without a gradient of the loss only the penalty can move a leaf. The whole
    # variables are handed over, statistics included.
    params, rest, _ = networks.pieces(NETWORKS["conv net"], framework)
    rest = nnx.to_pure_dict(rest) if framework == "nnx" else rest
    everything = jax.tree.map(lambda leaf: leaf + 1.0, {"params": params, "rest": rest})
    tx = jaxreg.regularize(optax.sgd(1e-2), jaxreg.on_kernels(jaxreg.L1(0.5)))
    grads = jax.tree.map(jnp.zeros_like, everything)
    updates, _ = jax.jit(tx.update)(grads, tx.init(everything), everything)
    for path, move in networks.by_path_of(updates).items():
        is_moved = path.endswith("/kernel")
        assert np.all((move != 0) == is_moved), path


@pytest.mark.slow
def test_embedding_rows_of_words_that_never_occur_become_zero() -> None:
    table = trained("transformer", "nnx").params["embed/embedding"]
    dead = np.all(table == 0, axis=1)
    assert dead[: networks.UNUSED].all()
    assert not dead[networks.UNUSED :].any()
