"""The sorted L1 norm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxreg._core.groups import check_count
from jaxreg._core.layout import Entries, Layout, Shape
from jaxreg._core.leafwise import Leafwise, magnitude
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Facts, Number, ratio
from jaxreg._core.pytree import array, is_array, pytree_dataclass
from jaxreg._core.ranges import BETWEEN_0_AND_1, check_number, is_known
from jaxreg._numerics.isotonic import falling_regression


@dataclasses.dataclass(frozen=True)
class _OnePerStrength(Entries):
    """Layout of leaves with one entry per strength."""

    is_whole: bool = True
    size: int = 0

    def refusal(self, shape: Shape) -> str | None:
        entries = math.prod(shape)
        if entries in (0, self.size):
            return None
        return f"has {entries} entries, and strengths {self.size}; give one per entry"

    def always_whole_axes(self, shape: Shape) -> Sequence[int]:
        return range(len(shape))


@pytree_dataclass
class SLOPE(Leafwise):
    r"""The sorted L1 norm, `sum_i strengths_i |w|_(i)` with `|w|_(1) >= |w|_(2) >= ..`.

    The largest entry pays the largest strength. The prox sets small entries to exactly
    0 and makes entries of similar size exactly equal: use it to select correlated
    features together (`oscar`), or with a bound on false discoveries
    (`benjamini_hochberg`). The subgradient is 0 at 0; among entries of equal size the
    first pays most. The prox sorts a leaf and then scans it, which is slow on GPUs; its
    step is one number per leaf. bfloat16 leaves are computed in float32.

    Args:
      strengths: >= 0, non-increasing, an array of one number per entry of the leaf,
        in units of loss per unit of weight.

    Raises:
      TypeError: `strengths` is not an array of one axis.
      ValueError: `strengths` increase somewhere, or are not one per entry.

    Reference: Bogdan et al. 2015, SLOPE: adaptive variable selection via convex
    optimization, eq. 1.4 and section 2; Zeng and Figueiredo 2014, The ordered weighted
    L1 norm.

    >>> import jax.numpy as jnp, jaxreg
    >>> sorted_l1 = jaxreg.SLOPE(jnp.array([1.5, 1.0, 0.5]))
    >>> sorted_l1.prox(jnp.array([3.0, -3.0, 0.4]), step=1.0)
    Array([ 1.75, -1.75,  0.  ], dtype=float32)
    """

    strengths: jax.Array = array()

    has_loop = True
    facts = Facts(zeros="entries", is_homogeneous=True, stationarity_kind="residual")

    def __post_init__(self) -> None:
        strengths = self.strengths
        if not is_array(strengths) or jnp.ndim(strengths) != 1:
            raise TypeError(
                f"SLOPE({shown(strengths)}); allowed: an array of one axis, as "
                "jnp.array([2.0, 1.0]), or SLOPE.oscar(l1, l2, size)"
            )
        if is_known(lambda array: jnp.diff(array) > 0, strengths):
            raise ValueError(
                "SLOPE: strengths rise, and the sum is then not convex; sort them from "
                "the largest to the smallest"
            )

    @classmethod
    def oscar(cls, l1: Number, l2: Number, size: int) -> SLOPE:
        """`l1 * sum |w_i| + l2 * sum_{i<j} max(|w_i|, |w_j|)`, for `size` entries.

        Correlated features get weights of exactly equal size. `l1` and `l2` are those
        of Bondell and Reich 2008, Simultaneous regression shrinkage, variable selection
        and supervised clustering of predictors with OSCAR, eq. 3.

        >>> import jaxreg
        >>> jaxreg.SLOPE.oscar(l1=1.0, l2=0.5, size=3).strengths
        Array([2. , 1.5, 1. ], dtype=float32)
        """
        check_number("SLOPE.oscar: l1", l1)
        check_number("SLOPE.oscar: l2", l2)
        check_count("SLOPE.oscar: size", size)
        return cls(l1 + l2 * jnp.arange(size - 1, -1, -1, dtype=float))

    @classmethod
    def benjamini_hochberg(cls, strength: Number, level: Number, size: int) -> SLOPE:
        """`strength` times the normal quantiles at `1 - level i / (2 size)`.

        With orthogonal features of unit norm and noise of deviation `strength` the
        expected share of false discoveries is at most `level` (Bogdan et al. 2015,
        theorem 1.1, for the loss `||y - Xw||^2 / 2`).

        >>> import jaxreg
        >>> penalty = jaxreg.SLOPE.benjamini_hochberg(1.0, level=0.2, size=2)
        >>> [f"{strength:.3f}" for strength in penalty.strengths]
        ['1.645', '1.282']
        """
        name = "SLOPE.benjamini_hochberg"
        check_number(f"{name}: strength", strength)
        check_number(f"{name}: level", level, BETWEEN_0_AND_1)
        check_count(f"{name}: size", size)
        tails = level * jnp.arange(1, size + 1, dtype=float) / (2 * size)
        return cls(-strength * jax.scipy.stats.norm.ppf(tails))

    @property
    def layout(self) -> Layout:
        return _OnePerStrength(size=self.strengths.shape[-1])

    def step_for(self, width: Number) -> jax.Array:
        return ratio(width, jnp.max(jnp.asarray(self.strengths)))

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        strengths, order = self._ordered(leaf)
        return jnp.sum(strengths * magnitude(leaf.reshape(-1))[order])

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        strengths, order = self._ordered(leaf)
        slopes = jnp.zeros_like(strengths).at[order].set(strengths)
        return jnp.sign(leaf) * slopes.reshape(leaf.shape)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        strengths, order = self._ordered(leaf)
        sizes = magnitude(leaf.reshape(-1))[order]
        pooled = falling_regression(sizes - step.reshape(()) * strengths)
        shrunk = jnp.zeros_like(sizes).at[order].set(jnp.maximum(pooled, 0.0))
        out = jax.lax.stop_gradient(jnp.sign(leaf)) * shrunk.reshape(leaf.shape)
        return jnp.where(step > 0, out, leaf)

    def _ordered(self, leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The strengths in the leaf's dtype; the order of entries, largest first."""
        order = jnp.argsort(-jax.lax.stop_gradient(jnp.abs(leaf.reshape(-1))))
        return jnp.asarray(self.strengths, leaf.dtype), order
