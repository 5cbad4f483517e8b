"""A toy.

Question: Does the square grow?
Claim: The mean square of <three> seeds
    is above zero.
Expected: About 1.7.
Cost: a second.

Command: python -m experiments toy
"""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

DEFAULT = True
# Lists the cells measured, in whichever process that was.
CALLS = Path(__file__).with_name("calls.txt")


@dataclasses.dataclass(frozen=True)
class Config:
    """One field of every kind."""

    seeds: int = 3
    scale: float = 1.0
    powers: tuple[float, ...] = (1.0, 2.0)
    shape: tuple[int, str] = (2, "a")
    label: str = "plain"
    loud: bool = False


QUICK = Config(seeds=1)


def cells(config: Config) -> list[dict[str, Any]]:
    """Every power with every seed."""
    seeds = range(config.seeds)
    return [{"power": power, "seed": seed} for power in config.powers for seed in seeds]


def measure(config: Config, power: float, seed: int) -> dict[str, Any]:
    """The seed raised to the power; slow or failing when the environment says so."""
    time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
    if os.environ.get("TOY_FAILS") == str(seed):
        raise ValueError("the toy broke")
    with CALLS.open("a") as file:
        file.write(f"{power} {seed}\n")
    return {"value": config.scale * seed**power, "curve": [float("nan"), 1.0]}


def summarise(config: Config, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean value of each power."""
    table = []
    for power in config.powers:
        values = [row["value"] for row in rows if row["power"] == power]
        mean = sum(values) / len(values)
        table.append({"power": power, "mean": mean, "ceiling": float("inf")})
    return table


def plot(config: Config, rows: list[dict[str, Any]]) -> Figure:
    """The values in the order of the plan."""
    figure = Figure()
    figure.subplots().plot([row["value"] for row in rows])
    return figure


def verdict(config: Config, rows: list[dict[str, Any]]) -> str:
    """Counts the rows."""
    return f"holds: {len(rows)} rows"
