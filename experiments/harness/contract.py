"""The contract of an experiment's module, checked before any work starts.

A missing `verdict` that is noticed after a night of measuring costs a night, so the
parts, the docstring, the config's fields and the plan are all checked up front.
"""

import dataclasses
import inspect
import json
import re
import shlex
import typing
from collections import Counter
from collections.abc import Sequence
from types import EllipsisType, ModuleType
from typing import Any

# JSON scalars, or nested lists of these, by column.
Row = dict[str, Any]
# An instance of an experiment's frozen dataclass `Config`.
Config = Any

LABELS = ("Question", "Claim", "Expected", "Cost", "Command")
# Optional: what makes the verdict come out one way or another, written before the run.
RULE = "Rule"
# Optional: what came out other than expected, and why.
CORRECTED = "Corrected"
PARTS = ("Config", "QUICK", "cells", "measure", "summarise", "plot", "verdict")
OPTIONS = ("list", "quick", "all", "fresh", "out", "help")
FIELD_TYPES = (int, float, str, bool)


class RunError(Exception):
    """An experiment or a request that cannot be run; the message says what to do."""


def name_of(module: ModuleType) -> str:
    """The experiment's name: the last part of its module's name."""
    return module.__name__.rpartition(".")[2]


def statement(module: ModuleType) -> dict[str, str]:
    """The labelled paragraphs of the docstring, keyed by the label in lower case.

    Raises:
      RunError: a label is absent or has no text.
    """
    either = "|".join((*LABELS, RULE, CORRECTED))
    paragraphs = re.findall(
        rf"^({either}):(.*?)(?=^[ \t]*$|^(?:{either}):|\Z)",
        inspect.cleandoc(module.__doc__ or ""),
        flags=re.MULTILINE | re.DOTALL,
    )
    texts = {label.lower(): " ".join(text.split()) for label, text in paragraphs}
    missing = [f"{label}:" for label in LABELS if not texts.get(label.lower())]
    if missing:
        raise RunError(
            f"experiment {name_of(module)!r} lacks {', '.join(missing)} in its "
            "docstring; each label starts a line and its text follows it"
        )
    return texts


def check(module: ModuleType) -> None:
    """Raises RunError unless the module has every part and a usable Config."""
    name = name_of(module)
    missing = [part for part in PARTS if part not in vars(module)]
    if missing:
        raise RunError(
            f"experiment {name!r} lacks {', '.join(missing)}; every experiment "
            f"exposes {', '.join(PARTS)}"
        )
    statement(module)
    if not isinstance(module.QUICK, module.Config):
        raise RunError(f"QUICK of experiment {name!r} is not an instance of its Config")
    for field, hint in field_types(module).items():
        if field in OPTIONS:
            raise RunError(
                f"field {field!r} of experiment {name!r} hides the option --{field}; "
                f"rename it (taken: {', '.join(OPTIONS)})"
            )
        elements = _elements(hint)
        if not all(part in FIELD_TYPES for part in elements or [hint]):
            raise RunError(
                f"field {field!r} of experiment {name!r} is {hint}; allowed are int, "
                "float, str, bool and tuple[...] of these"
            )


def field_types(module: ModuleType) -> dict[str, Any]:
    """The type of each field of `module.Config`, in the order they are declared."""
    hints = typing.get_type_hints(module.Config)
    return {
        field.name: hints[field.name] for field in dataclasses.fields(module.Config)
    }


def describe_fields(module: ModuleType) -> str:
    """One line per field: its option, its type and its default."""
    defaults = module.Config()
    rows = [
        (f"--{field}", _type_name(hint), field_text(getattr(defaults, field)))
        for field, hint in field_types(module).items()
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    return "\n".join(
        f"  {option:<{widths[0]}}  {kind:<{widths[1]}}  default {default or '(empty)'}"
        for option, kind, default in rows
    )


def with_fields(module: ModuleType, start: Config, words: Sequence[str]) -> Config:
    """`start` with the fields replaced that `words` set, as `--field value` pairs.

    Raises:
      RunError: an unknown field, a field without a value, or a value of another type.
    """
    hints = field_types(module)
    values: Row = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        field, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or field not in hints:
            raise RunError(
                f"experiment {name_of(module)!r} has no field {word!r}; its fields "
                f"are\n{describe_fields(module)}\nbeside the options "
                f"--{', --'.join(OPTIONS)}"
            )
        if not equals and not rest:
            raise RunError(f"--{field} needs a value: {_type_name(hints[field])}")
        text = text if equals else rest.pop(0)
        try:
            values[field] = _parse(hints[field], text)
        except ValueError as error:
            raise RunError(
                f"--{field} takes {_type_name(hints[field])}, not {text!r}"
            ) from error
    return dataclasses.replace(start, **values)


def command_line(name: str, config: Config, start: Config, quick: bool) -> str:
    """The command that repeats a run: only the fields that differ from `start`."""
    words = ["python", "-m", "experiments", name, *(["--quick"] if quick else [])]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != getattr(start, field.name):
            words += [f"--{field.name}", field_text(value)]
    return shlex.join(words)


def plan(module: ModuleType, config: Config) -> list[Row]:
    """The cells to measure.

    Raises:
      RunError: no cells, the same cell twice, or a value that is not a JSON scalar.
    """
    cells = [dict(cell) for cell in module.cells(config)]
    for cell in cells:
        require_plain(f"cells() of experiment {name_of(module)!r}", cell, nested=False)
    counts = Counter(map(cell_key, cells))
    twice = [key for key, count in counts.items() if count > 1]
    if twice or not cells:
        raise RunError(
            f"cells() of experiment {name_of(module)!r} plans "
            f"{f'{twice[0]} twice' if twice else 'nothing'}; it must give a non-empty "
            "list of different dicts (a repetition is a cell with its own seed)"
        )
    return cells


def cell_key(cell: Row) -> str:
    """A cell's identity: its JSON text with sorted keys."""
    return json.dumps(cell, sort_keys=True)


def require_plain(where: str, values: Row, *, nested: bool) -> None:
    """Raises RunError unless JSON can hold `values`: scalars, lists if `nested`."""

    def plain(value: Any) -> bool:
        if nested and isinstance(value, (list, tuple)):
            return all(map(plain, value))
        return value is None or isinstance(value, FIELD_TYPES)

    for key, value in values.items():
        if not isinstance(key, str) or not plain(value):
            lists = " and nested lists of these" if nested else ""
            raise RunError(
                f"{where} gave {key!r} as {type(value).__name__}; allowed are str, "
                f"int, float, bool, None{lists}: convert with float(x) or x.tolist()"
            )


def _elements(hint: Any) -> list[Any]:
    if typing.get_origin(hint) is not tuple:
        return []
    return [part for part in typing.get_args(hint) if part is not Ellipsis]


def _parse(hint: Any, text: str) -> Any:
    if typing.get_origin(hint) is tuple:
        texts = [part.strip() for part in text.split(",")] if text else []
        kinds = list(typing.get_args(hint))
        if isinstance(kinds[-1], EllipsisType):
            kinds = kinds[:1] * len(texts)
        return tuple(_parse(*pair) for pair in zip(kinds, texts, strict=True))
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    return hint(text)


def _type_name(hint: Any) -> str:
    parts = [part.__name__ for part in _elements(hint)]
    if not parts:
        return "true or false" if hint is bool else hint.__name__
    if Ellipsis in typing.get_args(hint):
        return f"{parts[0]},{parts[0]},..."
    return ",".join(parts)


def field_text(value: Any) -> str:
    """A field's value as the command line takes it: tuples as comma-separated text."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
