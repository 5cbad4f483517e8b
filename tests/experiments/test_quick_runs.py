"""Every experiment's quick run reaches its report, and a cell can be measured again."""

import json

import pytest

import experiments
from experiments import __main__
from experiments.harness import answers, discovery
from tests.support.figures import assert_figure_shows_its_rows

NAMES = list(discovery.find(experiments))
# What the tests of these experiments run and read.
TESTED_ON_THEIR_OWN = {
    "choosing_strength",
    "feature_noise",
    "gene_expression",
    "generalization",
    "language_model",
    "neural_feature_selection",
    "scale",
    "smaller_models",
    "warm_starts",
}
# More than ten methods or networks are compiled.
LONG = {"normalization", "support_recovery"}
TIMED = {"leaves", "prox_cost", "step_bandwidth", "step_cost"}


def module_of(name):
    return discovery.load(experiments, name)


def is_default(name):
    return getattr(module_of(name), "DEFAULT", False)


# CI runs those of the default suite by `python -m experiments --quick`.
BY_NAME = [n for n in NAMES if not is_default(n) and n not in TESTED_ON_THEIR_OWN]


def test_every_experiment_stands_in_one_section_of_the_report():
    listed = [name for names in answers.SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(NAMES)


def test_every_experiment_has_committed_results(committed_results):
    for name in NAMES:
        folder = committed_results / name
        record = json.loads((folder / "run.json").read_text())
        assert not record["quick"] and record["commit"] and record["versions"], name
        assert not record["dirty"], f"{name}: measured with uncommitted changes"
        assert (folder / "table.csv").is_file(), name
        assert (folder / "figure.png").is_file(), name


@pytest.mark.parametrize("answer", answers.ANSWERS, ids=lambda a: a.question)
def test_an_answer_rests_on_the_committed_verdicts(answer, committed_results):
    for name, word in answer.rests_on.items():
        record = json.loads((committed_results / name / "run.json").read_text())
        assert record["verdict"].startswith(f"{word}:"), name


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.release if n in LONG else pytest.mark.slow)
        for n in BY_NAME
    ],
)
def test_a_quick_run_reaches_its_report(name, tmp_path):
    module = module_of(name)
    absent = discovery.absent_packages(module) or discovery.absent_data(
        module, module.QUICK
    )
    if absent:
        pytest.skip(absent)
    assert __main__.main([name, "--quick", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "quick" / name
    record = json.loads((folder / "run.json").read_text())
    assert record["table"] and record["quick"]
    assert name in (tmp_path / "quick" / "report.html").read_text()
    assert_figure_shows_its_rows(module, module.QUICK, folder)
    if name not in TIMED:
        line = json.loads((folder / "rows.jsonl").read_text().splitlines()[1])
        again = module.measure(module.QUICK, **line["cell"])
        assert json.loads(json.dumps(again)) == line["measured"]
