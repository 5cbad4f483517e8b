"""The experiment on a language model: the network, what is cut, and what is dead."""

import io
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.harness.runner import run
from experiments.language_model import language_model
from experiments.language_model.language_model import (
    CUT,
    QUICK,
    REFIT,
    TARGET,
    Transformer,
)
from tests.support.figures import assert_figure_shows_its_rows

HAS_TEXT = (
    pathlib.Path(os.environ.get("JAXREG_DATA", "")) / "tinyshakespeare"
).is_dir()
needs_text = pytest.mark.skipif(
    not HAS_TEXT, reason="JAXREG_DATA holds no tinyshakespeare/"
)
# They share the dense network of the quick config.
pytestmark = pytest.mark.xdist_group("language_model")


@pytest.fixture(scope="module")
def model():
    return nnx.jit(build)()


def build():
    return Transformer(7, 6, layers=2, width=8, heads=2, rngs=nnx.Rngs(0))


@pytest.mark.slow
def test_no_logit_sees_a_later_character(model):
    tokens = jnp.array([[1, 2, 3, 4, 5], [1, 2, 6, 0, 0], [1, 2, 3, 4, 6]])
    one, other, last = np.asarray(nnx.jit(lambda m, x: m(x))(model, tokens))
    np.testing.assert_array_equal(one[:2], other[:2])
    np.testing.assert_array_equal(one[:4], last[:4])
    # What differs is seen from there on, through the attention too.
    assert (np.abs(one - other)[2:].max(axis=1) > 1e-6).all()
    assert np.abs(one - last)[4].max() > 1e-6


def kernels(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [leaf for path, leaf in leaves if "kernel" in jax.tree_util.keystr(path)]


@pytest.mark.slow
def test_cutting_zeroes_the_smallest_weights_of_all_kernels(model):
    params = nnx.state(model)
    before, after = kernels(params), kernels(language_model.cut(params, 0.7))
    sizes, left = (
        np.concatenate([np.abs(np.ravel(leaf)) for leaf in leaves])
        for leaves in (before, after)
    )
    assert np.mean(left == 0) == pytest.approx(0.7, abs=1 / len(left))
    assert sizes[left == 0].max() < sizes[left != 0].min()


@pytest.mark.slow
def test_heads_without_output_and_neurons_nobody_reads_are_dead(model):
    graph, params = nnx.split(model)
    tokens = jnp.array([[1, 2, 3]])
    logits = jax.jit(lambda params: nnx.merge(graph, params)(tokens))
    changed = jax.tree.map(jnp.copy, params)
    attention, mlp = changed["blocks"][0]["attention"], changed["blocks"][1]
    edit(attention["value"]["kernel"], np.s_[:, 0], 0.0)
    edit(attention["out"]["kernel"], np.s_[1], 0.0)
    edit(mlp["up"]["kernel"], np.s_[:, 3], 0.0)
    edit(mlp["down"]["kernel"], np.s_[5], 0.0)
    blocks = [changed["blocks"][place] for place in (0, 1)]
    assert [int(language_model.dead_heads(block)) for block in blocks] == [2, 0]
    assert [int(language_model.dead_neurons(block)) for block in blocks] == [0, 2]
    before = logits(changed)
    assert np.abs(logits(params) - before).max() > 0
    # What else the dead ones hold reaches nothing.
    edit(attention["query"]["kernel"], np.s_[:], 1.0)
    edit(attention["out"]["kernel"], np.s_[0], 1.0)
    edit(attention["value"]["kernel"], np.s_[:, 1], 1.0)
    edit(mlp["up"]["kernel"], np.s_[:, 5], 1.0)
    np.testing.assert_array_equal(logits(changed), before)


def edit(kernel, where, number):
    entries = np.array(kernel[...])
    entries[where] = number
    kernel[...] = jnp.asarray(entries)


@pytest.mark.release
@needs_text
def test_a_quick_run_cuts_the_share_that_was_asked(tmp_path):
    record = run(language_model, QUICK, tmp_path, quick=True, stream=io.StringIO())
    assert_figure_shows_its_rows(language_model, QUICK, tmp_path)
    dense, cut, units = record["table"]
    assert (dense["zeros"], dense["cost"]) == (0, 0)
    # Log 65 is what a network that has learned nothing pays.
    assert dense["validation_loss"] < 3
    assert cut["way"] == CUT
    assert cut["zeros"] == pytest.approx(0.5, abs=1e-3)
    # A dead unit is zero in all of its kernels: what is left of one would cost.
    assert units["dead_heads"] > 0 and units["dead_neurons"] > 0
    dead = 4 * 16 * 8 * units["dead_heads"] + 2 * 16 * units["dead_neurons"]
    total = 4 * 16 * 16 + 2 * 16 * 64 + 16 * 65
    assert units["zeros"] > 0.99 * dead / total


@pytest.mark.release
@needs_text
@pytest.mark.parametrize("way", [REFIT, TARGET])
def test_a_wanted_share_of_zeros_is_there_at_the_end(way):
    row = language_model.measure(QUICK, seed=0, way=way, setting=0.5)
    assert row["zeros"] == pytest.approx(0.5, abs=1e-3)
