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
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import experiments

from ._experiment import (
    Row,
    RunError,
    check,
    describe_fields,
    name_of,
    statement,
    with_fields,
)
from ._report import text_table, write_report
from ._runner import run


def main(words: Sequence[str], package: ModuleType = experiments) -> int:
    """Runs the command line `words` over a package of experiments; the exit status."""
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
        print(f"error: {error}", file=sys.stderr)
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


def _names(package: ModuleType) -> list[str]:
    found = (entry.name for entry in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def _load(package: ModuleType, name: str) -> ModuleType:
    names = _names(package)
    if name not in names:
        raise RunError(
            f"there is no experiment {name!r}; there are {', '.join(names) or 'none'} "
            "(names come first, then --field value pairs)"
        )
    module = importlib.import_module(f"{package.__name__}.{name}")
    check(module)
    return module


def _is_default(module: ModuleType) -> bool:
    return bool(getattr(module, "DEFAULT", False))


def _print_help(
    parser: argparse.ArgumentParser, package: ModuleType, names: Sequence[str]
) -> None:
    if not names:
        parser.print_help()
    for name in names:
        module = _load(package, name)
        print(f"{name}\n\n{inspect.cleandoc(module.__doc__ or '')}\n")
        print(f"Fields:\n{describe_fields(module)}\n")


def _print_list(package: ModuleType) -> None:
    for name in _names(package):
        module = _load(package, name)
        mark = "default" if _is_default(module) else "by name"
        texts = statement(module)
        print(f"{name} ({mark})\n    {texts['question']}\n    Cost: {texts['cost']}")


def _chosen(package: ModuleType, options: argparse.Namespace) -> list[ModuleType]:
    names = list(dict.fromkeys(options.names))
    if names and options.all:
        raise RunError("--all runs every experiment; give names or --all, not both")
    modules = [_load(package, name) for name in names or _names(package)]
    if not (names or options.all):
        modules = [module for module in modules if _is_default(module)]
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


def absent_packages(module: ModuleType) -> str:
    """Which packages it compares with are not installed; empty if all are."""
    packages: tuple[str, ...] = getattr(module, "PACKAGES", ())
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    mend = 'not installed: pip install -e ".[peers]"'
    return f"{', '.join(absent)} {mend}" if absent else ""


def absent_data(module: ModuleType, config: Any) -> str:
    """Why the data this experiment requires is not there; empty if it is."""
    folders = getattr(module, "REQUIRES", ())
    requires: tuple[str, ...] = folders(config) if callable(folders) else folders
    root = os.environ.get("JAXREG_DATA")
    if requires and not root:
        return f"set JAXREG_DATA to the folder that holds {', '.join(requires)}"
    missing = [folder for folder in requires if not Path(root or "", folder).is_dir()]
    return f"JAXREG_DATA={root} lacks {', '.join(missing)}" if missing else ""


def _print_result(record: Row) -> None:
    print(f"\n{text_table(record['table'])}\n")
    print(f"{record['experiment']}: {record['verdict']}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
