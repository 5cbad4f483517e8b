"""Coupled units whose leaves are sharded along different axes, on eight devices."""

import json
from functools import cache
from typing import Any

import pytest

from tests.support.children import results_on_eight_devices

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("coupled units on a mesh")]

# The kind of mesh, and the axis of each leaf that is sharded; None for whole leaves.
CASES = {
    "units, Explicit": ("Explicit", {"bias": 0, "kernel": 1, "dense": 0}),
    "entries, Explicit": ("Explicit", {"bias": None, "kernel": 0, "dense": 1}),
    "both, Auto": ("Auto", {"bias": None, "kernel": 0, "dense": 0}),
}


def measure(kind: str, axes: dict[str, int | None]) -> Any:
    """In the child: steps on a mesh against those on one device."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    import jaxreg
    from jaxreg.compaction.coupled import Coupled, Slices, Units

    # Two positions of each channel in the rows of "dense", as behind a flattening.
    units = Units(
        8,
        (
            Slices("bias", 0, 8),
            Slices("dense", 0, 16, tuple(range(8)) * 2),
            Slices("kernel", 1, 8),
        ),
        entries=1 + 2 * 8 + 16,
    )
    penalty = Coupled(jaxreg.L1(0.3), units)
    shapes = {"bias": (8,), "kernel": (16, 8), "dense": (16, 8)}
    random = np.random.default_rng(0)
    params = {name: random.normal(size=s).astype("f4") for name, s in shapes.items()}
    mesh = jax.make_mesh((8,), ("x",), (getattr(AxisType, kind),))

    def placed(name: str, leaf: Any) -> Any:
        spec = ["x" if axis == axes[name] else None for axis in range(leaf.ndim)]
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))

    tx = jaxreg.target_sparsity(optax.sgd(0.02), penalty, 0.5, end_step=6)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        grads = jax.tree.map(lambda x: 0.1 * x, params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def run(params: Any) -> Any:
        state = tx.init(params)
        for _ in range(8):
            params, state = step(params, state)
        pulls = jax.tree.map(lambda x: 0.2 * x, params)
        methods = jax.jit(lambda x, g: (penalty.value(x), penalty.stationarity(x, g)))
        return params, state.regularize.latent, methods(params, pulls)

    on_mesh = {name: placed(name, leaf) for name, leaf in params.items()}
    try:
        found = run(on_mesh)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    pairs = list(zip(*map(jax.tree.leaves, (found, run(params))), strict=True))
    return {
        "off": max(float(np.max(np.abs(np.asarray(x) - y))) for x, y in pairs),
        "zeros alike": all(
            bool(np.all((np.asarray(x) == 0) == (np.asarray(y) == 0))) for x, y in pairs
        ),
        "dead": int(jnp.sum(np.asarray(found[0]["bias"]) == 0)),
        "sharded alike": all(
            found[0][name].sharding.is_equivalent_to(leaf.sharding, leaf.ndim)
            for name, leaf in on_mesh.items()
        ),
    }


@cache
def measured() -> Any:
    return results_on_eight_devices(__file__)


@pytest.mark.parametrize("case", CASES)
def test_a_mesh_gives_the_numbers_and_zeros_of_one_device(case: str) -> None:
    found = measured()[case]
    assert "error" not in found, found["error"]
    # Norms are summed in another order: units of float32 in numbers below 4.
    assert found["off"] <= 5e-6
    assert found["zeros alike"] and found["dead"] == 4
    assert found["sharded alike"]


if __name__ == "__main__":
    print(json.dumps({name: measure(*case) for name, case in CASES.items()}))
