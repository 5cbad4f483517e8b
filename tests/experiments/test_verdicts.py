"""Verdicts come out both ways: true of some rows, false of others."""

import pytest

from experiments.claims import gene_expression


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
