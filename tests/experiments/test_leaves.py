"""Models of `leaves` have their published size; its verdict has three outcomes."""

import math

import pytest

from experiments.cost import leaves

CONFIG = leaves.Config(leaves=(10, 100), models=("ResNet-50",))


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("ResNet-50", 25_557_032),
        ("GPT-2, 12 blocks", 124_439_808),
        ("GPT-2, 48 blocks", 1_557_611_200),
    ],
)
def test_a_model_has_its_published_number_of_parameters(model, parameters):
    assert sum(map(math.prod, leaves.MODELS[model]().values())) == parameters


def rows(tracing=1.0, compiling=1.0, together=1.0, slower=1.0):
    """Each time is linear in the leaves, but for `slower` at the most."""
    shapes = {"10 kernels": 10, "100 kernels": 100, "ResNet-50": 161}
    return [
        {
            "parameters": name,
            "way": way,
            "leaves": count,
            "tracing_seconds": count * (slower if count == 100 else 1.0),
            "tracing": tracing,
            "compiling": compiling,
            "together": together,
        }
        for name, count in shapes.items()
        for way in leaves.WAYS
    ]


def test_the_verdict_holds_within_all_limits():
    verdict = leaves.verdict(CONFIG, rows())
    assert verdict.startswith("holds: ") and "above" not in verdict


@pytest.mark.parametrize("part", ["tracing", "compiling", "together"])
def test_a_limit_that_is_missed_is_named(part):
    verdict = leaves.verdict(CONFIG, rows(**{part: 9.0}))
    assert verdict.startswith("holds with conditions: ")
    assert "9.0 (limit" in verdict


def test_a_program_that_grows_faster_than_its_leaves_is_false():
    assert leaves.verdict(CONFIG, rows(slower=2.0)).startswith("false: ")
