"""Compaction of a model whose leaves lie on several devices."""

import json
from typing import Any

import pytest

from tests.support.children import results_on_eight_devices

pytestmark = pytest.mark.slow


def measure() -> dict[str, Any]:
    """In the child: what compact keeps of a model on one device and on eight."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    import jaxreg
    from tests.compaction.zoo import Draw

    def apply(params: Any, x: Any) -> Any:
        h = jax.nn.relu(x @ params["a"] + params["b"])
        return jax.nn.relu(h @ params["c"]) @ params["d"]

    draw = Draw()
    # 24 of 40 units of the first layer stay, which eight devices divide, and 15 of 16.
    params = {
        "a": draw(16, 40),
        "b": draw(40),
        "c": draw(40, 16).at[:16].set(0.0),
        "d": draw(16, 8).at[3].set(0.0),
    }
    x = draw.x(8, 16)
    mesh = jax.make_mesh((8,), ("x",), (AxisType.Auto,))
    specs = {"a": (None, "x"), "b": ("x",), "c": ("x",), "d": ("x",)}
    on_mesh = {
        name: jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*specs[name])))
        for name, leaf in params.items()
    }
    kept, out = [], {}
    for tree in (params, on_mesh):
        units = jaxreg.couplings(apply, tree, x)
        small = jaxreg.compact(units, tree, x)
        kept.append(small.kept)
        out["gap"] = small.gap
    out["same"] = kept[0] == kept[1]
    out["sizes"] = {name: list(leaf.shape) for name, leaf in small.params.items()}
    out["specs"] = {
        name: [axis for axis in leaf.sharding.spec if axis]
        for name, leaf in small.params.items()
    }
    out["devices"] = [len(leaf.devices()) for leaf in jax.tree.leaves(small.params)]
    out["explicit"] = _on_an_explicit_mesh(params, x)
    out["first"] = bool(jnp.all(small.params["a"] == params["a"][:, 16:]))
    return out


def _on_an_explicit_mesh(params: Any, x: Any) -> list[list[int]]:
    """The shapes of a smaller layer where shardings are a part of types."""
    import jax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    import jaxreg

    mesh = jax.make_mesh((4, 2), ("batch", "x"), (AxisType.Explicit,) * 2)
    specs = {"a": (None, "x"), "b": ("x",), "c": ("x",)}

    def put(leaf: Any, *spec: str | None) -> Any:
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))

    def apply(params: Any, x: Any) -> Any:
        h = jax.nn.relu(x @ params["a"] + params["b"])
        rows = NamedSharding(mesh, PartitionSpec("batch"))
        return jax.numpy.einsum("bh,hc->bc", h, params["c"], out_sharding=rows)

    with jax.set_mesh(mesh):
        layer = {name: put(params[name], *spec) for name, spec in specs.items()}
        inputs = put(x, "batch")
        small = jaxreg.compact(jaxreg.couplings(apply, layer, inputs), layer, inputs)
        assert small.check(apply, inputs) < 1e-5
    return [list(leaf.shape) for leaf in small.params.values()]


def test_sharded_leaves_lose_the_same_units_and_stay_sharded() -> None:
    out = results_on_eight_devices(__file__)
    assert out["same"] and out["first"] and out["gap"] < 1e-5
    assert out["sizes"] == {"a": [16, 24], "b": [24], "c": [24, 15], "d": [15, 8]}
    assert out["explicit"] == [[16, 24], [24], [24, 16]]
    assert out["devices"] == [8, 8, 8, 8]
    # 15 rows do not divide by eight: that leaf lies on every device.
    assert out["specs"] == {"a": ["x"], "b": ["x"], "c": ["x"], "d": []}


if __name__ == "__main__":
    print(json.dumps(measure()))
