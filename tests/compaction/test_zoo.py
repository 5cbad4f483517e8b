"""Laws of compact on many architectures: sound on fresh inputs, and complete."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg
from jaxreg.states import Compaction
from tests.compaction.zoo import ZOO, Draw, Model, killed, redraw

WAYS = ["readers", "makers", "entries"]
# Every loop over layers has units that go, units that stay, and a stream.
FAST = {"scan_stack"}
BY_NAME = [
    pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow])
    for name in sorted(ZOO)
]


def gap(reference: Any, output: Any) -> float:
    largest = max(float(jnp.max(jnp.abs(reference))), 1e-30)
    return float(jnp.max(jnp.abs(reference - output))) / largest


def compacted(model: Model, params: Any) -> Compaction:
    return jaxreg.compact(model.couplings, params, *model.inputs)


def check_sound(model: Model, params: Any, small: Compaction, tolerance: float) -> None:
    """The smaller model on inputs that compact has not seen."""
    inputs = redraw(model.inputs, seed=7)
    with jax.default_matmul_precision("highest"):
        reference = jax.jit(model.apply)(params, *inputs)
        output = small.apply(small.params, *inputs)
    assert gap(reference, output) <= tolerance


def removed(small: Compaction) -> list[int]:
    return [row["before"] - row["after"] for row in small.rows]


@pytest.mark.parametrize("name", BY_NAME)
def test_a_model_stays_the_same_function_on_fresh_inputs(name: str) -> None:
    model = ZOO[name]()
    units = model.couplings
    for way in WAYS:
        params, dead = killed(units, model.params, way)
        small = compacted(model, params)
        check_sound(model, params, small, 1e-5)
        for dimension, off, count in zip(
            units.removable, dead, removed(small), strict=True
        ):
            reads = any(member.is_contracted for member in dimension.members)
            if way == "readers" and reads:
                # Layers of a stack lose the same units here.
                assert count >= off.sum(), dimension


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp_sigmoid", "resnet", "rope_llama", "lstm"])
def test_a_model_in_bfloat16_stays_within_its_rounding(name: str) -> None:
    model = ZOO[name]().in_dtype("bfloat16")
    params, dead = killed(model.couplings, model.params, "readers")
    small = compacted(model, params)
    # Units of rounding of bfloat16 are 2^-8.
    check_sound(model, params, small, 16 * 2**-8)
    assert sum(removed(small)) >= 1 or not sum(off.sum() for off in dead)
    for leaf in jax.tree.leaves(small.params):
        assert leaf.dtype == jnp.bfloat16


def test_compacting_a_compact_model_removes_nothing() -> None:
    model = ZOO["scan_stack"]()
    params, _ = killed(model.couplings, model.params, "makers")
    small = compacted(model, params)
    assert sum(removed(small)) > 0
    again = jaxreg.compact(small.couplings, small.params, *model.inputs)
    assert sum(removed(again)) == 0
    for old, new in zip(
        *map(jax.tree.leaves, (small.params, again.params)), strict=True
    ):
        assert np.array_equal(old, new)


@pytest.mark.slow
def test_permuted_units_are_kept_in_their_new_order() -> None:
    model = ZOO["mlp_relu"]()
    params, _ = killed(model.couplings, model.params, "readers")
    order = np.random.default_rng(3).permutation(8)
    permuted = params | {
        "w1": params["w1"][:, order],
        "b1": params["b1"][order],
        "w2": params["w2"][order],
    }
    first, second = compacted(model, params), compacted(model, permuted)
    axis = first.kept["w1"][1]
    assert len(axis) < 8
    assert sorted(order[i] for i in second.kept["w1"][1]) == axis
    check_sound(model, params, second, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp_relu", "glu_gate"])
def test_a_unit_stays_just_if_its_loss_changes_something(name: str) -> None:
    model = ZOO[name]()
    params, _ = killed(model.couplings, model.params, "makers", seed=2)
    kept = compacted(model, params).kept
    x = Draw(9).x(64, 5)
    reference = model.apply(params, x)
    (first, *_) = model.couplings.removable
    (reader,) = [member for member in first.members if member.is_contracted]
    (indices,) = {tuple(kept[m.path][m.axis]) for m in first.members}
    for unit in range(first.size):
        without = params[reader.path].at[unit].set(0.0)
        output = model.apply(params | {reader.path: without}, x)
        assert (gap(reference, output) > 0) == (unit in indices)
