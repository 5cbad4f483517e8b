"""Experiments: one question per module, run with `python -m experiments`.

A module without a leading underscore in one of the rooms (`claims`, `correctness`,
`cost`, `strength`, ...) is an experiment. Its docstring states its case in five
labelled paragraphs (`Question:`, `Claim:`, `Expected:`, `Cost:`, `Command:`), and in
`Corrected:` where the numbers came out otherwise. It exposes

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

and, where needed, `DEFAULT = True` (part of the default suite), `REQUIRES`, a tuple of
folders under the environment variable JAXREG_DATA without which the experiment is
skipped, or a function of the config that returns it, and `PACKAGES`, the same for
packages of the extra `peers`. Nothing is registered anywhere: the file is the
experiment.

`harness` checks this contract (`contract`), finds the modules (`discovery`), measures
the cells and writes `results/<name>/` (`runner`, with `rows` as its checkpoint; quick
runs go to `results/quick/<name>/`), and turns those folders into one page (`report`)
and into the tables of the documents (`docs`). `kit` is what several experiments use.
"""
