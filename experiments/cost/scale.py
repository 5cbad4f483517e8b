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

from __future__ import annotations

import dataclasses
from typing import Any

import matplotlib.figure

from experiments.cost._memory import WAYS, measured
from experiments.cost._steps import BASE
from experiments.harness.contract import Row

PARTS = ("parameters", "gradients", "state", "latent", "temporaries")
BYTES = (*PARTS, "moved")
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Config:
    """The model's width, the small widths that foretell it, and the devices.

    The line goes through two widths on `small_devices`; checked are four times the
    larger, the smaller on one device, and the model on each number of devices.
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
    """Bytes of the model from the line, and how far the compiled steps are from it."""
    (narrow, wide), small = config.small_widths, config.small_devices
    places = [(narrow, small), (wide, small), (4 * wide, small), (narrow, 1)]
    places += [(config.width, devices) for devices in config.devices]
    common = {"way": way, "dtype": dtype}
    asked = [{**common, "width": w, "devices": n} for w, n in places]
    found = measured(asked)
    rates = [_rates(row, n) for row, (_, n) in zip(found, places, strict=True)]
    shares = small / narrow, small / wide
    lines = {p: _line(*shares, *(rate[p] for rate in rates[:2])) for p in BYTES}

    def foretold(width: int, devices: int) -> dict[str, float]:
        return {p: at + by * devices / width for p, (at, by) in lines.items()}

    pairs = [
        (rate, foretold(*place))
        for rate, place in zip(rates[2:], places[2:], strict=True)
    ]
    billions = found[-1]["entries"] / 1e9
    on = {devices: foretold(config.width, devices) for devices in config.devices}
    return {
        "billions": billions,
        # The line through two points leaves roundings; 0.0 rids of a -0.0.
        **{part: round(rate, 4) + 0.0 for part, rate in on[config.devices[0]].items()},
        **{f"gb_on_{n}": billions / n * _held(rate) for n, rate in on.items()},
        "held_error": max(abs(_held(one) / _held(line) - 1) for one, line in pairs),
        "moved_error": max(
            abs(one["moved"] / line["moved"] - 1) for one, line in pairs
        ),
    }


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
    """What the ways hold beyond the base, and how well small models foretold it."""
    found = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        mine = [row for row in rows if row["dtype"] == dtype]
        (base,) = (row for row in mine if row["way"] == BASE)
        more = {
            row["way"]: sum(row[part] - base[part] for part in PARTS) for row in mine
        }
        most = max(more, key=lambda way: more[way])
        errors = (
            max(row[f"{what}_error"] for row in mine) for what in ("held", "moved")
        )
        found.append(
            f"in {dtype} a penalty holds {min(more.values()):.2f} to {more[most]:.2f} "
            f"bytes per parameter beyond {BASE} (most: {most}), regularize(adam) with "
            f"L1 {more['regularize(adam), L1']:.2f}; small models foretell what is "
            "held within {:.1%} and what is moved within {:.1%}".format(*errors)
        )
    return f"measured: on {config.devices[0]} devices, {'; '.join(found)}."


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Bytes per parameter of each way, part by part."""
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    figure = matplotlib.figure.Figure(figsize=(9, 4.5), layout="constrained")
    panels: Any = figure.subplots(1, len(dtypes), sharey=True, squeeze=False)[0]
    for axes, dtype in zip(panels, dtypes, strict=True):
        chosen = [row for row in rows if row["dtype"] == dtype][::-1]
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
