"""Thresholds on a leaf that is spread over eight devices: same numbers, no gather."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import jaxreg

DEVICES, SHAPE = 8, (16, 24)
PENALTIES = {
    "L1 ball": jaxreg.L1Ball(3.0),
    "L1 balls of rows": jaxreg.L1Ball(0.5, group_axis=0),
    "simplex": jaxreg.Simplex(2.0),
    "L2 ball": jaxreg.L2Ball(2.0),
    "L2 balls of columns": jaxreg.L2Ball(0.5, group_axis=1),
    "unit norm": jaxreg.UnitNorm(),
    "maximum norm": jaxreg.LInf(0.2),
    "top-k": jaxreg.TopK(50),
    "top-k with ties": jaxreg.TopK(300),
    "N:M": jaxreg.NM(2, 4),
}


def measure(penalty: jaxreg.Penalty, kind: str, axis: int, varies: bool) -> Any:
    """In the child: the prox of a kernel sharded along an axis, against one device."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    generator = np.random.default_rng(0)
    kernel = generator.normal(size=SHAPE).astype("f4")
    # The smaller half is in ties, which only top-k with ties reaches.
    kernel = np.where(abs(kernel) < 0.7, np.sign(kernel) * 0.5, kernel)
    steps = (10 ** generator.uniform(-2, 2, SHAPE)).astype("f4")
    mesh = jax.make_mesh((DEVICES,), ("devices",), (getattr(AxisType, kind),))
    spec = PartitionSpec(*("devices" if place == axis else None for place in range(2)))
    one = (kernel, steps) if varies else (kernel,)
    spread = [jax.device_put(x, NamedSharding(mesh, spec)) for x in one]
    prox = jax.jit(lambda leaf, step=0.7: penalty.prox(leaf, step))
    try:
        compiled = prox.lower(*spread).compile()
    except ValueError as error:
        return {"refused": str(error)}
    found, expected = compiled(*spread), prox(*map(jnp.asarray, one))
    return {
        "off": float(np.max(np.abs(np.asarray(found) - np.asarray(expected)))),
        "zeros alike": bool(np.all((np.asarray(found) == 0) == (expected == 0))),
        "gathers": "all-gather" in compiled.as_text(),
        "sharded alike": found.sharding.is_equivalent_to(spread[0].sharding, 2),
    }


@cache
def measured() -> dict[str, Any]:
    """All cases from one child process, which has eight simulated devices."""
    root = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(root),
    }
    child = subprocess.run(
        [sys.executable, __file__],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


CASES = {
    f"{name}, {kind}, axis {axis}, {'varying' if varies else 'one'} step": (
        name,
        kind,
        axis,
        varies,
    )
    for name, penalty in PENALTIES.items()
    for kind in ("Auto", "Explicit")
    for axis in (0, 1)
    for varies in (False, True)
    if penalty.varying_step or not varies
}
IS_REFUSED = {
    case: name == "N:M" and kind == "Explicit" and axis == 0
    for case, (name, kind, axis, _) in CASES.items()
}


@pytest.mark.parametrize("case", [case for case in CASES if not IS_REFUSED[case]])
def test_a_mesh_gives_the_numbers_of_one_device_and_gathers_nothing(case: str) -> None:
    found = measured()[case]
    assert "refused" not in found, found["refused"]
    # Sums over devices are made in another order: units of float32 in numbers below 4.
    assert found["off"] <= 5e-6
    assert found["zeros alike"]
    assert found["sharded alike"]
    # XLA may gather blocks that a shard cuts through.
    if not case.startswith("N:M, Auto, axis 0"):
        assert not found["gathers"]


@pytest.mark.parametrize("case", [case for case in CASES if IS_REFUSED[case]])
def test_blocks_along_a_sharded_axis_are_refused_with_the_mend(case: str) -> None:
    message = measured()[case]["refused"]
    assert f"axis 0 of a leaf of shape {SHAPE} is sharded over mesh axis" in message
    assert "jax.sharding.reshard(leaf, jax.P())" in message


if __name__ == "__main__":
    print(
        json.dumps(
            {
                case: measure(PENALTIES[name], kind, axis, varies)
                for case, (name, kind, axis, varies) in CASES.items()
            }
        )
    )
