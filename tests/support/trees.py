"""Comparison of trees."""

from typing import Any

import jax
import numpy as np


def assert_equal(left: Any, right: Any) -> None:
    """The trees have equal structure and equal leaves, to the bit."""
    jax.tree.map(np.testing.assert_array_equal, left, right)
