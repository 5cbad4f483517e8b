"""Verdicts come out both ways: true of some rows, false of others."""

import numpy as np
import pytest

from experiments.claims import (
    exact_zeros,
    feature_noise,
    feature_selection,
    gene_expression,
    generalization,
    keras_regularizer,
    normalization,
    outliers,
    stability,
)
from experiments.correctness import lasso
from experiments.kit import data_sets
from experiments.smaller_models import smaller_models
from experiments.strength import base_strengths, choosing_strength, sparsity_targets


def verdict_on(experiment, config, measured):
    """The verdict on rows whose numbers `measured` gives, called with a cell."""
    plan = experiment.cells(config)
    return experiment.verdict(config, [{**cell, **measured(**cell)} for cell in plan])


CHECKS = {"from_sklearn": 0.0, "kkt": 0.0}
REFERENCES = ("keras", "formulas")


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

    def measured(method, strength, seed):
        sparse = {"zeros": 0.6 if strength < 3e-4 else 0.9}
        unused = ("train_accuracy", "dead_pixels", "dead_neurons", "objective")
        return {
            **dict.fromkeys((*unused, "stationarity", "zeros"), 0.0),
            **(sparse if method == "regularize L1" else {}),
            **{"validation_accuracy": 0.97, "test_accuracy": 0.97},
            **changes.get(method.replace(" ", "_"), lambda _: {})(strength),
        }

    return verdict_on(exact_zeros, config, measured)


def test_exact_zeros_takes_the_strength_that_validation_allows():
    def strong_is_bad_in(column):
        return lambda strength: {column: 0.95 if strength > 3e-4 else 0.965}

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


@pytest.mark.parametrize(
    ("better", "word", "told"),
    [
        ((), "false: ", "in 0 of 2 problems"),
        ((outliers.NETWORK,), "holds with conditions: ", "in 1 of 2 problems"),
        ((outliers.LINEAR, outliers.NETWORK), "holds: ", "in 2 of 2 problems"),
    ],
)
def test_outliers_judges_both_problems(better, word, told):
    def measured(problem, method, **_):
        gain = 0.7 if method == "squared + L1" and problem in better else 1.0
        return {"error": gain, **CHECKS}

    verdict = verdict_on(outliers, outliers.QUICK, measured)
    assert verdict.startswith(word)
    assert f"L1 is more robust than L2 {told}" in verdict


@pytest.mark.parametrize(
    ("part", "word", "told"),
    [
        (None, "holds with conditions: ", "irrelevant features L1, under a bounded"),
        (feature_noise.GAUSSIAN, "false: ", "irrelevant features not always L1,"),
        (feature_noise.DIABETES, "false: ", "irrelevant features not always L1,"),
        (feature_noise.EACH, "false: ", "change of each L2, of all together L2."),
        (feature_noise.TOGETHER, "false: ", "change of each L1, of all together L1."),
    ],
)
def test_feature_noise_judges_every_part(part, word, told):
    def measured(method, amount, **cell):
        usual = "L2" if cell["part"] == feature_noise.TOGETHER else "L1"
        size = 1.0 if (method == usual) != (cell["part"] == part) else 2.0
        return {"error": size, "worst": size, "searched": size, **CHECKS}

    verdict = verdict_on(feature_noise, feature_noise.QUICK, measured)
    assert verdict.startswith(word) and told in verdict


@pytest.mark.parametrize(
    ("fall", "noise", "dense", "word"),
    [
        (0.1, 0.0, 2.0, "holds with conditions: "),
        (0.1, 0.0, 0.5, "holds: "),
        (-0.1, 0.0, 2.0, "false: "),
        # A mean gain of 0.01 whose standard error is 0.05.
        (0.01, 0.1, 2.0, "false: "),
    ],
)
def test_generalization_asks_for_clear_gains(fall, noise, dense, word):
    config = generalization.QUICK

    def measured(problem, amount, method, seed):
        error = 0.5 - (method != "no penalty") * (fall + noise * (seed - 0.5))
        if problem == generalization.LINEAR:
            error = 1.0 if method != "L1" else dense if amount == 200 else 0.5
        return {"error": error, "zeros": 0.0, **CHECKS}

    verdict = verdict_on(generalization, config, measured)
    assert verdict.startswith(word)
    assert f"{8 if fall == 0.1 else 0} of 8 penalties gain clearly" in verdict


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "holds with conditions: "),
        ({(stability.CANCER, "elastic net"): 0.9}, "holds: "),
        ({(stability.DROP, "L1"): 0.04}, "false: "),
        ({(stability.REPLACE, "L1"): 0.04}, "false: "),
        ({(stability.TWINS, "elastic net"): 1e-3}, "false: "),
        ({(stability.TWINS, "L1"): 1e-9}, "false: "),
    ],
)
def test_stability_judges_every_part(changes, word):
    spreads = {
        (stability.DIABETES, "elastic net"): 0.6,
        (stability.TWINS, "elastic net"): 1e-9,
    }

    def measured(method, **cell):
        usual = 0.5 if method == "L1" else 0.01
        spread = (spreads | changes).get((cell["part"], method), usual)
        return {"spread": spread, "nonzeros": 1, **CHECKS}

    assert verdict_on(stability, stability.QUICK, measured).startswith(word)


@pytest.mark.parametrize(
    ("with_norm", "by_scales", "word"),
    [
        (0.4, 0.5, "holds with conditions: "),
        (0.5, 0.5, "false: "),
        (0.4, 0.3, "false: "),
    ],
)
def test_normalization_compares_with_and_without_it(with_norm, by_scales, word):
    def measured(network, way, **_):
        dead = {normalization.FREE: 0.0, normalization.SCALES: by_scales}
        kernels = 0.9 if network == normalization.MLP else with_norm
        share = dead.get(way, kernels)
        return {"dead_share": share, "test_accuracy": 0.9, "kernel_norm": 1.0}

    verdict = verdict_on(normalization, normalization.QUICK, measured)
    assert verdict.startswith(word)
    assert f"without and with BatchNorm 90% and {with_norm:.0%}" in verdict


@pytest.mark.parametrize(
    ("in_loss", "by_prox", "accuracy", "apart", "word"),
    [
        (0.0, 0.9, 0.9, 0.0, "holds with conditions: "),
        (0.9, 0.9, 0.9, 0.0, "holds: "),
        (0.0, 0.4, 0.9, 0.0, "false: "),
        (0.0, 0.9, 0.88, 0.0, "false: "),
        (0.0, 0.9, 0.9, 1e-3, "false: "),
    ],
)
def test_keras_regularizer_judges_zeros_price_and_distance(
    in_loss, by_prox, accuracy, apart, word
):
    names = [f"{when}from_{whom}" for when in ("", "early_") for whom in REFERENCES]

    def measured(way, **_):
        is_ours = way == keras_regularizer.OURS
        return {
            **dict.fromkeys(names, apart),
            "test_accuracy": accuracy if is_ours else 0.9,
            "exact_zeros": by_prox if is_ours else in_loss,
            "below_1e-3": 0.95,
        }

    config = keras_regularizer.QUICK
    assert verdict_on(keras_regularizer, config, measured).startswith(word)


@pytest.mark.parametrize(
    ("right", "l1_error", "order", "word"),
    [
        (1.0, 0.1, feature_selection.ORDER, "holds: "),
        (0.5, 0.1, feature_selection.ORDER, "holds with conditions: "),
        (1.0, 0.5, feature_selection.ORDER, "false: "),
        (1.0, 0.1, feature_selection.ORDER[::-1], "false: "),
    ],
)
def test_feature_selection_judges_signs_error_and_order(right, l1_error, order, word):
    def measured(case, **_):
        fails = case == feature_selection.BREAKS
        return {
            "right": right if fails else 1.0,
            "test_error": l1_error if case == "L1" else 0.3,
            "nonzeros": 3,
            "order": order,
            "largest": 2.0,
            "error": 0.0,
            "violation": 0.0,
        }

    config = feature_selection.QUICK
    assert verdict_on(feature_selection, config, measured).startswith(word)


@pytest.mark.parametrize(
    ("missed", "accuracy", "word"),
    [(1, 0.895, "false: "), (2, 0.9, "holds: "), (0, 0.85, "holds: ")],
)
def test_base_strengths_judges_misses_and_accuracy(missed, accuracy, word):
    config = base_strengths.Config()

    def measured(base, **_):
        is_first = base == config.bases[0]
        return {"missed": -missed, "test_accuracy": accuracy if is_first else 0.9}

    verdict = verdict_on(base_strengths, config, measured)
    assert verdict.startswith(word)
    assert f"is missed by {missed} units at most" in verdict


@pytest.mark.parametrize(
    ("missed", "accuracy", "zeros", "word"),
    [
        (1, 0.895, 0.999, "holds with conditions: a strength need not "),
        (2, 0.9, 0.999, "false: a strength may have to "),
        (0, 0.88, 0.999, "false: "),
        # No fixed strength has as many zeros.
        (0, 0.9, 0.1, "false: "),
    ],
)
def test_sparsity_targets_judges_every_target(missed, accuracy, zeros, word):
    def measured(way, **_):
        is_target = way == sparsity_targets.TARGET
        return {
            "missed": missed if is_target else 0,
            "zero_share": 0.9 if is_target else zeros,
            "test_accuracy": accuracy if is_target else 0.9,
            "refit_accuracy": 0.9,
        }

    config = sparsity_targets.QUICK
    assert verdict_on(sparsity_targets, config, measured).startswith(word)


@pytest.mark.parametrize(
    ("accuracy", "ratio", "stored", "word"),
    [
        ({"mnist": 0.98, "fashion-mnist": 0.89}, 0.5, 100, "holds: "),
        ({"mnist": 0.98, "fashion-mnist": 0.89}, 2.0, 100, "holds with conditions: "),
        ({"mnist": 0.98, "fashion-mnist": 0.87}, 0.5, 100, "holds with conditions: "),
        ({"mnist": 0.96, "fashion-mnist": 0.87}, 0.5, 100, "false: "),
        ({"mnist": 0.98, "fashion-mnist": 0.89}, 0.5, 5000, "false: "),
    ],
)
def test_smaller_models_judges_all_its_data(accuracy, ratio, stored, word):
    dense = {"mnist": 0.985, "fashion-mnist": 0.895}
    config = smaller_models.Config(seeds=2)

    def measured(recipe, data, part, **_):
        if part == smaller_models.INFERENCE:
            names = ("csr_scipy", "bcoo_jax", "smaller_jax")
            return {f"ratio_{name}": ratio for name in names}
        is_dense = recipe == "dense"
        reached = dense[data] if is_dense else accuracy[data]
        sparse = ("csr32", "csr16", "mask", "smaller")
        return {
            "accuracy": reached - 0.01,
            "refit_accuracy": reached,
            "weights": 1000,
            "weights_left": 1000 if is_dense else 20,
            "units_left": [1],
            "inputs_left": 1,
            "smaller_gap": 0.0,
            "bytes_dense": 4000,
            **{f"bytes_{name}": stored for name in sparse},
        }

    verdict = verdict_on(smaller_models, config, measured)
    assert verdict.startswith(word)
    for data, reached in accuracy.items():
        assert f"{data} {reached:.2%} at 50x" in verdict
    assert f"Fewer bytes at these targets: {4000 / stored:.0f}x (CSR, 32" in verdict


@pytest.mark.parametrize(
    ("worst", "untuned", "word", "count"),
    [
        (1.0, {"all": 1.0}, "holds: ", 4),
        (1.0, {"diabetes": 1.0}, "holds with conditions: ", 1),
        (1.0, {}, "false: ", 0),
        (0.0, {"all": 1.0}, "false: ", 4),
    ],
)
def test_choosing_strength_judges_every_problem(worst, untuned, word, count):
    def measured(problem, seed):
        excess = {
            choosing_strength.WORST: worst,
            choosing_strength.UNTUNED: untuned.get("all", untuned.get(problem, 0.0)),
        }
        ways = (
            choosing_strength.LEAST,
            choosing_strength.REFITTED,
            choosing_strength.STABLE,
            *excess,
        )
        errors = [1.0 + excess.get(way, 0.0) for way in ways]
        chosen = [[0.1, error, 3, 0, 0] for error in errors]
        return {"ways": list(ways), "chosen": chosen, "flat_decades": 0.5}

    config = choosing_strength.Config(seeds=2, network_seeds=2)
    verdict = verdict_on(choosing_strength, config, measured)
    assert verdict.startswith(word)
    assert f"(worse in {count} of 4 problems)" in verdict


@pytest.mark.parametrize(
    ("solved", "word"),
    [
        (lambda method: True, "holds: "),
        (lambda method: "sgd" in method, "holds with conditions: "),
        (lambda method: False, "false: "),
    ],
    ids=["all", "some", "none"],
)
def test_lasso_counts_the_optimizers_that_solve_it(solved, word):
    def measured(method, **_):
        unused = ("zeros", "zeros_wanted", "objective", "largest_error")
        is_solved = solved(method)
        gap = 1e-12 if is_solved else 1e-3
        return {
            **dict.fromkeys(unused, 0.0),
            **{"gap": gap, "support_match": float(is_solved)},
        }

    assert verdict_on(lasso, lasso.QUICK, measured).startswith(word)
