"""Writes docs/bad_input.md from the rows: `python -m tests.system.bad_input.page`."""

from experiments.harness.docs import ROOT
from tests.support import ways
from tests.system.bad_input.chains import CHAIN_ROWS
from tests.system.bad_input.inputs import PARAMS_ROWS, PENALTY_ROWS, Row
from tests.system.bad_input.outcomes import MEASURED
from tests.system.bad_input.steps import CHANGED_ROWS, GRADS_ROWS, STATE_ROWS
from tests.system.bad_input.sweeps import SWEEP_ROWS

PAGE = ROOT / "docs" / "bad_input.md"
HEAD = """# Bad input

What comes of input that cannot be right: an error that names the argument or the leaf
and says what to do, or an outcome that is measured. Every row is a test, run for each
of the calls that it names (`tests/system/bad_input/test_bad_input.py`); `...` in a
message stands for what differs from call to call. Leaves are named by their path.
"""
SECTIONS = {
    "The penalty": PENALTY_ROWS,
    "The parameters": PARAMS_ROWS,
    "The gradients": GRADS_ROWS,
    "The state": STATE_ROWS,
    "Changes between steps": CHANGED_ROWS,
    **MEASURED,
    "A sweep over strengths": SWEEP_ROWS,
    "A check of a chain": CHAIN_ROWS,
}
# Longer lists first: what they hold is not listed again.
SETS = {
    "every transformation, report and rule": ways.EVERYWHERE,
    "every transformation and report": ways.WITH_REPORTS,
    "every transformation": ways.EVERY,
    "every report": tuple(ways.REPORTS),
    "the adaptive `prox_` optimizers and `proximal`": ways.PROXIMAL,
}


def named(names: tuple[str, ...]) -> str:
    left, said = list(names), []
    for words, members in SETS.items():
        if set(members) <= set(left):
            said.append(words)
            left = [name for name in left if name not in members]
    return ", ".join([*said, *(f"`{name}`" for name in left)])


def table(rows: list[Row]) -> str:
    lines = ["| input | of | what happens | why nothing is lost |"]
    lines.append("| --- | --- | --- | --- |")
    lines += [
        f"| {row.given} | {named(row.ways)} | {row.happens} | {row.kept} |"
        for row in rows
    ]
    return "\n".join(lines)


def page() -> str:
    sections = [f"## {title}\n\n{table(rows)}\n" for title, rows in SECTIONS.items()]
    return "\n".join([HEAD, *sections])


if __name__ == "__main__":
    PAGE.write_text(page())
