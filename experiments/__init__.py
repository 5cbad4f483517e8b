"""Experiments: one question per module, run with `python -m experiments`.

A module `experiments/<name>.py` is an experiment when its name has no leading
underscore. It states its case in its docstring, in five labelled paragraphs
(`Question:`, `Claim:`, `Expected:`, `Cost:`, `Command:`), where the numbers came out
otherwise than expected also in `Corrected:`, and exposes

    Config              frozen dataclass; every field has a default and is an int,
                        a float, a str, a bool or a tuple of these
    QUICK               a small Config: the whole experiment in seconds
    cells(config)       the plan: a list of dicts of JSON scalars, no work
    measure(config, **cell)
                        one cell: a dict of JSON scalars or nested lists; pure, so
                        the same cell gives the same numbers
    summarise(config, rows)
                        the table, a list of dicts; a row is {**cell, **measured}
    plot(config, rows)  a matplotlib Figure
    verdict(config, rows)
                        one paragraph written from the numbers, beginning with
                        "holds", "holds with conditions", "false" or "measured"

and, where needed, `DEFAULT = True` (part of the default suite) and `REQUIRES`, a
tuple of folders under the environment variable JAXREG_DATA without which the
experiment is skipped, or a function of the config that returns it; `PACKAGES` does the
same for packages of the extra `peers`. Nothing is registered anywhere: the file is the
experiment.

`_experiment` checks this contract, `_runner` measures the cells and writes
`results/<name>/` (quick runs: `results/quick/<name>/`), `_rows` is its checkpoint,
`_report` turns those folders into one page, `__main__` is the command line.
"""
