"""N:M sparsity."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxreg._core.constraint import Constraint
from jaxreg._core.groups import is_int
from jaxreg._core.layout import Entries, Shape
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Facts
from jaxreg._core.pytree import pytree_dataclass, static


@dataclasses.dataclass(frozen=True)
class _Blocks(Entries):
    """Layout of blocks of `m` entries along `axis`, which must not be sharded."""

    m: int = 1
    axis: int = -1

    def refusal(self, shape: Shape) -> str | None:
        if not -len(shape) <= self.axis < len(shape):
            return f"has {len(shape)} axes, and axis is {self.axis}; name one it has"
        if shape[self.axis] % self.m:
            return (
                f"has {shape[self.axis]} entries along axis {self.axis}, which do not "
                f"split into blocks of {self.m}; choose another m or axis"
            )
        return None

    def view(self, shape: Shape) -> Shape:
        axis = self.axis % len(shape)
        return *shape[:axis], shape[axis] // self.m, self.m, *shape[axis + 1 :]

    def coupled_axes(self, ndim: int) -> Sequence[int]:
        return (self.axis % (ndim - 1) + 1,)

    def whole_axes(self, shape: Shape) -> Sequence[int]:
        return (self.axis % len(shape),)


@pytree_dataclass
class NM(Constraint):
    """At most `n` non-zero entries in every `m` consecutive ones along an axis.

    The projection keeps the `n` largest `|w|` of each block as they are and sets the
    others to exactly 0; among equal ones the first stay. With steps s that vary it
    keeps the largest `w^2 / s`. Use `NM(2, 4)` for the sparsity that GPUs accelerate.
    They need it along the axis that a product sums over: -2 in Flax, for a kernel
    `(inputs, outputs)` and for one `(height, width, inputs, outputs)` alike. It is not
    convex. Under `regularize` params become their projection at the first update.
    bfloat16 entries that stay keep their bits.

    Args:
      n: an int from 0 to m, the entries to keep in a block.
      m: an int >= 1, the length of a block, which divides the axis.
      axis: the axis along which blocks lie.

    Raises:
      TypeError: `n`, `m` or `axis` is not an int.
      ValueError: `n` or `m` is out of range.

    Reference: Mishra et al. 2021, Accelerating sparse deep neural networks,
    arXiv 2104.08378, section 3.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.NM(2, 4).prox(jnp.array([[0.1], [-3.0], [2.0], [1.0]]), step=1.0).ravel()
    Array([ 0., -3.,  2.,  0.], dtype=float32)
    """

    n: int = static()
    m: int = static()
    axis: int = static(default=-2)

    facts = Facts(is_convex=False, varying_step=True, stationarity_kind="normal cone")

    def __post_init__(self) -> None:
        for number in (self.n, self.m, self.axis):
            if not is_int(number):
                raise TypeError(f"{shown(self)}; allowed: ints")
        if not (self.m >= 1 and 0 <= self.n <= self.m):
            raise ValueError(f"{shown(self)}; allowed: 0 <= n <= m and m >= 1")

    @property
    def layout(self) -> _Blocks:
        return _Blocks(m=self.m, axis=self.axis)

    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        moves = step > 0
        root = jnp.sqrt(jnp.where(moves, step, 1))
        size = jnp.abs(leaf)
        if step.size == 1:
            return jnp.where(self._mask(size), leaf, 0)
        score = jnp.where(moves, size / root, jnp.where(size > 0, jnp.inf, 0))
        return jnp.where(self._mask(score), leaf, 0)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        """Zeros may move freely in blocks with fewer than n non-zero entries."""
        (inner,) = self.layout.coupled_axes(leaf.ndim)
        is_full = jnp.sum(leaf != 0, axis=inner, keepdims=True) >= self.n
        extra = jnp.where(self._mask(jnp.abs(leaf)), 0, jnp.abs(leaf))
        return jnp.where((leaf == 0) & is_full, 0, jnp.abs(grad)) + extra

    def _mask(self, score: jax.Array) -> jax.Array:
        """Mask of the n largest scores of each block, by counting and not sorting."""
        (inner,) = self.layout.coupled_axes(score.ndim)
        shape = [1] * score.ndim
        shape[inner] = self.m
        rank = jnp.arange(self.m).reshape(shape)
        before = jnp.zeros(score.shape, jnp.int32)
        for rival in range(self.m):
            rivals = jax.lax.slice_in_dim(score, rival, rival + 1, axis=inner)
            is_before = (rivals > score) | ((rivals == score) & (rival < rank))
            before += is_before.astype(jnp.int32)
        return before < self.n
