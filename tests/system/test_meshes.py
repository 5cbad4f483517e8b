"""A small Transformer under every layout of its parameters over eight devices."""

from functools import cache
from typing import Any

import pytest

from tests.support.children import results_on_eight_devices

# A minute and a half of compiling for eight devices.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("transformer on a mesh")]

EVERY_WAY = (
    "adam",
    "regularize",
    "prox_adam",
    "shrink",
    "project",
    "hold_support",
    "half_space",
    "target_sparsity",
    "dual_average",
    "ftrl",
)
CASES = {
    "Explicit, tensor parallel": EVERY_WAY,
    "Auto, fully sharded": ("adam", "regularize", "prox_adam", "target_sparsity"),
    "Explicit, fully sharded": ("regularize", "prox_adam"),
    "Auto, tensor parallel": ("regularize",),
    "Explicit, data parallel": ("regularize",),
    "Auto, data parallel": ("regularize",),
}
MEASURED = "Explicit, tensor parallel", "Auto, fully sharded"
GATHERED = "Auto, fully sharded"

every_case = pytest.mark.parametrize(
    "case", [f"{where}: {way}" for where, ways in CASES.items() for way in ways]
)


@cache
def measured() -> dict[str, Any]:
    """All cases from one child process, which has eight simulated devices."""
    return results_on_eight_devices("tests/system/meshes.py", *map(asked, CASES))


def asked(where: str) -> str:
    """The child's arguments for a case."""
    more = ["measure"] if where in MEASURED else []
    more += ["gathers"] if where == GATHERED else []
    return f"{where}: {', '.join([*CASES[where], *more])}"


@every_case
def test_a_transformer_on_a_mesh_gets_the_weights_of_one_device(case: str):
    found = measured()[case]
    # Five steps of 1e-2: gradients and norms are summed in another order, which leaves
    # a few units of float32 in weights below 2.
    assert found["off"] <= 1e-6
    assert found["zeros differ"] == 0
    if case.endswith(("regularize", "prox_adam")):
        assert found["zeros"] > 2000
    if case.endswith("target_sparsity"):
        # Half of the groups, which have 3,072 entries.
        assert found["zeros"] > 1500


@every_case
def test_weights_and_state_stay_where_they_were(case: str) -> None:
    assert measured()[case]["sharded otherwise"] == []


@every_case
def test_an_update_gathers_no_parameter(case: str) -> None:
    found = measured()[case]["collectives"]
    # Norms of groups, counts of zeros, and whether weights were edited are summed.
    assert set(found) <= (set() if case.endswith(": adam") else {"all-reduce"})


@pytest.mark.parametrize("where", MEASURED)
def test_measure_sums_over_devices(where: str) -> None:
    found = measured()[f"{where}: measure"]
    # Sums of a few thousand entries of float32 in another order.
    assert found["found"] == pytest.approx(found["wanted"], rel=1e-5)
    assert found["collectives"] == ["all-reduce"]


def test_a_step_gathers_what_the_model_gathers_and_nothing_more() -> None:
    found = measured()[f"{GATHERED}: gathers"]
    assert found["adam"]
    assert found["regularize"] == found["adam"]
