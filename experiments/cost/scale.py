"""What does a penalty cost in a model of seven billion parameters?

Question: How many bytes does each device hold, and move in a step, when a Llama model
of 6.7 billion parameters trains with each way to apply a penalty, cut over 8, 64 and
512 devices; and do two small models foretell it?

Claim: A penalty costs one latent copy of the weights at most.

Expected: bytes are `a` per parameter on the device and `c` per group of weights, since
groups that span devices have their norms on each: `a + c devices / width` per
parameter, from widths 256 and 512 to 4096 within 1 %. Elementwise penalties in an
optimizer's chain hold nothing; regularize one float32 per parameter; groups that are
looked at several times arrays of the size of a leaf for a while.

Corrected: in bfloat16 a step of two ways, that of the smaller model on one device, is
off by half, since XLA fuses it otherwise; all others are within 2 %.

Cost: about four minutes on 2 cores and little memory: steps are compiled, not run.

Command: python -m experiments scale
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
from jax.sharding import NamedSharding

import jaxreg
from experiments.cost._steps import BASE, L1, RATE, makers, moved, step_of
from experiments.harness.contract import Row
from experiments.kit import stats
from experiments.kit.transformations import Settings

# Neurons, layer by layer: their inputs lie on all devices.
COLUMNS = jaxreg.by_path(
    [
        ("embed|head", jaxreg.GroupLasso(1e-4, group_axis=0)),
        ("", jaxreg.GroupLasso(1e-4, group_axis=(0, 2))),
    ]
)

WAYS = makers(
    (
        ("prox_adam", "L1 columns"),
        ("regularize", "L1 columns"),
        ("target_sparsity", "columns"),
        ("shrink", "L1 columns"),
        ("project", "L2Ball"),
        ("hold_support add_penalty_gradient dual_average ftrl", "L1"),
    ),
    {"L1": L1, "columns": COLUMNS, "L2Ball": jaxreg.L2Ball(10.0)},
    Settings(rate=RATE, target=0.5, end_step=100_000),
)

PARTS = ("parameters", "gradients", "state", "latent", "temporaries")
BYTES = (*PARTS, "moved")
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Config:
    """The model's width, the small widths that predict it, and the devices.

    The line goes through two widths on `small_devices`. It is checked at four times the
    larger width, at the smaller on one device, and at the model on all `devices`.
    """

    ways: tuple[str, ...] = tuple(WAYS)
    dtypes: tuple[str, ...] = DTYPES
    width: int = 4096
    small_widths: tuple[int, ...] = (256, 512)
    small_devices: int = 8
    devices: tuple[int, ...] = (8, 64, 512)


QUICK = Config(ways=(BASE, "regularize(adam), L1"), dtypes=("float32",), devices=(8,))


def cells(config: Config) -> list[Row]:
    """One cell per way and dtype of the parameters."""
    return [
        {"way": way, "dtype": dtype} for dtype in config.dtypes for way in config.ways
    ]


def measure(config: Config, way: str, dtype: str) -> Row:
    """Bytes of the model by the line, and the error of the line at compiled steps."""
    (narrow, wide), small = config.small_widths, config.small_devices
    sizes = [(narrow, small), (wide, small), (4 * wide, small), (narrow, 1)]
    sizes += [(config.width, devices) for devices in config.devices]
    common = {"way": way, "dtype": dtype}
    asked = [{**common, "width": w, "devices": n} for w, n in sizes]
    compiled = _compiled(asked)
    rates = [_rates(row, n) for row, (_, n) in zip(compiled, sizes, strict=True)]
    shares = small / narrow, small / wide
    lines = {p: _line(*shares, *(rate[p] for rate in rates[:2])) for p in BYTES}

    def predicted(width: int, devices: int) -> dict[str, float]:
        return {p: at + by * devices / width for p, (at, by) in lines.items()}

    pairs = [
        (rate, predicted(*size))
        for rate, size in zip(rates[2:], sizes[2:], strict=True)
    ]
    billions = compiled[-1]["entries"] / 1e9
    on = {devices: predicted(config.width, devices) for devices in config.devices}
    return {
        "billions": billions,
        # The line through two points leaves roundings; 0.0 rids of a -0.0.
        **{part: round(rate, 4) + 0.0 for part, rate in on[config.devices[0]].items()},
        **{f"gb_on_{n}": billions / n * _held(rate) for n, rate in on.items()},
        "held_error": max(abs(_held(rate) / _held(line) - 1) for rate, line in pairs),
        "moved_error": max(
            abs(rate["moved"] / line["moved"] - 1) for rate, line in pairs
        ),
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


def _compiled(requests: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The `memory` of each request, from one process with as many devices as needed.

    It runs this module as a program: a process simulates its devices from the start.
    """
    devices = max(request["devices"] for request in requests)
    flag = f"--xla_force_host_platform_device_count={devices}"
    child = subprocess.run(
        [sys.executable, "-m", "experiments.cost.scale", json.dumps(requests)],
        env={**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"},
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        raise RuntimeError(f"{requests}: {child.stderr}")
    return json.loads(child.stdout)


def memory(way: str, dtype: str, width: int, devices: int) -> dict[str, float]:
    """Bytes on each device, held and moved by a compiled step that never runs.

    Parameters are shapes alone, so that a model of any size fits.

    Every matrix is cut along its axis of the model's width, its inputs.
    """
    mesh = jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices])

    def sharded(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        names = ["data" if axis == 1 else None for axis in range(len(shape))]
        sharding = NamedSharding(mesh, jax.P(*names))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    params = {name: sharded(s, jnp.dtype(dtype)) for name, s in shapes(width).items()}
    tx = WAYS[way]()
    made = jax.eval_shape(tx.init, params)
    state = jax.tree.map(lambda leaf: sharded(leaf.shape, leaf.dtype), made)

    step = jax.jit(step_of(tx), donate_argnums=(0, 1))
    compiled: Any = step.lower(params, state, params).compile()
    held, own = compiled.memory_analysis(), _bytes(params) / devices
    latent = _bytes([node.latent for node in _regularize_states(made)]) / devices
    return {
        "entries": sum(leaf.size for leaf in params.values()),
        "parameters": own,
        "gradients": own,
        "latent": latent,
        "state": held.argument_size_in_bytes - 2 * own - latent,
        "temporaries": held.temp_size_in_bytes,
        "moved": moved(compiled),
    }


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _regularize_states(state: Any) -> list[jaxreg.states.RegularizeState]:
    def is_state(node: Any) -> bool:
        return isinstance(node, jaxreg.states.RegularizeState)

    return [node for node in jax.tree.leaves(state, is_leaf=is_state) if is_state(node)]


def _rates(row: dict[str, float], devices: int) -> dict[str, float]:
    """Bytes per parameter on the device."""
    return {part: row[part] * devices / row["entries"] for part in BYTES}


def _held(rate: dict[str, float]) -> float:
    return sum(rate[part] for part in PARTS)


def _line(x: float, other_x: float, y: float, other_y: float) -> tuple[float, float]:
    """Constant and slope of the line through two points."""
    slope = (y - other_y) / (x - other_x)
    return y - slope * x, slope


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """The rows as they are: compiling the same step gives the same bytes."""
    return rows


def verdict(config: Config, rows: list[Row]) -> str:
    """Memory of the ways beyond the base, and how well small models predicted it."""
    texts = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        mine = stats.select(rows, dtype=dtype)
        (base,) = (row for row in mine if row["way"] == BASE)
        more = {
            row["way"]: sum(row[part] - base[part] for part in PARTS) for row in mine
        }
        most = max(more, key=lambda way: more[way])
        errors = (
            max(row[f"{what}_error"] for row in mine) for what in ("held", "moved")
        )
        texts.append(
            f"in {dtype} a penalty holds {min(more.values()):.2f} to {more[most]:.2f} "
            f"bytes per parameter beyond {BASE} (most: {most}), regularize(adam) with "
            f"L1 {more['regularize(adam), L1']:.2f}; small models foretell what is "
            "held within {:.1%} and what is moved within {:.1%}".format(*errors)
        )
    return f"measured: on {config.devices[0]} devices, {'; '.join(texts)}."


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Bytes per parameter of each way, part by part."""
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    figure = matplotlib.figure.Figure(figsize=(9, 4.5), layout="constrained")
    panels: Any = figure.subplots(1, len(dtypes), sharey=True, squeeze=False)[0]
    for axes, dtype in zip(panels, dtypes, strict=True):
        chosen = stats.select(rows, dtype=dtype)[::-1]
        left = [0.0] * len(chosen)
        for part in PARTS:
            lengths = [row[part] for row in chosen]
            axes.barh([row["way"] for row in chosen], lengths, left=left, label=part)
            left = [sum(pair) for pair in zip(left, lengths, strict=True)]
        axes.set_title(f"{dtype} parameters")
        axes.set_xlabel(f"bytes per parameter, {config.devices[0]} devices")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=len(PARTS),
    )
    return figure


if __name__ == "__main__":
    print(json.dumps([memory(**request) for request in json.loads(sys.argv[1])]))
