"""Runs experiments and writes the report.

    python -m experiments                       the default suite
    python -m experiments NAME [NAME ...]       these experiments
    python -m experiments NAME --field value    one experiment, its Config changed
    python -m experiments NAME --help           what it asks, and its fields
    python -m experiments --list                every experiment and its question

A tuple field takes comma-separated text: --strengths 1e-4,1e-3. An interrupted run
goes on where it stopped when the same command is given again.
"""

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import experiments
from experiments.harness.contract import (
    Row,
    RunError,
    describe_fields,
    name_of,
    statement,
    with_fields,
)
from experiments.harness.discovery import (
    absent_data,
    absent_packages,
    find,
    is_default,
    load,
)
from experiments.harness.report import text_table, write_report
from experiments.harness.runner import run


def main(words: Sequence[str], package: ModuleType = experiments) -> int:
    """Runs the command line `words` over a package of experiments.

    Returns the exit status.
    """
    parser = _parser(package)
    options, fields = parser.parse_known_args(words)
    try:
        if options.help:
            _print_help(parser, package, options.names)
        elif options.list:
            _print_list(package)
        else:
            return _run_all(package, options, fields)
    except RunError as error:
        notes = getattr(error, "__notes__", [])
        print("\n".join([f"error: {error}", *notes]), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nstopped; the same command without --fresh goes on from here",
            file=sys.stderr,
        )
        return 130
    return 0


def _parser(package: ModuleType) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {package.__name__}",
        usage="%(prog)s [NAME ...] [options] [--field value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments to run")
    flags = {
        "list": "list the experiments",
        "quick": "small configs, in seconds; kept apart from the real results",
        "all": "every experiment, not only the default suite",
        "fresh": "delete the rows of earlier runs first",
    }
    for flag, text in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=text)
    parser.add_argument("-h", "--help", action="store_true", help="show this")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(package.__path__[0]) / "results",
        metavar="DIR",
        help="where the results go (default: %(default)s)",
    )
    return parser


def _print_help(
    parser: argparse.ArgumentParser, package: ModuleType, names: Sequence[str]
) -> None:
    if not names:
        parser.print_help()
    for name in names:
        module = load(package, name)
        print(f"{name}\n\n{inspect.cleandoc(module.__doc__ or '')}\n")
        print(f"Fields:\n{describe_fields(module)}\n")


def _print_list(package: ModuleType) -> None:
    for name in find(package):
        module = load(package, name)
        mark = "default" if is_default(module) else "by name"
        texts = statement(module)
        print(f"{name} ({mark})\n    {texts['question']}\n    Cost: {texts['cost']}")


def _chosen(package: ModuleType, options: argparse.Namespace) -> list[ModuleType]:
    names = list(dict.fromkeys(options.names))
    if names and options.all:
        raise RunError("--all runs every experiment; give names or --all, not both")
    modules = [load(package, name) for name in names or find(package)]
    if not (names or options.all):
        modules = [module for module in modules if is_default(module)]
    if not modules:
        raise RunError("nothing to run; --list shows the experiments, --all runs them")
    return modules


def _run_all(
    package: ModuleType, options: argparse.Namespace, fields: Sequence[str]
) -> int:
    modules = _chosen(package, options)
    if fields and len(modules) > 1:
        raise RunError(
            f"{' '.join(fields)!r} is no option, and fields are set for one experiment "
            f"at a time, while {len(modules)} are to run; name exactly one"
        )
    root = options.out / "quick" if options.quick else options.out
    configs = [
        with_fields(module, module.QUICK if options.quick else module.Config(), fields)
        for module in modules
    ]
    skipped = 0
    for module, config in zip(modules, configs, strict=True):
        absent = absent_packages(module) or absent_data(module, config)
        if absent:
            print(f"{name_of(module)}: skipped, {absent}")
            skipped += 1
            continue
        record = run(
            module,
            config,
            root / name_of(module),
            quick=options.quick,
            stream=sys.stdout,
            fresh=options.fresh,
        )
        _print_result(record)
        # After each one, so that a suite stopped half-way has its report too.
        write_report(root)
    if skipped < len(modules):
        print(f"\nreport: {root / 'report.html'}")
    return 1 if skipped and options.names else 0


def _print_result(record: Row) -> None:
    print(f"\n{text_table(record['table'])}\n")
    print(f"{record['experiment']}: {record['verdict']}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
