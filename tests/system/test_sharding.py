"""`regularize` on params that are spread over several devices."""

import json
from functools import cache
from typing import Any

import pytest

from tests.support.children import results_on_eight_devices

# One worker runs the child whose results all tests read.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("regularize on a mesh")]

# (mesh size, shape, sharded axis, penalty); the penalty samples its longest axis.
CASES = {
    f"{penalty}, axis {axis} of {shape} over {size}": (size, shape, axis, penalty)
    for size, shape, axis, penalty in [
        (8, (48, 16), 0, "L1"),
        (8, (48, 16), 1, "L1"),
        (8, (48, 16), 0, "rows"),
        (8, (48, 16), 1, "rows"),
        (8, (48, 16), 0, "columns"),
        (2, (48, 16), 0, "rows"),
        (8, (3072, 96), 0, "rows"),
    ]
}
# Leaves large enough to be sampled, on meshes that do not divide the usual 16 slices.
UNEVEN = {
    f"{penalty}, axis 0 of (3072, 96) over {size}": (size, (3072, 96), 0, penalty)
    for size, penalty in [(3, "rows"), (6, "L1")]
}


def measure(kind: str, size: int, shape: Any, axis: int, penalty: str) -> Any:
    """In the child: how far two steps on a mesh are from two on one device."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    import jaxreg

    one = {
        "L1": jaxreg.L1(0.3),
        "rows": jaxreg.GroupLasso(0.3, group_axis=0),
        "columns": jaxreg.GroupLasso(0.3, group_axis=1),
    }[penalty]
    tx = jaxreg.regularize(optax.adam(1e-2), one)
    types = (getattr(AxisType, kind),)
    mesh = jax.make_mesh((size,), ("x",), types, devices=jax.devices()[:size])
    spec = PartitionSpec(*("x" if place == axis else None for place in range(2)))
    target = np.random.default_rng(0).normal(size=shape).astype("f4")
    start = jnp.asarray(target).at[:2].set(0.0).at[:, :2].set(0.0)
    on_mesh = jax.device_put(start, NamedSharding(mesh, spec))

    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(0.1 * params - 0.05, state, params)
        return optax.apply_updates(params, updates), state

    def run(params: Any) -> Any:
        first = state = tx.init(params)
        compiled = jax.jit(step).lower(params, state).compile()
        for _ in range(2):
            params, state = compiled(params, state)
        # Loaded weights restart their latent, on a mesh as on one device.
        params, state = compiled(2 * params, state)
        return params, state, first, compiled.as_text()

    try:
        found = run(on_mesh)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return compare(found, run(start), on_mesh)


def compare(found: Any, wanted: Any, on_mesh: Any) -> Any:
    """In the child: what `measure` found on a mesh against one device."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    params, state, first, text = found
    expected, expected_state, *_ = wanted

    def is_like_params(leaf: Any) -> bool:
        return leaf.sharding.is_equivalent_to(on_mesh.sharding, 2)

    arrays = [params, first.latent, state.latent]
    arrays += [leaf for leaf in jax.tree.leaves(state) if leaf.ndim == 2]
    return {
        "off": float(jnp.max(jnp.abs(np.asarray(params) - np.asarray(expected)))),
        "latent off": float(
            np.max(np.abs(np.asarray(state.latent) - expected_state.latent))
        ),
        "zeros alike": bool(np.all((np.asarray(params) == 0) == (expected == 0))),
        "sharded alike": all(map(is_like_params, arrays)),
        "gathers": "all-gather" in text,
    }


@cache
def measured() -> Any:
    """All cases from one child process, which has eight simulated devices."""
    return results_on_eight_devices(__file__)


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
@pytest.mark.parametrize("case", [*CASES, *UNEVEN])
def test_a_mesh_gives_the_numbers_and_the_zeros_of_one_device(
    kind: str, case: str
) -> None:
    found = measured()[f"{kind}: {case}"]
    assert "error" not in found, found["error"]
    # Group norms are summed in another order: a few units of float32 in numbers
    # below 8. Adam's first steps have the size of its rate whatever the gradient: of
    # the large leaf's 294,912 entries one has a gradient that is rounding error itself.
    limit = 1e-4 if "3072" in case else 5e-6
    assert found["off"] <= limit
    assert found["latent off"] <= limit
    assert found["zeros alike"]


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
@pytest.mark.parametrize("case", [*CASES, *UNEVEN])
def test_the_state_is_sharded_like_the_params_without_gathers(
    kind: str, case: str
) -> None:
    found = measured()[f"{kind}: {case}"]
    assert "error" not in found, found["error"]
    assert found["sharded alike"]
    assert not found["gathers"]


if __name__ == "__main__":
    rows = {
        f"{kind}: {name}": measure(kind, *case)
        for kind in ("Auto", "Explicit")
        for name, case in {**CASES, **UNEVEN}.items()
    }
    print(json.dumps(rows))
