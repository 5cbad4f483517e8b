"""Matrix penalties on a leaf that is spread over several devices."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from tests.support.children import results_on_eight_devices

# Two minutes of compiling for eight devices.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("matrices on a mesh")]

DEVICES = 8
PENALTIES = ["NuclearNorm(0.5)", "RankAtMost(2)", "SpectralBall(1.0)", "Orthogonal()"]


def measure(kind: str, penalty: Any, start: Any) -> dict[str, Any]:
    """In the child: a step of `regularize` on a mesh against one device."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    import jaxreg

    mesh = jax.make_mesh((DEVICES,), ("devices",), (getattr(AxisType, kind),))
    spread = jax.device_put(start, NamedSharding(mesh, PartitionSpec("devices")))
    gradient_only = jaxreg.Orthogonality(1.0, group_axis=1)
    tx = jaxreg.regularize(optax.sgd(0.1), penalty)

    def run(x: Any) -> Any:
        updates, _ = jax.jit(tx.update)(x - 1.0, tx.init(x), x)
        return np.asarray(optax.apply_updates(x, updates))

    if kind == "Explicit":
        return {
            "prox": refusal(lambda: penalty.prox(spread, 0.7)),
            "init": refusal(lambda: tx.init(spread)),
            "subgradient": refusal(lambda: gradient_only.subgradient(spread)),
        }
    return {"off": float(jnp.max(jnp.abs(run(spread) - run(start))))}


def refusal(call: Callable[[], Any]) -> str:
    """In the child: what the error says."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return "nothing"


@cache
def measured() -> dict[str, Any]:
    """All cases from one child process, which has eight simulated devices."""
    return results_on_eight_devices(__file__)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_automatic_sharding_gives_the_numbers_of_one_device(penalty):
    # Rounding of float32 in the singular value decomposition of numbers below 4.
    assert measured()[f"Auto: {penalty}"]["off"] <= 1e-5


@pytest.mark.parametrize("method", ["prox", "init", "subgradient"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_with_explicit_sharding_the_error_names_axis_and_fix(penalty, method):
    refused = measured()[f"Explicit: {penalty}"][method]
    assert "axis 0 of a leaf of shape (16, 6) is sharded over mesh axis" in refused
    assert "jax.sharding.reshard(leaf, jax.NamedSharding(mesh" in refused


def main() -> None:
    """In the child: every case as one line of JSON."""
    import jax.numpy as jnp
    import numpy as np

    import jaxreg

    start = jnp.asarray(np.random.default_rng(0).normal(size=(16, 6)), "f4")
    found = {}
    for text in PENALTIES:
        penalty = eval(text, vars(jaxreg))
        for kind in ("Auto", "Explicit"):
            found[f"{kind}: {text}"] = measure(kind, penalty, start)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
