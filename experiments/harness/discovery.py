"""Finds the experiments of a package, and says what a run of one would lack."""

import importlib.util
import os
import pkgutil
from pathlib import Path
from types import ModuleType

from experiments.harness.contract import Config, RunError, check

# The folders of a package of experiments that are no rooms.
SUPPORT = ("harness", "kit")


def find(package: ModuleType) -> dict[str, str]:
    """The dotted names of a package's experiments, by name and in its order.

    An experiment is a module without a leading underscore, in the package itself or in
    one of its rooms.

    Raises:
      RunError: two rooms hold experiments of the same name, and of one results folder.
    """
    paths: dict[str, str] = {}
    for room, folder in [("", Path(package.__path__[0])), *_rooms(package)]:
        for entry in pkgutil.iter_modules([str(folder)]):
            if entry.ispkg or entry.name.startswith("_"):
                continue
            if entry.name in paths:
                raise RunError(f"two experiments are named {entry.name!r}; rename one")
            paths[entry.name] = f"{package.__name__}{room}.{entry.name}"
    return dict(sorted(paths.items()))


def _rooms(package: ModuleType) -> list[tuple[str, Path]]:
    return [
        (f".{entry.name}", Path(package.__path__[0], entry.name))
        for entry in pkgutil.iter_modules(package.__path__)
        if entry.ispkg and entry.name not in SUPPORT
    ]


def load(package: ModuleType, name: str) -> ModuleType:
    """The module of an experiment.

    Raises:
      RunError: there is no such experiment, or it does not keep the contract.
    """
    paths = find(package)
    if name not in paths:
        raise RunError(
            f"there is no experiment {name!r}; there are {', '.join(paths) or 'none'} "
            "(names come first, then --field value pairs)"
        )
    module = importlib.import_module(paths[name])
    check(module)
    return module


def is_default(module: ModuleType) -> bool:
    """True if the experiment belongs to the default suite."""
    return bool(getattr(module, "DEFAULT", False))


def absent_packages(module: ModuleType) -> str:
    """The missing packages that the experiment compares with; empty if none is."""
    packages: tuple[str, ...] = getattr(module, "PACKAGES", ())
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    hint = 'not installed: pip install -e ".[peers]"'
    return f"{', '.join(absent)} {hint}" if absent else ""


def absent_data(module: ModuleType, config: Config) -> str:
    """The reason why the experiment's data is not there; empty if it is."""
    folders = getattr(module, "REQUIRES", ())
    requires: tuple[str, ...] = folders(config) if callable(folders) else folders
    root = os.environ.get("JAXREG_DATA")
    if requires and not root:
        return f"set JAXREG_DATA to the folder that holds {', '.join(requires)}"
    missing = [folder for folder in requires if not Path(root or "", folder).is_dir()]
    return f"JAXREG_DATA={root} lacks {', '.join(missing)}" if missing else ""
