"""Training that is killed and goes on from its last checkpoint, bit for bit."""

import dataclasses
import os
import random
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxreg
from tests.support.children import child
from tests.system.checkpoints import program
from tests.system.checkpoints.table import END_STEP, ROWS

# One worker runs the children whose results all tests read.
pytestmark = [pytest.mark.xdist_group("checkpoints"), pytest.mark.slow]

MORE_STEPS = 100
ON_MESH = 20
# The steps are compiled once and run some hundred times.
QUICKLY_COMPILED = "--xla_backend_optimization_level=0"
DEVICES = f"{QUICKLY_COMPILED} --xla_force_host_platform_device_count=4"
PROGRAM = [str(Path(program.__file__))]

every_row = pytest.mark.parametrize("name", ROWS)


@dataclasses.dataclass(frozen=True)
class Runs:
    """A killed run that was resumed in a new process, and one that ran through."""

    saved: Path
    done: int
    resumed: Any
    resumed_state: Any
    alone: Any
    alone_state: Any


def results(folder: Path) -> Any:
    """The parameters after each step, by row, and the state after the last."""
    _, state = program.restored(folder / "after", program.abstract())
    return np.load(folder / "history.npz"), state


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    seed = int(os.environ.get("JAXREG_KILL_SEED", random.SystemRandom().randrange(999)))
    kill_at = random.Random(seed).randrange(30, 90)
    print(f"JAXREG_KILL_SEED={seed}: killed at step {kill_at}")
    folder = tmp_path_factory.mktemp("killed")
    saved, resumed, alone = (folder / name for name in ("saved", "resumed", "alone"))
    with child(
        [*PROGRAM, str(saved)], folder / "killed.log", QUICKLY_COMPILED
    ) as training:
        training.wait_for(f"{kill_at} steps")
        training.kill()
    done = program.last_step(saved)
    for out in (resumed, alone):
        out.mkdir()
    arguments = [str(saved), f"--steps={MORE_STEPS}"]
    arguments += [f"--resumed={resumed}", f"--alone={alone}"]
    with child(
        [*PROGRAM, *arguments], folder / "resumed.log", QUICKLY_COMPILED
    ) as training:
        training.finish()
    return Runs(saved, done, *results(resumed), *results(alone))


@pytest.fixture(scope="session")
def spread(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same checkpoint gone on from over four devices, and from there on one."""
    out = tmp_path_factory.mktemp("spread")
    arguments = [str(runs.saved), f"--steps={ON_MESH}"]
    arguments += [f"--resumed={out}", "--devices=4"]
    with child([*PROGRAM, *arguments], out / "log", DEVICES) as training:
        lines = training.finish()
    (count,) = [int(line.split()[0]) for line in lines if "leaves are spread" in line]
    # A kernel and one of its moments, or of its sums, in every row.
    assert count >= 2 * len(ROWS)
    over_four, state = results(out)
    middle = runs.done + ON_MESH
    return over_four, program.history(state, middle, middle + ON_MESH)[0]


def bits(array: Any) -> Any:
    is_key = jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
    array = np.asarray(jax.random.key_data(array) if is_key else array)
    return array.view(f"u{array.itemsize}")


@every_row
def test_the_steps_after_a_kill_are_those_of_a_run_left_alone(
    name: str, runs: Runs
) -> None:
    assert runs.done > 0
    alone = runs.alone[name][runs.done :]
    assert len(alone) == MORE_STEPS
    np.testing.assert_array_equal(bits(runs.resumed[name]), bits(alone))
    # And the model was still learning.
    assert np.any(alone[0] != alone[-1])


@every_row
def test_the_state_after_a_kill_is_that_of_a_run_left_alone(
    name: str, runs: Runs
) -> None:
    found, wanted = (
        jax.tree_util.tree_leaves_with_path(state[name])
        for state in (runs.resumed_state, runs.alone_state)
    )
    for (path, left), (same_path, right) in zip(found, wanted, strict=True):
        assert path == same_path
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(bits(left), bits(right), str(path))


@every_row
def test_a_checkpoint_goes_on_over_four_devices_and_back_on_one(
    name: str, runs: Runs, spread: Any
) -> None:
    middle = runs.done + ON_MESH
    for lines, first in zip(spread, (runs.done, middle), strict=True):
        wanted = runs.alone[name][first : first + ON_MESH]
        # Sums over the split axis are of two terms where they were of eight, and their
        # sum: some units of float32 at numbers below 2, each step anew. A bfloat16
        # that a unit pushes over the edge is off by its own.
        limit = 2**-7 if "bfloat16" in name else 5e-6
        np.testing.assert_allclose(lines[name], wanted, rtol=0, atol=limit)
        np.testing.assert_array_equal(lines[name] == 0, wanted == 0)


def test_target_sparsity_met_its_target_after_the_restart(runs: Runs) -> None:
    assert runs.done < END_STEP < runs.done + MORE_STEPS
    state = runs.alone_state["target_sparsity"]
    assert float(jaxreg.measure(jaxreg.L1(1.0), state["params"])["zeros"]) > 0.3


def test_every_state_is_in_a_row() -> None:
    kinds = {name for name in jaxreg.states.__all__ if name.endswith("State")}
    found = set()

    def note(node: Any) -> bool:
        found.add(type(node).__name__)
        return False

    jax.tree.leaves(program.abstract(), is_leaf=note)
    assert len(kinds) >= 8
    assert kinds - found == set()
    # What has no arrays: a link without state, and the latent of a free leaf.
    assert {"EmptyState", "MaskedNode"} <= found
