"""The program and the commands of docs/from_a_laptop_to_a_pod.md, run and killed."""

import contextlib
import os
import random
import re
import shlex
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.support.children import ROOT, Child, child

# Each run is a process or two that import JAX and compile.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pod")]

PAGE = (ROOT / "docs" / "from_a_laptop_to_a_pod.md").read_text()
(PROGRAM,) = re.findall(r"```python train.py\n(.*?)```", PAGE, re.DOTALL)
ONE, EIGHT, PAIR = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
LAST = 200

Place = Callable[[str], Path]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder by its name, with the program in it."""

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        (folder / "train.py").write_text(PROGRAM)
        return folder

    return make


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def started(block: str, folder: Path) -> Iterator[list[Child]]:
    """The commands of a block of the page, at once, with a port that is free."""
    block = block.replace("localhost:7733", f"localhost:{free_port()}")
    lines = block.replace("\\\n", " ").replace("&", "").split("\n")
    commands = [shlex.split(line) for line in lines if line not in ("", "wait")]
    with contextlib.ExitStack() as stack:
        running = []
        for number, words in enumerate(commands):
            start = words.index("python")
            flags = [word.removeprefix("XLA_FLAGS=") for word in words[:start]]
            log = folder / f"log {number}"
            program = child(words[start + 1 :], log, " ".join(flags))
            running.append(stack.enter_context(program))
        yield running


def run(block: str, folder: Path) -> list[list[str]]:
    """The lines that each command printed about its steps, once all have ended."""
    with started(block, folder) as programs:
        outputs = [program.finish() for program in programs]
    return [[line for line in lines if line.startswith("step ")] for lines in outputs]


def kill_point() -> int:
    seed = int(os.environ.get("JAXREG_KILL_SEED", random.SystemRandom().randrange(999)))
    step = random.Random(seed).randrange(50, 150)
    print(f"JAXREG_KILL_SEED={seed}: killed at step {step}")
    return step


def saved(folder: Path) -> Any:
    """The last checkpoint of a run, wherever it was made."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def target(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)

    handler = ocp.StandardCheckpointHandler()
    with ocp.CheckpointManager(folder, item_handlers=handler) as manager:
        assert manager.latest_step() == LAST
        wanted = jax.tree.map(target, manager.item_metadata(LAST).tree)
        found = manager.restore(LAST, args=ocp.args.StandardRestore(wanted))
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(found)
    }


def assert_near(left: Any, right: Any) -> None:
    assert left.keys() == right.keys()
    for path, leaf in left.items():
        # Sums over examples and columns in another order are off by some 1e-7 of their
        # terms, Adam's steps of 1e-2 by as much, and 200 of them add up.
        np.testing.assert_allclose(leaf, right[path], rtol=0, atol=1e-5, err_msg=path)
        if "params" in path:
            np.testing.assert_array_equal(leaf == 0, right[path] == 0, path)


@pytest.fixture(scope="module")
def alone(place: Place) -> Any:
    folder = place("one")
    (lines,) = run(ONE, folder)
    return lines, saved(folder / "run")


@pytest.fixture(scope="module")
def pair(place: Place) -> Any:
    folder = place("pair")
    return run(PAIR, folder), saved(folder / "pair")


def test_one_device_runs_to_the_end_and_leaves_dead_rows(alone: Any) -> None:
    lines, state = alone
    assert len(lines) == LAST
    kernel = state["['params']['first']['kernel']"]
    dead = np.sum(np.all(kernel == 0, axis=1))
    assert lines[-1] == f"step {LAST}: {dead} dead"
    assert dead > 10


def test_eight_devices_go_on_where_one_was_killed(alone: Any, place: Place) -> None:
    folder, step = place("eight"), kill_point()
    with started(ONE, folder) as (program,):
        program.wait_for(f"step {step}:")
        program.kill()
    (lines,) = run(EIGHT, folder)
    assert 0 < len(lines) < LAST
    assert_near(saved(folder / "run"), alone[1])


def test_two_processes_train_what_one_trains(alone: Any, pair: Any) -> None:
    (first, second), state = pair
    assert first == second
    assert len(first) == LAST
    assert_near(state, alone[1])


def test_two_processes_sharing_matrices_train_what_one_trains(
    alone: Any, place: Place
) -> None:
    folder = place("halves")
    first, second = run(re.sub(r"XLA_FLAGS=\S*", "", PAIR), folder)
    assert first == second
    assert_near(saved(folder / "pair"), alone[1])


def test_a_pair_of_which_one_is_killed_goes_on_bit_for_bit(
    pair: Any, place: Place
) -> None:
    folder, step = place("killed"), kill_point()
    with started(PAIR, folder) as programs:
        for program in programs:
            program.wait_for(f"step {step}:")
        programs[step % 2].kill()
        other = programs[1 - step % 2]
        # As whoever runs the pair has to.
        other.process.kill()
        other.process.wait()
        assert not any(line.startswith(f"step {LAST}") for line in other.lines())
    (lines, _) = run(PAIR, folder)
    assert 0 < len(lines) < LAST
    found = saved(folder / "pair")
    assert found.keys() == pair[1].keys()
    for path, leaf in found.items():
        np.testing.assert_array_equal(leaf.view("u4"), pair[1][path].view("u4"), path)
