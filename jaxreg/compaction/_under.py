"""The part of a tree below a path, such as the parameters among variables."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from jaxreg._core.messages import shown
from jaxreg._core.penalty import Tree
from jaxreg.rules.by_path import paths


def paths_under(names: Sequence[str], under: str) -> dict[str, str]:
    """The paths below `under`, by their paths in the whole tree.

    Raises:
      TypeError, ValueError: `under` is no str, or no leaf lies below it.
    """
    if not isinstance(under, str):
        raise TypeError(
            f"under is {shown(under)}; allowed: a path, such as 'params', or ''"
        )
    start = f"{under.strip('/')}/" if under.strip("/") else ""
    below = {name: name.removeprefix(start) for name in names if name.startswith(start)}
    if not below:
        tops = ", ".join(dict.fromkeys(repr(name.split("/")[0]) for name in names))
        raise ValueError(f"under is {under!r}, and no leaf lies there; allowed: {tops}")
    return below


def subtree(tree: Tree, under: str) -> Tree:
    """The subtree at `under`, a path with leaves below it."""
    below = set(paths_under(paths(tree), under).values())
    for key in filter(None, under.split("/")):
        children, _ = jax.tree_util.tree_flatten_with_path(
            tree, is_leaf=lambda node, top=tree: node is not top
        )
        tree = next(
            child
            for path, child in children
            if jax.tree_util.keystr(path, simple=True) == key
        )
    assert set(paths(tree)) == below
    return tree
