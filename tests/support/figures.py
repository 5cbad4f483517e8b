"""Figures of experiments, drawn again from finished rows and checked for their data."""

import dataclasses
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.harness import rows
from experiments.harness.contract import cell_key, name_of, plan


def assert_figure_shows_its_rows(module: ModuleType, config: Any, folder: Path) -> None:
    """The figure has labels, and every axes a finite point, bar or image."""
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    done = rows.load(folder / "rows.jsonl", name_of(module), settings)
    lines = [done[cell_key(cell)] for cell in plan(module, config)]
    figure = module.plot(config, [line["cell"] | line["measured"] for line in lines])
    shown = [axes for axes in figure.axes if axes.get_visible() and axes.axison]
    assert any(axes.get_xlabel() or axes.get_ylabel() for axes in shown)
    for number, axes in enumerate(shown):
        assert points_of(axes) > 0, f"axes {number} of {len(shown)} shows nothing"


def points_of(axes: Axes) -> int:
    """The number of finite points of lines, markers, bars and images."""
    drawn = [line.get_xydata() for line in axes.lines]
    drawn += [np.asarray(marks.get_offsets()) for marks in axes.collections]
    drawn += [np.array([[bar.get_width(), bar.get_height()]]) for bar in axes.patches]
    finite = sum(int(np.isfinite(xy).all(axis=1).sum()) for xy in drawn)
    return finite + sum(image.get_array().size for image in axes.images)
