"""What a compiled step holds and moves on one device of a mesh, without running it.

Parameters are shapes alone, so that a model of any size fits. `measured` starts this
module as a program, since devices are simulated from the start of a process.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

import jaxreg
from experiments.cost._steps import BASE, L1, RATE, after_adam, moved, step_of

# Neurons, layer by layer: their inputs lie on all devices.
COLUMNS = jaxreg.by_path(
    [
        ("embed|head", jaxreg.GroupLasso(1e-4, group_axis=0)),
        ("", jaxreg.GroupLasso(1e-4, group_axis=(0, 2))),
    ]
)

WAYS: dict[str, Callable[[], optax.GradientTransformation]] = {
    BASE: lambda: optax.adamw(RATE),
    "prox_adam, L1": lambda: jaxreg.prox_adam(RATE, L1),
    "prox_adam, columns": lambda: jaxreg.prox_adam(RATE, COLUMNS),
    "regularize(adam), L1": lambda: jaxreg.regularize(optax.adam(RATE), L1),
    "regularize(adam), columns": lambda: jaxreg.regularize(optax.adam(RATE), COLUMNS),
    "target_sparsity(adam), columns": lambda: jaxreg.target_sparsity(
        optax.adam(RATE), COLUMNS, 0.5, end_step=100_000
    ),
    "adam, shrink L1": lambda: after_adam(jaxreg.shrink(L1, RATE)),
    "adam, shrink columns": lambda: after_adam(jaxreg.shrink(COLUMNS, RATE)),
    "adam, project L2Ball": lambda: after_adam(jaxreg.project(jaxreg.L2Ball(10.0))),
    "adam, hold_support L1": lambda: after_adam(jaxreg.hold_support(L1)),
    "add_penalty_gradient L1, adam": lambda: optax.chain(
        jaxreg.add_penalty_gradient(L1), optax.adam(RATE)
    ),
    "dual_average, L1": lambda: jaxreg.dual_average(RATE, L1),
    "ftrl, L1": lambda: jaxreg.ftrl(RATE, L1),
}


def shapes(width: int) -> dict[str, tuple[int, ...]]:
    """The matrices of a Llama model of 32 layers: 6.7 billion entries at 4096."""
    layers, hidden, words = 32, width * 43 // 16, width * 125 // 16
    return {
        "attention": (layers, width, 4 * width),
        "gate": (layers, width, hidden),
        "up": (layers, width, hidden),
        "down": (layers, width, hidden),
        "embed": (words, width),
        "head": (words, width),
    }


def measured(requests: list[dict[str, Any]]) -> list[dict[str, float]]:
    """`measure` of each request, in one process with as many devices as they need."""
    devices = max(request["devices"] for request in requests)
    flag = f"--xla_force_host_platform_device_count={devices}"
    child = subprocess.run(
        [sys.executable, "-m", "experiments.cost._memory", json.dumps(requests)],
        env={**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"},
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        raise RuntimeError(f"{requests}: {child.stderr}")
    return json.loads(child.stdout)


def measure(way: str, dtype: str, width: int, devices: int) -> dict[str, float]:
    """Bytes on each device: parameters, gradients, state, temporaries, and moved.

    Every matrix is cut along its axis of the model's width, its inputs.
    """
    mesh = jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices])

    def spread(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        names = ["data" if axis == 1 else None for axis in range(len(shape))]
        place = NamedSharding(mesh, jax.P(*names))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    params = {name: spread(s, jnp.dtype(dtype)) for name, s in shapes(width).items()}
    tx = WAYS[way]()
    made = jax.eval_shape(tx.init, params)
    state = jax.tree.map(lambda leaf: spread(leaf.shape, leaf.dtype), made)

    step = jax.jit(step_of(tx), donate_argnums=(0, 1))
    compiled: Any = step.lower(params, state, params).compile()
    memory, own = compiled.memory_analysis(), _bytes(params) / devices
    latent = _bytes([node.latent for node in _regularize_states(made)]) / devices
    return {
        "entries": sum(leaf.size for leaf in params.values()),
        "parameters": own,
        "gradients": own,
        "latent": latent,
        "state": memory.argument_size_in_bytes - 2 * own - latent,
        "temporaries": memory.temp_size_in_bytes,
        "moved": moved(compiled),
    }


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _regularize_states(state: Any) -> list[jaxreg.states.RegularizeState]:
    def is_one(node: Any) -> bool:
        return isinstance(node, jaxreg.states.RegularizeState)

    return [node for node in jax.tree.leaves(state, is_leaf=is_one) if is_one(node)]


if __name__ == "__main__":
    print(json.dumps([measure(**request) for request in json.loads(sys.argv[1])]))
