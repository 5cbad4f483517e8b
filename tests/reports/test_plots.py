"""Figures are checked for the data that they show."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg
from jaxreg import model_selection as ms
from jaxreg.reports import path_plot, sparsity_plot


@pytest.fixture(scope="module")
def path():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(30, 3))
    y = x[:, 0] + generator.normal(size=30)
    return ms.path(jaxreg.solve.linear(x, y), jaxreg.L1(1.0), count=5, ratio=0.1)


def test_a_path_is_drawn_with_the_strengths_that_were_chosen(path):
    curve = ms.validation_curve(jnp.array([[3, 3.2], [2, 2.5], [1, 2], [2, 2], [3, 3]]))
    axes = path_plot(path, curve)
    *lines, least, one = axes.lines
    for line, coefficients in zip(lines, path.coefficients.T, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), path.strengths)
        np.testing.assert_array_equal(line.get_ydata(), coefficients)
    assert least.get_xdata()[0] == pytest.approx(float(path.strengths[2]))
    assert one.get_xdata()[0] == pytest.approx(float(path.strengths[curve[3]]))
    left, right = axes.get_xlim()
    assert left > right


def test_zeros_are_drawn_leaf_by_leaf_into_axes_of_the_user(path):
    params = {"bias": jnp.ones(4), "kernel": jnp.array([[0.0, 1.0], [0.0, 0.0]])}
    table = jaxreg.summary(jaxreg.on_kernels(jaxreg.L1(1.0)), params)
    axes = path_plot(path).figure.add_subplot()
    assert sparsity_plot(table, axes) is axes
    assert [bar.get_width() for bar in axes.patches] == [0, 0.75, 3 / 8]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        *("bias", "kernel", "total")
    ]


def test_other_results_are_refused(path):
    with pytest.raises(TypeError, match=r"path_plot: path is .*; allowed: that of"):
        path_plot(path.coefficients)
    with pytest.raises(
        TypeError, match=r"sparsity_plot: table is .*; allowed: that of"
    ):
        sparsity_plot(jaxreg.describe(jaxreg.L1(1.0), jnp.ones(2)))


def test_without_matplotlib_the_message_says_how_to_install_it(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "jaxreg\[plots\]"'):
        path_plot(path)
