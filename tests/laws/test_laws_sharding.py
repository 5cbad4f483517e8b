"""Every prox on leaves spread over eight devices: it works, or says why not."""

import json
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

import jaxreg
from jaxreg.rules.by_path import ByPath
from tests.laws.row import Row
from tests.laws.table import ROWS
from tests.support.children import results_on_eight_devices

# A minute of compiling for eight devices.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("laws on a mesh")]

DEVICES = 8
SHAPE = (16, 24)


def takes_one_kernel(row: Row) -> bool:
    """True if the penalty acts on a single kernel of any shape."""
    is_of_a_tree = isinstance(row.penalty, ByPath | jaxreg.Hierarchical)
    is_free = not (row.is_bound_to_tree or is_of_a_tree)
    return row.has_prox and is_free and row.penalty.layout.refusal(SHAPE) is None


def whole_axes(penalty: jaxreg.Penalty) -> Sequence[int]:
    return penalty.layout.whole_axes(SHAPE)


KERNEL_ROWS = [row for row in ROWS if takes_one_kernel(row)]


def measure(row: Row, kind: str, axis: int) -> dict[str, Any]:
    """In the child: the prox of a kernel sharded along an axis, against one device."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    # No ties, which would leave the choice of an entry to the order of a sum.
    kernel = row.params(0, {"kernel": SHAPE})["kernel"].astype("f4")
    kernel = kernel + np.linspace(0.1, 0.2, kernel.size).reshape(SHAPE).astype("f4")
    mesh = jax.make_mesh((DEVICES,), ("devices",), (getattr(AxisType, kind),))
    spec = PartitionSpec(*("devices" if place == axis else None for place in range(2)))
    spread = jax.device_put(kernel, NamedSharding(mesh, spec))
    prox = jax.jit(lambda leaf: row.penalty.prox(leaf, 0.7))
    try:
        lowered = prox.lower(spread)
    except ValueError as error:
        return {"refused": str(error)}
    compiled = lowered.compile()
    found, expected = compiled(spread), prox(jnp.asarray(kernel))
    return {
        "off": float(jnp.max(jnp.abs(np.asarray(found) - np.asarray(expected)))),
        "zeros alike": bool(np.all((np.asarray(found) == 0) == (expected == 0))),
        "gathers": "all-gather" in compiled.as_text(),
    }


# Beside the rows, whose leaves are of any shape or are not weighted.
OTHERS = {
    "SLOPE": jaxreg.SLOPE.oscar(1.0, 0.5, size=math.prod(SHAPE)),
    "weighted variation": jaxreg.weighted(jaxreg.TotalVariation(1.0, 0), 2.0),
    "weighted fused lasso": jaxreg.weighted(jaxreg.FusedLasso(1.0, 1.0, 1), 2.0),
}
METHODS = ("value", "subgradient", "stationarity", "init")


def refusals(penalty: jaxreg.Penalty, axis: int) -> dict[str, str]:
    """In the child: the errors of each method under explicit sharding."""
    import jax
    import optax
    from jax.sharding import AxisType, NamedSharding

    mesh = jax.make_mesh((DEVICES,), ("devices",), (AxisType.Explicit,))
    spec = jax.P(*("devices" if place == axis else None for place in range(2)))
    kernel = jax.ShapeDtypeStruct(SHAPE, "f4", sharding=NamedSharding(mesh, spec))
    calls = {
        "value": penalty.value,
        "subgradient": penalty.subgradient,
        "stationarity": lambda leaf: penalty.stationarity(leaf, leaf),
        "init": jaxreg.regularize(optax.sgd(0.1), penalty).init,
    }
    found = {}
    for method, call in calls.items():
        try:
            jax.eval_shape(call, kernel)
        except Exception as error:
            found[method] = str(error)
    return found


@cache
def measured() -> dict[str, Any]:
    """All rows from one child process, which has eight simulated devices."""
    return results_on_eight_devices(__file__)


kernel_rows = pytest.mark.parametrize("row", KERNEL_ROWS, ids=lambda row: row.name)


def rows_and_axes(is_needed_whole: bool) -> Any:
    pairs = [
        pytest.param(row, axis, id=f"{row.name}-{axis}")
        for row in KERNEL_ROWS
        for axis in (0, 1)
        if (axis in whole_axes(row.penalty)) == is_needed_whole
    ]
    return pytest.mark.parametrize(("row", "axis"), pairs)


@rows_and_axes(is_needed_whole=True)
def test_a_sharded_axis_needed_whole_is_named_with_the_fix(row: Row, axis: int) -> None:
    message = measured()[f"{row.name}, Explicit, {axis}"]["refused"]
    assert f"axis {axis} of a leaf of shape {SHAPE} is sharded over mesh" in message
    assert "jax.sharding.reshard(leaf, jax.NamedSharding(mesh" in message


@rows_and_axes(is_needed_whole=False)
def test_under_explicit_sharding_every_other_prox_is_right(row: Row, axis: int) -> None:
    found = measured()[f"{row.name}, Explicit, {axis}"]
    # Sums over devices are made in another order: units of float32 in numbers below 4.
    assert found["off"] <= 5e-6 * row.rounding
    assert found["zeros alike"]
    assert not found["gathers"]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", [*(row.name for row in KERNEL_ROWS), *OTHERS])
def test_methods_take_a_sharded_leaf_or_name_the_fix(name: str, axis: int) -> None:
    for message in measured()[f"{name}, methods, {axis}"].values():
        assert f"axis {axis} of a leaf of shape {SHAPE} is sharded over mesh" in message
        assert "jax.sharding.reshard(leaf, jax.NamedSharding(mesh" in message


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("method", METHODS)
def test_a_sorted_leaf_is_needed_whole(method: str, axis: int) -> None:
    assert method in measured()[f"SLOPE, methods, {axis}"]


@pytest.mark.parametrize(("name", "axis"), [("variation", 1), ("fused lasso", 0)])
def test_the_value_takes_whole_lines_on_any_device(name: str, axis: int) -> None:
    # Lines along the other axis.
    found = measured()[f"weighted {name}, methods, {axis}"]
    assert {"value", "subgradient"}.isdisjoint(found)


@kernel_rows
@pytest.mark.parametrize("axis", [0, 1])
def test_under_automatic_sharding_every_prox_is_right(row: Row, axis: int) -> None:
    found = measured()[f"{row.name}, Auto, {axis}"]
    # As above.
    assert found["off"] <= 5e-6 * row.rounding
    assert found["zeros alike"]


def test_the_fix_that_the_error_names_works() -> None:
    found = measured()["mend"]
    assert found["off"] <= 1e-6


def mended() -> dict[str, Any]:
    """In the child: the prox of a kernel that was gathered first, as the error says."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import NamedSharding

    mesh = jax.make_mesh((DEVICES,), ("devices",))
    kernel = np.random.default_rng(0).normal(size=SHAPE).astype("f4")
    spread = jax.device_put(kernel, NamedSharding(mesh, jax.P("devices")))
    penalty = jaxreg.NuclearNorm(0.5)
    whole = NamedSharding(mesh, jax.P())
    prox = jax.jit(lambda x: penalty.prox(jax.sharding.reshard(x, whole), 1.0))
    found = prox(spread)
    expected = penalty.prox(jnp.asarray(kernel), 1.0)
    return {"off": float(np.max(np.abs(np.asarray(found) - np.asarray(expected))))}


if __name__ == "__main__":
    results = {
        f"{row.name}, {kind}, {axis}": measure(row, kind, axis)
        for row in KERNEL_ROWS
        for kind in ("Auto", "Explicit")
        for axis in (0, 1)
    }
    penalties = {row.name: row.penalty for row in KERNEL_ROWS} | OTHERS
    results |= {
        f"{name}, methods, {axis}": refusals(penalty, axis)
        for name, penalty in penalties.items()
        for axis in (0, 1)
    }
    print(json.dumps(results | {"mend": mended()}))
