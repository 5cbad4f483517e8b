"""The experiments on the catalogue show and time what they say."""

import pytest

import jaxreg
from experiments.correctness import gallery
from experiments.cost import prox_cost
from jaxreg._core.leafwise import Elementwise


def test_the_gallery_shows_every_elementwise_penalty():
    shown = {type(entry.penalty) for entry in gallery.GALLERY.values()}
    public = {getattr(jaxreg, name) for name in jaxreg.__all__}
    kinds = {k for k in public if isinstance(k, type) and issubclass(k, Elementwise)}
    assert kinds - {Elementwise} <= shown


@pytest.mark.parametrize(
    ("penalty", "thresholds", "jumps"),
    [
        ("L1", [0.25, 0.75, 1.5], [0, 0, 0]),
        # Hard thresholds: sqrt(2 step), and beyond the bound sqrt(knot step).
        ("L0", [0.5**0.5, 1.5**0.5, 3**0.5], [0.5**0.5, 1.5**0.5, 3**0.5]),
        ("MCP", [0.75, 1.425, 3.375**0.5], [0, 0, 3.375**0.5]),
    ],
)
def test_the_gallery_measures_thresholds_and_jumps(penalty, thresholds, jumps):
    row = gallery.measure(gallery.QUICK, penalty=penalty)
    assert row["thresholds"] == pytest.approx(thresholds, rel=1e-9)
    assert [max(jump) for jump in row["jumps"]] == pytest.approx(jumps, rel=1e-9)


def test_prox_cost_compiles_every_leafwise_prox():
    held = {type(penalty) for penalty in prox_cost.catalogue(64).values()}
    public = {getattr(jaxreg, name) for name in jaxreg.__all__}
    kinds = {k for k in public if isinstance(k, type) and issubclass(k, jaxreg.Penalty)}
    # It takes two leaves; the others have no prox.
    left_out = {jaxreg.Hierarchical, jaxreg.Orthogonality, jaxreg.HoyerSquare}
    bases = {jaxreg.Penalty, jaxreg.Leafwise, jaxreg.Elementwise, jaxreg.Constraint}
    assert kinds - held == bases | left_out


@pytest.mark.slow
@pytest.mark.parametrize("pair", prox_cost.LIMITS, ids=" ".join)
def test_what_prox_cost_times_gives_the_answer_of_jaxreg(pair):
    operator, against = pair
    row = prox_cost.measure(prox_cost.QUICK, operator=operator, against=against)
    # Float32 answers of two algorithms.
    assert row["error"] < 1e-4
