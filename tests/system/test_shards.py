"""Blocks on a mesh, and penalties on the parts of leaves in a `shard_map`."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from experiments.kit.transformations import TRANSFORMATIONS, Settings
from jaxreg.rules.by_path import ByPath
from tests.laws.row import Row
from tests.laws.table import prox_rows
from tests.support.children import results_on_eight_devices

# One worker runs the child whose results these tests read.
_IN_ONE_WORKER = pytest.mark.xdist_group("parts of leaves")


def on_a_mesh(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.slow(_IN_ONE_WORKER(test))


DEVICES = 8
SHAPE = (16, 24)
# (block, sharded axis): whether the shards keep every block, or its whole axis, apart.
FITS = {
    ((None, 4), 0): True,
    ((2, 3), 0): True,
    ((None, 3), 1): True,
    ((8, None), 1): True,
    ((4, None), 0): False,
    ((8, 8), 0): False,
    ((None, 4), 1): False,
    ((2, 8), 1): False,
}
PROX = jax.jit(lambda penalty, params, step: penalty.prox(params, step))
SUMS = ("measure", "max_strength", "target_sparsity")


def name_of(case: tuple[Any, int]) -> str:
    return f"blocks of {case[0]}, axis {case[1]}"


def blocks_on_a_mesh(block: Any, axis: int, leaf: Any) -> Any:
    """In the child: all that reshapes a leaf, on a mesh against one device."""
    mesh = jax.make_mesh((DEVICES,), ("x",))
    spec = jax.P(*("x" if place == axis else None for place in range(2)))
    spread = jax.device_put(leaf, jax.NamedSharding(mesh, spec))
    penalty = jaxreg.GroupLasso(0.5, group_axis=jaxreg.Blocks(block))
    half_space = jaxreg.half_space(penalty)

    def everything(x: Any, grad: Any) -> Any:
        is_dead = penalty.layout.is_dead([x])[0]
        return (
            penalty.value(x),
            penalty.prox(x, 0.7),
            penalty.prox(x, 0.5 + 0.1 * grad**2),
            penalty.nearest_latent(x, x, penalty.step_for(0.05)),
            penalty.stationarity(x, grad),
            jnp.where(is_dead, 0, x),
            half_space.update(grad, None, x)[0],
        )

    try:
        compiled = jax.jit(everything).lower(spread, -spread).compile()
    except ValueError as error:
        return {"refused": str(error)}
    found = compiled(spread, -spread)
    expected = jax.jit(everything)(jnp.asarray(leaf), -jnp.asarray(leaf))
    pairs = [
        (np.asarray(one, "f4"), np.asarray(other, "f4"))
        for one, other in zip(found, expected, strict=True)
    ]
    return {
        "off": max(float(np.max(np.abs(one - other))) for one, other in pairs),
        "zeros alike": all(
            np.array_equal(one == 0, other == 0) for one, other in pairs
        ),
        "kept in place": all(
            one.sharding.is_equivalent_to(spread.sharding, 2) for one in found[1:]
        ),
        "gathers": "all-gather" in compiled.as_text(),
    }


def in_a_shard_map(of: str, penalty: Any, leaf: Any, **where: Any) -> Any:
    """In the child: a few updates of parts of a leaf, against those of the whole."""
    mesh = jax.make_mesh((where.get("devices", DEVICES),), ("x",))
    spec, checks = where.get("spec", jax.P("x")), where.get("check_vma", True)
    on_mesh = jax.device_put(leaf, jax.NamedSharding(mesh, spec))

    def updated(params: Any) -> Any:
        if of == "measure":
            return jaxreg.measure(penalty, params)["zeros"]
        if of == "max_strength":
            return jaxreg.max_strength(penalty, params).overall
        if of == "value":
            return penalty.value(params["kernel"])
        row, sgd = TRANSFORMATIONS[of], Settings(0.5, inner=lambda rate: optax.sgd(1.0))
        tx = row.alone(penalty, Settings(end_step=2))
        if of in ("shrink", "project"):
            tx = row.optimizer(penalty, sgd)
        state = tx.init(params)
        for _ in range(2):
            grads = jax.tree.map(lambda x: 0.1 * x - 0.05, params)
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    specs = {"in_specs": spec, "out_specs": spec, "check_vma": checks}
    try:
        mapped = jax.jit(jax.shard_map(updated, mesh=mesh, **specs))
        found = mapped({"kernel": on_mesh})
    except ValueError as error:
        return {"refused": str(error)}
    expected = jax.jit(updated)({"kernel": jnp.asarray(leaf)})
    pairs = zip(*map(jax.tree.leaves, (found, expected)), strict=True)
    pairs = [(np.asarray(one), np.asarray(other)) for one, other in pairs]
    return {"off": max(float(np.max(np.abs(one - other))) for one, other in pairs)}


SEPARABLE = {
    "regularize": jaxreg.L1(0.5),
    "prox_adam": jaxreg.by_path([("kernel", jaxreg.MCP(0.5, knot=2.0))]),
    "shrink": jaxreg.scaled(jaxreg.ElasticNet(0.5, 0.1), 0.5),
    "project": jaxreg.Box(-0.5, 0.5),
    "hold_support": jaxreg.L1(0.5),
    "add_penalty_gradient": jaxreg.nonnegative(jaxreg.L1(0.5)),
    "dual_average": jaxreg.L1(0.5),
    "ftrl": jaxreg.L1(0.5),
}
ROWS_LASSO = jaxreg.GroupLasso(0.5, group_axis=1)
COUPLING = {
    "regularize": ROWS_LASSO,
    "prox_adam": jaxreg.by_path([("kernel", jaxreg.NuclearNorm(0.5))]),
    "shrink": jaxreg.scaled(ROWS_LASSO, 0.5),
    "project": jaxreg.L1Ball(1.0),
    "hold_support": ROWS_LASSO,
    "add_penalty_gradient": jaxreg.HoyerSquare(0.1),
    "dual_average": ROWS_LASSO,
    "ftrl": ROWS_LASSO,
    "value": ROWS_LASSO,
}
WHOLE = {"regularize": ROWS_LASSO, "prox_adam": ROWS_LASSO, "measure": ROWS_LASSO}


@cache
def measured() -> dict[str, Any]:
    """All cases from one child process, which has eight simulated devices."""
    return results_on_eight_devices(__file__)


@on_a_mesh
@pytest.mark.parametrize("case", [c for c in FITS if FITS[c]], ids=name_of)
def test_blocks_that_fit_the_shards_match_one_device(case: Any) -> None:
    found = measured()[name_of(case)]
    # A value of some 200 of float32, summed in another order.
    assert found["off"] <= 1e-4
    assert found["zeros alike"]
    assert found["kept in place"]
    assert not found["gathers"]


@on_a_mesh
@pytest.mark.parametrize("case", [c for c in FITS if not FITS[c]], ids=name_of)
def test_blocks_cut_by_shards_raise_with_axis_and_fix(case: Any) -> None:
    refused = measured()[name_of(case)]["refused"]
    assert "Blocks(shape=" in refused
    assert f"axis {case[1]} of a leaf of shape {SHAPE} is sharded over" in refused
    assert "Choose blocks of which a shard holds a whole number" in refused
    assert "jax.sharding.reshard(leaf, jax.NamedSharding(mesh" in refused


@on_a_mesh
@pytest.mark.parametrize("of", SEPARABLE)
def test_shard_map_parts_of_separable_penalties_match_the_whole(of: str):
    # Units of float32 in numbers below 4.
    assert measured()[f"separable, {of}"]["off"] <= 1e-6


@on_a_mesh
@pytest.mark.parametrize("of", COUPLING)
def test_coupling_penalties_raise_on_parts_in_a_shard_map(of: str) -> None:
    refused = measured()[f"coupling, {of}"]["refused"]
    assert (
        "in this jax.shard_map the leaf, of shape (2, 24), is one device's" in refused
    )
    assert "along mesh axis 'x', and the penalty couples" in refused
    assert "put it under jax.jit" in refused
    if of != "value":
        assert "on leaf 'kernel'" in refused


@on_a_mesh
@pytest.mark.parametrize("of", SUMS)
def test_in_a_shard_map_sums_over_leaves_raise_on_parts(of: str) -> None:
    refused = measured()[f"sums, {of}"]["refused"]
    assert refused.startswith(of)
    assert "is one device's part along mesh axis 'x'" in refused


@on_a_mesh
@pytest.mark.parametrize("of", WHOLE)
def test_in_a_shard_map_groups_of_a_whole_leaf_are_right(of: str) -> None:
    # The same program on one device and on eight.
    assert measured()[f"whole, {of}"]["off"] <= 1e-6


@on_a_mesh
def test_a_shard_map_over_one_device_has_whole_leaves() -> None:
    assert measured()["one device"]["off"] <= 1e-6


@on_a_mesh
def test_check_vma_false_lets_groups_within_parts_through() -> None:
    assert measured()["groups within parts"]["off"] <= 1e-6


@prox_rows
def test_a_penalty_says_whether_its_entries_are_independent(row: Row) -> None:
    found = depends_on_others(row)
    if row.penalty.facts.is_separable:
        assert not found
    elif not row.penalty.facts.is_joint and not isinstance(row.penalty, ByPath):
        assert found


def depends_on_others(row: Row) -> bool:
    """True if entries of a prox move when others do."""
    params = row.params(0, row.shapes)
    # One choice of entries may leave no group with both kinds.
    for seed in range(3):
        rng = np.random.default_rng(seed)
        stays = {name: rng.random(leaf.shape) < 0.5 for name, leaf in params.items()}
        moved = {
            name: np.where(stays[name], leaf, 2 * leaf + 1).astype(leaf.dtype)
            for name, leaf in params.items()
        }
        # A jump penalty only asks on which side a group lies, which the long step
        # changes.
        for step in (0.3, 3.0):
            found = (PROX(row.penalty, tree, step) for tree in (params, moved))
            before, after = (jax.tree.map(np.asarray, tree) for tree in found)
            for name, mask in stays.items():
                if not np.array_equal(before[name][mask], after[name][mask]):
                    return True
    return False


def main() -> None:
    """In the child: every case as one line of JSON."""
    # One program at a time: simulated devices share few threads.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    leaf = np.random.default_rng(0).normal(size=SHAPE).astype("f4")
    leaf[:8, :8] = 0
    found: dict[str, Any] = {
        name_of(case): blocks_on_a_mesh(*case, leaf) for case in FITS
    }
    kinds: dict[str, dict[str, Any]] = {
        "separable": SEPARABLE,
        "coupling": COUPLING,
        "sums": dict.fromkeys(SUMS, jaxreg.L1(0.5)),
    }
    run: Callable[..., Any] = in_a_shard_map
    for kind, ways in kinds.items():
        for of, penalty in ways.items():
            found[f"{kind}, {of}"] = run(of, penalty, leaf)
    for of, penalty in WHOLE.items():
        found[f"whole, {of}"] = run(of, penalty, leaf, spec=jax.P())
    found["one device"] = run("regularize", ROWS_LASSO, leaf, devices=1)
    inside = jaxreg.GroupLasso(0.5, group_axis=0)
    found["groups within parts"] = run("regularize", inside, leaf, check_vma=False)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
