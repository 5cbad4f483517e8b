"""Every wrapper of Optax around our transformations, and inside them."""

import inspect
import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from experiments.correctness import blind_spots
from experiments.harness.docs import ROOT
from tests.support.fixed_points import (
    SOLUTION,
    STRENGTH,
    TARGET,
    as_arrays,
    assert_same_zeros,
    distance,
    run,
)
from tests.system.wrapper_table import (
    AROUND,
    INSIDE,
    OTHER_WRAPPERS,
    RATE,
    SETUPS,
    WRAPPERS,
    Refused,
    Row,
    solution_of,
)

TABLES = {"around": AROUND, "inside": INSIDE}
# What is tried by default with every wrapper: the others pass through the same lines.
BY_DEFAULT = ("regularize",)
INNER = {"inner", "optimizer", "base_optimizer", "fast_optimizer", "transforms", "opt"}
INNER |= {"inner_factory", "tx"}


pytestmark = pytest.mark.usefixtures("x64")


def cells(kind: Any) -> Iterator[Any]:
    """Transformation, place and wrapper of the cells with an outcome of one kind."""
    for place, table in TABLES.items():
        for name, outcomes in table.items():
            for wrapper in WRAPPERS:
                if wrapper == "nothing" and place == "inside":
                    continue
                if isinstance(outcomes.get(wrapper), kind):
                    trains = kind is type(None) and wrapper != "nothing"
                    waits = trains and name not in BY_DEFAULT
                    marks = [pytest.mark.release] if waits else []
                    yield pytest.param(name, place, wrapper, marks=marks)


def every_cell(kind: Any) -> Any:
    return pytest.mark.parametrize(("name", "place", "wrapper"), list(cells(kind)))


def make(name: str, place: str, wrapper: str) -> Any:
    build, wrap = SETUPS[name].build, WRAPPERS[wrapper]
    if place == "inside":
        return build(STRENGTH, lambda optimizer: wrap(optimizer, RATE))
    return wrap(lambda strength: build(strength, lambda make: make(RATE)), STRENGTH)


def start_of(wrapper: str, solution: Any) -> Any:
    paired = wrapper == "lookahead"
    return optax.LookaheadParams.init_synced(solution) if paired else solution


def tolerance(name: str, wrapper: str) -> float:
    if wrapper == "schedule_free":
        # It recombines equal points, and Adam takes steps of up to its rate for what
        # that rounds: a tenth of them is in the params.
        return RATE / 10
    if name in ("regularize", "add_penalty_gradient", "hold_support"):
        # Zero gradients give zero updates.
        return 0.0
    if name == "prox_adam":
        # The metric corrects its bias in float32.
        return STRENGTH * float(jnp.finfo(jnp.float32).eps)
    # The sums of as many gradients round as often; else a step rounds once.
    return 1e-10 if name in ("dual_average", "ftrl") else 1e-14


@every_cell(type(None))
def test_the_solution_stays(name: str, place: str, wrapper: str) -> None:
    tx, solution = make(name, place, wrapper), as_arrays(solution_of(name))
    start = start_of(wrapper, solution)
    state = tx.init(start)
    last, _ = run(tx, start, state, TARGET)
    for copy in last if wrapper == "lookahead" else [last]:
        assert distance(copy, solution) <= tolerance(name, wrapper)
        assert_same_zeros(copy, solution)
    # And what is no solution does not stay.
    moved, _ = run(tx, start, state, jax.tree.map(lambda goal: goal + 0.25, TARGET))
    assert distance(moved, start) > 0.1


@every_cell(Refused)
def test_wrong_use_raises(name: str, place: str, wrapper: str) -> None:
    tx = make(name, place, wrapper)
    solution = as_arrays(solution_of(name))
    start, outcome = start_of(wrapper, solution), TABLES[place][name][wrapper]
    with pytest.raises(ValueError, match=outcome.message):
        jax.eval_shape(tx.update, solution, tx.init(start), start)


@every_cell(Row)
def test_what_is_wrong_is_measured_and_in_the_documentation(
    name: str, place: str, wrapper: str
) -> None:
    path = ROOT / "experiments" / "results" / "blind_spots" / "run.json"
    table = {row["setup"]: row for row in json.loads(path.read_text())["table"]}
    row = table[TABLES[place][name][wrapper].setup]
    assert row["error"] > 1e-3 or row["zeros"] != 1
    page = (ROOT / "docs" / "what_no_transform_can_see.md").read_text()
    assert f"| {row['setup']} |" in page


def is_wrapper(thing: Any) -> bool:
    is_class = inspect.isclass(thing) and "gradient_transformation" in vars(thing)
    if not inspect.isfunction(thing) and not is_class:
        return False
    signature = inspect.signature(thing)
    parameters = signature.parameters.values()
    takes_several = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    makes = "GradientTransformation" in str(signature.return_annotation)
    return (takes_several and makes) or any(p.name in INNER for p in parameters)


def test_every_wrapper_of_optax_is_in_the_table_or_says_why_not() -> None:
    found = {
        name
        for module in (optax, optax.contrib)
        for name, thing in vars(module).items()
        if not name.startswith(("_", "scale_by_")) and is_wrapper(thing)
    }
    assert found - set(WRAPPERS) - set(OTHER_WRAPPERS) == set()
    assert set(WRAPPERS) & set(OTHER_WRAPPERS) == set()


@pytest.mark.parametrize("name", ["regularize", "prox_sgd"])
def test_flatten_around_elementwise_penalties_keeps_the_solution(name) -> None:
    penalty = jaxreg.L1(STRENGTH)
    tx = {
        "regularize": lambda: jaxreg.regularize(optax.adam(RATE), penalty, 0.0625),
        "prox_sgd": lambda: jaxreg.prox_sgd(RATE, penalty),
    }[name]()
    solution, goal = ({"vector": tree["vector"]} for tree in (SOLUTION, TARGET))
    start, tx = as_arrays(solution), optax.flatten(tx)
    last, _ = run(tx, start, tx.init(start), goal)
    assert distance(last, solution) <= tolerance(name, "flatten")
    assert_same_zeros(last, solution)


@pytest.mark.parametrize("way", ["regularize", "prox_adam"])
def test_noise_brings_decay_inside_to_light(way: str) -> None:
    setups = {
        "regularize": ("regularize(adam) alone", "weight decay 0.1 inside it"),
        "prox_adam": ("prox_adam alone", "prox_adamw, weight decay 0.1"),
    }
    noisy = [f"{setup}, noisy gradients" for setup in setups[way]]
    plain, decayed = (blind_spots.answer_of(blind_spots.Config(), s) for s in noisy)
    assert plain["zeros"] == decayed["zeros"] == 1
    # Decay of 0.1 pulls towards 0; the same noise moves both by a hundredth.
    assert decayed["answer"][0] < plain["answer"][0] - 0.03
    assert decayed["error"] > 2 * plain["error"]
    np.testing.assert_allclose(plain["answer"], [0.5, 0.015, 0.0], atol=0.02)
