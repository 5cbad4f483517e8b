"""Trains all rows of the checkpoint table at once, from a checkpoint or from the start.

As a program it saves every few steps, and it is made to be killed: run again on the
same folder it goes on from the last complete checkpoint.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.system.checkpoints.table import BATCH, INPUTS, ROWS

SAVE_EVERY = 10


def start() -> Any:
    return {name: row.start() for name, row in ROWS.items()}


@jax.jit
def step(carries: Any, x: Any, y: Any) -> Any:
    carries = {name: row.step(carries[name], x, y) for name, row in ROWS.items()}
    return carries, {name: weights(name, carry) for name, carry in carries.items()}


def weights(name: str, carry: Any) -> Any:
    """All parameters of a row in one vector; float32 has every bfloat16."""
    leaves = jax.tree.leaves(ROWS[name].params(carry))
    return jnp.concatenate([leaf.astype(jnp.float32).ravel() for leaf in leaves])


def batch(number: int) -> Any:
    """The batch of a step: a function of its number, so a restart repeats none."""
    x = np.random.default_rng(number).normal(size=(BATCH, INPUTS)).astype("f4")
    return x, np.sin(2 * x[:, :1]) + x[:, 1:2]


def train(carries: Any, first: int, last: int) -> Iterator[Any]:
    """The number of steps done, the state then, and the parameters of each row."""
    for number in range(first, last):
        carries, seen = step(carries, *batch(number))
        yield number + 1, carries, seen


def history(carries: Any, first: int, last: int) -> Any:
    """By row, the parameters after each step, a line for each; and the state then."""
    lines = []
    for _, state, seen in train(carries, first, last):
        lines.append(jax.device_get(seen))
        carries = state
    return {name: np.stack([line[name] for line in lines]) for name in ROWS}, carries


def abstract(devices: int = 1) -> Any:
    """Types, shapes and places of all that is saved, without computing any of it.

    The columns of matrices are spread over so many devices. Without places Orbax asks
    for as many devices as there were when it saved.
    """
    mesh = jax.make_mesh((devices,), ("model",), (AxisType.Auto,))

    def placed(leaf: Any) -> Any:
        divides = leaf.ndim == 2 and leaf.shape[1] % devices == 0
        spec = PartitionSpec(None, "model") if divides else PartitionSpec()
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(placed, jax.eval_shape(start))


def restored(folder: Path, target: Any) -> tuple[int, Any]:
    """The last complete checkpoint: its step, and what it holds."""
    with ocp.CheckpointManager(folder) as manager:
        done = manager.latest_step()
        return done, manager.restore(done, args=ocp.args.StandardRestore(target))


def last_step(folder: Path) -> int:
    with ocp.CheckpointManager(folder) as manager:
        return manager.latest_step()


def save(folder: Path, done: int, carries: Any) -> None:
    with ocp.CheckpointManager(folder) as manager:
        manager.save(done, args=ocp.args.StandardSave(carries))


def endless(folder: Path) -> None:
    """Trains and saves in the background until it is killed."""
    with ocp.CheckpointManager(folder) as manager:
        for done, carries, _ in train(jax.jit(start)(), 0, 10**6):
            print(f"{done} steps", flush=True)
            if done % SAVE_EVERY == 0:
                manager.save(done, args=ocp.args.StandardSave(carries))


def resumed(folder: Path, out: Path, steps: int, devices: int) -> None:
    """Goes on from the last checkpoint, on one device or spread over several."""
    done, carries = restored(folder, abstract(devices))
    lines, carries = history(carries, done, done + steps)
    spread = [not leaf.is_fully_replicated for leaf in jax.tree.leaves(carries)]
    print(f"{sum(spread)} leaves are spread", flush=True)
    save(out / "after", done + steps, carries)
    np.savez(out / "history.npz", **lines)


def alone(out: Path, last: int) -> None:
    """Trains from the start without a stop."""
    lines, carries = history(jax.jit(start)(), 0, last)
    save(out / "after", last, carries)
    np.savez(out / "history.npz", **lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resumed", type=Path)
    parser.add_argument("--alone", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--devices", type=int, default=1)
    options = parser.parse_args()
    if options.resumed is None:
        endless(options.folder)
    resumed(options.folder, options.resumed, options.steps, options.devices)
    if options.alone is not None:
        alone(options.alone, last_step(options.folder) + options.steps)
