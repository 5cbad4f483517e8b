"""The spectral lift: a scalar penalty on the singular values of a matrix."""

from __future__ import annotations

import abc
import math

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_elementwise
from jaxreg._core.groups import check_count, is_int
from jaxreg._core.layout import Matrix
from jaxreg._core.leafwise import Elementwise, Leafwise
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Facts, Number
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._numerics.singular_values import (
    NOISE,
    decompose,
    on_singular_values,
    outside,
    product,
)


class MatrixPenalty(Leafwise):
    """A function of each leaf seen as one matrix.

    A leaf is the matrix of `prod(shape[:split])` rows and `prod(shape[split:])`
    columns: a `(height, width, in, out)` kernel is `(height * width * in, out)` with
    the usual `split=-1`, an attention kernel `(in, heads, size)` is
    `(in, heads * size)` with `split=1`. With `stacked=1`, `split` counts the axes
    behind the first, along which `nn.scan` or `nnx.vmap` stacks one matrix per layer.
    """

    split: int
    stacked: int

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not is_int(self.split):
            raise TypeError(
                f"{name}: split is {shown(self.split)}; allowed: an int, the number of "
                "leading axes that make up the rows, or -1 for all but the last"
            )
        check_count(f"{name}: stacked", self.stacked)

    @property
    def layout(self) -> Matrix:
        return Matrix(self.split, self.stacked)


class SpectralPenalty(MatrixPenalty):
    r"""`sum_i phi(sigma_i)` over the singular values of a leaf seen as a matrix.

    `phi` is the elementwise penalty `magnitude`; its numbers are in units of a singular
    value. With `x = U diag(sigma) V^T`, `prox(x) = U diag(prox_phi(sigma)) V^T`. A
    subgradient is `U1 diag(phi'(sigma)) V1^T + W`, with `U1` and `V1` those of the
    positive singular values and `W` any matrix orthogonal to both that has no singular
    value above `phi'(0)`; stationarity is the distance to the nearest of them.
    """

    @property
    @abc.abstractmethod
    def magnitude(self) -> Elementwise:
        """The penalty of a singular value."""

    @property
    def facts(self) -> Facts:
        magnitude = self.magnitude.facts
        return Facts(
            is_convex=magnitude.is_convex, is_homogeneous=magnitude.is_homogeneous
        )

    def step_for(self, width: Number) -> jax.Array:
        return self.magnitude.step_for(width)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return _total(self.magnitude, leaf)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return on_singular_values(_slope, self.magnitude, leaf)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        left, sizes, right = decompose(leaf)
        idle = outside(left, sizes, right, grad)
        excess = on_singular_values(_excess, self.magnitude, idle)
        slope = product(left, _slope(self.magnitude, sizes), right)
        return jnp.abs(grad - idle + slope + excess)

    def leaf_start(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return on_singular_values(_start, (self.magnitude, step), leaf)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return on_singular_values(_prox, (self.magnitude, step.reshape(())), leaf)


def _slope(magnitude: Elementwise, sizes: jax.Array) -> jax.Array:
    return magnitude.leaf_subgradient(sizes)


def _excess(magnitude: Elementwise, pulls: jax.Array) -> jax.Array:
    return magnitude.leaf_stationarity(jnp.zeros_like(pulls), pulls)


def _start(numbers: tuple[Elementwise, jax.Array], sizes: jax.Array) -> jax.Array:
    magnitude, step = numbers
    start = magnitude.leaf_start(sizes, step)
    # Rounding, relative to the largest, must not push a value into the dead zone.
    noise = NOISE * jnp.finfo(sizes.dtype).eps * math.sqrt(sizes.size) * sizes[:1]
    is_safe = magnitude.leaf_prox(start - noise, step) > 0
    return jnp.where(sizes > 0, jnp.where(is_safe, start, start + noise), 0.0)


def _prox(numbers: tuple[Elementwise, jax.Array], sizes: jax.Array) -> jax.Array:
    magnitude, step = numbers
    return magnitude.leaf_prox(sizes, step)


@jax.custom_jvp
def _total(magnitude: Elementwise, matrix: jax.Array) -> jax.Array:
    return jnp.sum(magnitude.leaf_values(decompose(matrix)[1]))


@_total.defjvp
def _total_jvp(
    primals: tuple[Elementwise, jax.Array], tangents: tuple[Elementwise, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (magnitude, matrix), (magnitude_move, move) = primals, tangents
    sizes = decompose(matrix)[1]
    by_numbers = jax.jvp(
        lambda magnitude: jnp.sum(magnitude.leaf_values(sizes)),
        (magnitude,),
        (magnitude_move,),
    )[1]
    slope = on_singular_values(_slope, magnitude, matrix)
    return _total(magnitude, matrix), by_numbers + jnp.sum(slope * move)


@pytree_dataclass
class Spectral(SpectralPenalty):
    """The result of `spectral`."""

    penalty: Elementwise
    split: int = static(default=-1)
    stacked: int = static(default=0)

    @property
    def magnitude(self) -> Elementwise:
        return self.penalty


def spectral(penalty: Elementwise, split: int = -1, *, stacked: int = 0) -> Spectral:
    """Lays an elementwise penalty on the singular values of each leaf.

    `sum_i phi(sigma_i)`, with `phi` the given penalty: `spectral(L1(s))` is
    `NuclearNorm(s)`, `spectral(L2(s))` has the values of `L2(s)`, and a penalty that
    flattens out, such as MCP, lowers the rank without shrinking what remains.

    Args:
      penalty: an elementwise penalty; its numbers, and `width` in `regularize`, are in
        units of a singular value.
      split: the number of leading axes that make up the rows; -1 for all but the last.
      stacked: the number of axes before those, along which layers are stacked.

    Raises:
      TypeError: `penalty` is not elementwise, `split` is not an int, or `stacked` is
        not an int >= 0.

    Reference: Lewis 1995, The convex analysis of unitarily invariant matrix functions.

    >>> import jax.numpy as jnp, jaxreg
    >>> low_rank = jaxreg.spectral(jaxreg.ElasticNet(1.0, 0.5))
    >>> low_rank.prox(jnp.diag(jnp.array([3.0, 0.5])), 1.0)
    Array([[1., 0.],
           [0., 0.]], dtype=float32)
    """
    check_elementwise("spectral", penalty, split=split)
    return Spectral(penalty, split, stacked)
