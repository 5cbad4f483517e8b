"""Fits of `gene_expression` learn from their training samples alone."""

import dataclasses

import numpy as np
import pytest
from sklearn import model_selection

from experiments.claims import gene_expression
from experiments.kit import data_sets

CONFIG = dataclasses.replace(gene_expression.QUICK, most_last=500)


def expression(samples=30, genes=12):
    generator = np.random.default_rng(0)
    levels = np.exp(generator.normal(size=(samples, genes)))
    classes = (np.arange(samples) % 2).astype(np.float32)
    levels[:, 0] *= np.where(classes, 20.0, 1.0)
    return data_sets.Expression(levels, classes, fold=20.0, difference=1.0)


def altered(data, samples):
    """Other levels in `samples`, one of them with a gene far beyond all others."""
    levels = data.levels.copy()
    levels[samples] = levels[samples][:, ::-1] * 3
    levels[samples[0]] *= np.where(np.arange(levels.shape[1]) % 2, 1e3, 1.0)
    return data._replace(levels=levels)


@pytest.mark.parametrize("penalty", ["L1", "L2"])
def test_test_samples_leave_choice_and_fit_unchanged(penalty):
    data, seed = expression(), 1
    _, test = model_selection.train_test_split(
        np.arange(30), test_size=1 / 3, stratify=data.classes, random_state=seed
    )
    first, second = (
        gene_expression.evaluate(CONFIG, given, penalty, seed)
        for given in (data, altered(data, test))
    )
    for name in ("share", "genes", "genes_used", "chosen", "violation"):
        assert first[name] == second[name], name
    assert 0 < first["genes_used"] < first["all_genes"]


def test_standardisation_and_filter_learn_from_the_mask_alone():
    data, mask = expression(), np.arange(30) < 20
    before = data_sets.standardised(data, mask)
    after = data_sets.standardised(altered(data, np.flatnonzero(~mask)), mask)
    assert np.array_equal(before[mask], after[mask])
    assert not np.array_equal(before[~mask], after[~mask])
    used = np.any(before != 0, axis=0)
    ratios = data.levels[mask].max(axis=0) / data.levels[mask].min(axis=0)
    assert np.array_equal(used, ratios > 20) and 0 < used.sum() < 12
    # Float32 means and deviations of 20 samples.
    assert np.allclose(before[mask][:, used].mean(axis=0), 0, atol=1e-6)
    assert np.allclose(before[mask][:, used].std(axis=0), 1, atol=1e-6)
