"""Short descriptions of objects for messages."""

from __future__ import annotations

import jax

_LONGEST = 80


def shown(content: object) -> str:
    """The text of an object in one line of 80 characters: a model prints thousands."""
    # That of an array alone, without its dtype: a strength reads as a number.
    text = str(content) if isinstance(content, jax.Array) else repr(content)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
