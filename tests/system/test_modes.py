"""Every transformation under JAX's debugging flags, and what is made of its state.

One run is eager, under flags that stop at what they find; the other is one program with
all that a user may do to it. Both end in the same parameters.
"""

import copy
import doctest
import importlib
import itertools
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax import export

import jaxreg
from experiments.kit.transformations import TRANSFORMATIONS, Settings
from tests.laws.table import ROWS
from tests.support.training import make_step
from tests.support.trees import assert_equal
from tests.system.test_documents import MODULES

STEPS = 2
KERNEL = np.random.default_rng(0).normal(size=(3, 2)).astype("f4")


def optimizer(way: str) -> optax.GradientTransformation:
    row = TRANSFORMATIONS[way]
    rules = jaxreg.by_path([("kernel|empty", row.example_penalty(0.1))])
    return row.optimizer(rules, Settings(end_step=STEPS))


def start() -> Any:
    """A free leaf, and penalised ones: without entries, and with a row of zeros."""
    return {
        "bias": jnp.ones(2),
        "empty": jnp.zeros((0, 2)),
        "kernel": jnp.asarray(KERNEL).at[0].set(0),
    }


def grads_of(params: Any) -> Any:
    return jax.tree.map(lambda leaf: 0.3 * leaf + 0.1, params)


# One way of each family; CI runs all.
_FAMILIES = {row.family: row.name for row in reversed(TRANSFORMATIONS.values())}
every_way = pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=[] if way in _FAMILIES.values() else pytest.mark.slow)
        for way in TRANSFORMATIONS
    ],
)


def run(step: Callable[..., Any], params: Any, state: Any) -> Any:
    for _ in range(STEPS):
        params, state = step(params, state)
    return params, state


def assert_close(left: Any, right: Any) -> None:
    # Two programs for one formula: XLA may fuse a product and a sum in one of them.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 3e-6, 3e-7), left, right)


@every_way
def test_an_eager_run_under_flags_equals_a_donating_program(way: str) -> None:
    tx = optimizer(way)
    step = make_step(tx, grads_of)
    with (
        jax.disable_jit(),
        jax.debug_nans(True),
        jax.numpy_rank_promotion("raise"),
    ):
        expected = run(step, start(), tx.init(start()))
    program = jax.jit(jax.checkpoint(step), donate_argnums=(0, 1))
    params, state = start(), tx.init(start())
    donated = jax.tree.leaves(params)
    assert_close(run(program, params, state), expected)
    assert all(leaf.is_deleted() for leaf in donated if leaf.size)


def exported(ways: Iterable[str]) -> Any:
    """A step of these ways, from leaves to leaves, read from what was written.

    Leaves alone, since Optax registers none of its states for serialization.
    """
    pytest.importorskip("flatbuffers", reason="jax.export writes with flatbuffers")
    steps = {way: make_step(optimizer(way), grads_of) for way in ways}
    starts = {way: (start(), optimizer(way).init(start())) for way in ways}
    leaves, treedef = jax.tree.flatten(starts)

    @jax.jit
    def flat_step(*leaves: Any) -> Any:
        trees = treedef.unflatten(leaves)
        return jax.tree.leaves({way: step(*trees[way]) for way, step in steps.items()})

    written = export.export(flat_step)(*leaves).serialize()
    return export.deserialize(written), leaves


def test_an_exported_step_gives_what_the_step_gives() -> None:
    program, leaves = exported(["regularize"])
    step = make_step(optimizer("regularize"), grads_of)
    params, state = start(), optimizer("regularize").init(start())
    assert_close(program.call(*leaves), jax.tree.leaves(step(params, state)))


@pytest.mark.slow
def test_an_exported_step_of_every_way_keeps_its_types() -> None:
    program, leaves = exported(TRANSFORMATIONS)
    types = [(x.shape, x.dtype) for x in leaves]
    assert [(x.shape, x.dtype) for x in program.out_avals] == types


def with_flax(state: Any, like: Any, folder: Path) -> Any:
    return flax.serialization.from_bytes(like, flax.serialization.to_bytes(state))


def with_equinox(state: Any, like: Any, folder: Path) -> Any:
    eqx.tree_serialise_leaves(folder / "state.eqx", state)
    return eqx.tree_deserialise_leaves(folder / "state.eqx", like)


def with_orbax(state: Any, like: Any, folder: Path) -> Any:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "state", like)


ROUND_TRIPS: dict[str, Callable[[Any, Any, Path], Any]] = {
    "pickle": lambda state, like, folder: pickle.loads(pickle.dumps(state)),
    "deepcopy": lambda state, like, folder: copy.deepcopy(state),
    "flax": with_flax,
    "equinox": with_equinox,
    "orbax": with_orbax,
}


@pytest.mark.parametrize("round_trip", ROUND_TRIPS)
def test_states_of_all_ways_survive(round_trip: str, tmp_path: Path) -> None:
    # Orbax saves no leaf without entries.
    params = {name: leaf for name, leaf in start().items() if leaf.size}
    like = {way: optimizer(way).init(params) for way in TRANSFORMATIONS}
    counter = itertools.count(1)
    state = jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, next(counter) % 100, leaf.dtype), like
    )
    found = ROUND_TRIPS[round_trip](state, like, tmp_path)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert_equal(found, state)
    dtypes = [[leaf.dtype for leaf in jax.tree.leaves(x)] for x in (found, state)]
    assert dtypes[0] == dtypes[1]


def test_penalties_of_the_whole_table_survive_pickle() -> None:
    for row in ROWS:
        assert pickle.loads(pickle.dumps(row.penalty)) == row.penalty, row.name


class AnyOutput(doctest.OutputChecker):
    """Takes any output: in x64 numbers have other dtypes."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return True


# The transformations are above, and the penalties in tests/laws.
FOLDERS = tuple(
    f"jaxreg.{folder}."
    for folder in ("calculus", "model_selection", "reports", "rules")
)


@pytest.mark.release
@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith(FOLDERS)])
def test_examples_run_eagerly_under_flags_and_in_x64(module: str) -> None:
    runner = doctest.DocTestRunner(AnyOutput(), verbose=False)
    examples = doctest.DocTestFinder().find(importlib.import_module(module))
    with (
        jax.disable_jit(),
        jax.debug_nans(True),
        jax.numpy_rank_promotion("raise"),
        jax.enable_x64(True),
    ):
        for example in examples:
            assert runner.run(example).failed == 0, example.name
