"""Bytes that a compiled step reads, writes and holds, as counted by XLA."""

import jax
import pytest

from experiments.cost import step_cost

ONE_ROUND = step_cost.Config(rounds=1)
TEN_MILLION = 10_000_000

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="words and blocks are those of XLA for CPUs"
)


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("adamw", 10),
        ("regularize(adam), L1", 16),
        ("regularize(adam), rows", 19),
    ],
)
def test_a_step_moves_the_words_of_the_design_and_holds_no_leaf(way, words):
    row = step_cost.measure(ONE_ROUND, way=way, setup="large", parameters=TEN_MILLION)
    # Some 20 numbers for each row of 1,000 come on top.
    assert row["words"] == pytest.approx(words, abs=0.1)
    assert row["temporaries"] <= 0.01


def test_groups_in_adams_metric_hold_blocks_and_no_leaf():
    row = step_cost.measure(
        ONE_ROUND, way="prox_adam, rows", setup="large", parameters=4_000_000
    )
    # Of one leaf of four some blocks, of 2^18 entries each; whole leaves made it 6.8.
    assert row["temporaries"] <= 0.25
