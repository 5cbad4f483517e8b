"""Figures of paths and of sparsity; they need matplotlib.

matplotlib is imported when a figure is asked for, so that the library runs without it.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import jax

from jaxreg._core.messages import shown
from jaxreg.reports.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from jaxreg.model_selection._path import Path
    from jaxreg.model_selection._selection import ValidationCurve


def path_plot(
    path: Path, choice: ValidationCurve | None = None, axes: Axes | None = None
) -> Axes:
    """Draws the coefficients of a path over its strengths, strongest on the left.

    Args:
      path: of `jaxreg.model_selection.path`.
      choice: of `cross_validate`: lines mark the strengths of least error and of one
        standard error.
      axes: where to draw; None makes a figure.

    Raises:
      ImportError: matplotlib is not installed.
      TypeError: `path` is not that of `model_selection.path`.

    >>> import jax.numpy as jnp, jaxreg, jaxreg.reports
    >>> x = jnp.array([[1.0, 10.0], [2.0, 30.0], [3.0, 20.0], [4.0, 10.0]])
    >>> problem = jaxreg.solve.linear(x, jnp.array([3.0, 5.0, 7.0, 9.0]))
    >>> path = jaxreg.model_selection.path(problem, jaxreg.L1(1.0), count=4, ratio=0.1)
    >>> axes = jaxreg.reports.path_plot(path)
    >>> print(axes.get_xlabel(), len(axes.lines))
    strength 2
    """
    # Not above: model_selection itself imports from reports.
    from jaxreg.model_selection._path import Path

    if not isinstance(path, Path):
        raise TypeError(
            f"path_plot: path is {shown(path)}; allowed: that of "
            "model_selection.path(problem, penalty)"
        )
    axes = _axes("path_plot", axes)
    strengths, coefficients = jax.device_get((path.strengths, path.coefficients))
    axes.plot(strengths, coefficients.reshape(len(strengths), -1))
    axes.set(xscale="log", xlabel="strength", ylabel="coefficient")
    axes.invert_xaxis()
    if choice is not None:
        marks = {
            "least error": choice.least,
            "one standard error": choice.one_standard_error,
        }
        for (label, index), style in zip(marks.items(), ("--", ":"), strict=True):
            strength = strengths[int(index)]
            axes.axvline(strength, color="black", linestyle=style, label=label)
        axes.legend()
    return axes


def sparsity_plot(table: Table, axes: Axes | None = None) -> Axes:
    """Draws the share of exact zeros of each leaf, and of all.

    Args:
      table: of `jaxreg.summary`.
      axes: where to draw; None makes a figure.

    Raises:
      ImportError: matplotlib is not installed.
      TypeError: `table` is not that of `jaxreg.summary`.

    >>> import jax.numpy as jnp, jaxreg, jaxreg.reports
    >>> params = {"kernel": jnp.array([[3.0, 4.0], [0.0, 0.0]])}
    >>> table = jaxreg.summary(jaxreg.on_kernels(jaxreg.L1(0.5)), params)
    >>> bars = jaxreg.reports.sparsity_plot(table).patches
    >>> print([float(bar.get_width()) for bar in bars])
    [0.5, 0.5]
    """
    if not isinstance(table, Table) or any("zero_share" not in r for r in table.rows):
        raise TypeError(
            f"sparsity_plot: table is {shown(table)}; allowed: that of "
            "jaxreg.summary(penalty, params)"
        )
    axes = _axes("sparsity_plot", axes)
    names = [row["leaf"] for row in table.rows]
    axes.barh(names, [row["zero_share"] for row in table.rows])
    axes.set(xlim=(0, 1), xlabel="share of exact zeros")
    axes.invert_yaxis()
    return axes


def _axes(caller: str, axes: Axes | None) -> Axes:
    if axes is not None:
        return axes
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(
            f'{caller}: matplotlib is not installed; write pip install "jaxreg[plots]"'
        )
    # Without pyplot, which would keep every figure and choose a window system.
    from matplotlib.figure import Figure

    return Figure(layout="constrained").subplots()
