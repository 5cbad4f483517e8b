"""Verdicts come out both ways: true of some rows, false of others."""

import numpy as np
import pytest

from experiments.claims import exact_zeros, gene_expression
from experiments.kit import data_sets


def gene_rows(l1_accuracy, l1_genes, chosen):
    """Ten genes of 100 are chosen on two data sets; `chosen(seed)` says which."""
    return [
        {
            "data": data,
            "penalty": penalty,
            "seed": seed,
            "test_accuracy": l1_accuracy[data] if penalty == "L1" else 0.9,
            "share": 0.1,
            "genes": l1_genes if penalty == "L1" else 100,
            "genes_used": 100,
            "all_genes": 200,
            "chosen": chosen(seed),
            "violation": 0.0,
        }
        for data in l1_accuracy
        for penalty in gene_expression.PENALTIES
        for seed in range(3)
    ]


@pytest.mark.parametrize(
    ("golub", "alon", "genes", "is_steady", "word"),
    [
        (0.9, 0.9, 4, True, "holds: "),
        (0.9, 0.9, 4, False, "holds with conditions: "),
        (0.9, 0.9, 6, True, "false: "),
        (0.84, 0.9, 4, True, "false: "),
        (0.9, 0.84, 4, True, "false: "),
    ],
)
def test_gene_expression_judges_both_data_sets(golub, alon, genes, is_steady, word):
    def chosen(seed):
        return [1, 2, 3, 4] if is_steady else [4 * seed + i for i in range(4)]

    rows = gene_rows({"golub": golub, "alon": alon}, genes, chosen)
    told = gene_expression.verdict(gene_expression.Config(), rows)
    assert told.startswith(word)
    assert f"golub: L1 keeps {genes} of 100 genes at {golub:.1%}" in told
    assert f"alon: L1 keeps {genes} of 100 genes at {alon:.1%}" in told


def zeros_verdict(**changes):
    """The verdict on rows that hold with conditions, changed by method."""
    config = exact_zeros.Config(strengths=(1e-4, 1e-3), decays=(0.1,), seeds=2)
    rows = []
    for cell in exact_zeros.cells(config):
        is_l1 = cell["method"] == "regularize L1"
        row = {
            **cell,
            "validation_accuracy": 0.97,
            "test_accuracy": 0.97,
            "zeros": (0.6 if cell["strength"] < 3e-4 else 0.9) if is_l1 else 0.0,
        }
        for name in ("train_accuracy", "dead_pixels", "dead_neurons"):
            row[name] = 0.0
        row |= {"objective": 0.0, "stationarity": 0.0}
        row |= changes.get(cell["method"].replace(" ", "_"), dict)(cell)
        rows.append(row)
    return exact_zeros.verdict(config, rows)


def test_exact_zeros_takes_the_strength_that_validation_allows():
    def strong_is_bad_in(column):
        return lambda cell: {column: 0.95 if cell["strength"] > 3e-4 else 0.965}

    told = zeros_verdict(regularize_L1=strong_is_bad_in("validation_accuracy"))
    assert "60.0% exact zeros at strength 0.0001" in told
    # The test set would have chosen the weaker one.
    told = zeros_verdict(regularize_L1=strong_is_bad_in("test_accuracy"))
    assert told.startswith("false: ")
    assert "90.0% exact zeros at strength 0.001" in told
    assert "for 2.00 points of test accuracy (standard error 0.00)" in told
    told = zeros_verdict(regularize_L1=lambda _: {"validation_accuracy": 0.5})
    assert "at strength 0.0001" in told


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "holds with conditions: "),
        ({"L1_in_the_loss": {"zeros": 0.6}}, "holds: "),
        ({"L1_in_the_loss": {"zeros": 0.6}, "AdamW_decay": {"zeros": 0.1}}, "false: "),
        ({"L2_in_the_loss": {"zeros": 0.002}}, "false: "),
        ({"regularize_L1": {"zeros": 0.4}}, "false: "),
        ({"regularize_L1": {"test_accuracy": 0.959}}, "false: "),
        ({"regularize_L1": {"test_accuracy": 0.961}}, "holds with conditions: "),
    ],
)
def test_exact_zeros_comes_out_true_and_false(changes, word):
    given = {method: lambda _, c=columns: c for method, columns in changes.items()}
    assert zeros_verdict(**given).startswith(word)


def test_validation_images_are_a_part_of_the_training_images():
    split = data_sets.digits(0)
    inner = data_sets.validation(split, 0)
    both = np.concatenate([inner.train_x, inner.test_x])
    assert len(inner.test_x) == 288
    assert np.array_equal(np.unique(both, axis=0), np.unique(split.train_x, axis=0))
    assert len(both) == len(split.train_x)
