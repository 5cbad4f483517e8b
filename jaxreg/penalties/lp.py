"""The sum of powers below one."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Elementwise, magnitude
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Number, ratio
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._numerics.scalar_prox import outside, root_of

_NEWTON_STEPS = 6  # Each doubles the digits: enough for float64 at any power.


@pytree_dataclass
class Lp(Elementwise):
    r"""The Lp penalty, `strength * sum |w|^power` with a power between 0 and 1.

    Between `L0` and `L1`: the smaller the power, the less large weights are shrunk. The
    prox is the global minimiser, found by Newton's method; at `power=1/2`, the L1/2
    penalty, three steps without powers or logarithms suffice. It jumps: weights up to
    its threshold become 0, and it returns no non-zero weight below
    `(2 (1 - power) strength s)^(1 / (2 - power))`. Zero is always stationary. Under
    `regularize` smaller weights start there, so that none is zeroed before it has
    moved; take `width` well below the size of the initial weights. The subgradient at 0
    is 0; near 0 it is large. bfloat16 leaves are computed in float32.

    Args:
      strength: >= 0, in units of loss per unit of weight to the power.
      power: between 0 and 1, both excluded; a Python number, which is static.

    Raises:
      ValueError: `power` is not a number between 0 and 1.

    Reference: Marjanovic and Solo 2012, On l_q optimization and matrix completion; Xu,
    Chang, Xu and Zhang 2012, L1/2 regularization: a thresholding representation theory
    and a fast solver.

    >>> import jax.numpy as jnp, jaxreg
    >>> penalty = jaxreg.Lp(2.0, power=0.5)
    >>> penalty.prox(jnp.array([5.0, -3.7, 0.0]), step=2.0).round(3)
    Array([4., 0., 0.], dtype=float32)
    """

    strength: Number
    power: float = static()

    is_convex = False

    def __post_init__(self) -> None:
        is_real = isinstance(self.power, numbers.Real)
        if not is_real or not 0 < self.power < 1:
            raise ValueError(
                f"power of {shown(self)} is {shown(self.power)}; allowed: a number "
                "between 0 and 1. For 0 use L0, for 1 L1, for 2 L2"
            )

    @property
    def slope_at_zero(self) -> Number:
        return jnp.where(jnp.asarray(self.strength) > 0, jnp.inf, 0.0)

    def step_for(self, width: Number) -> jax.Array:
        smallest = width * 2 * (1 - self.power) / (2 - self.power)
        threshold = smallest ** (2 - self.power) / (2 * (1 - self.power))
        return ratio(threshold, self.strength)

    def dead_zone(self, step: jax.Array) -> jax.Array:
        return _edge(_smallest(self.strength * step, self.power), self.power)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        is_zero, size = _size(leaf)
        return self.strength * jnp.where(is_zero, 0.0, size**self.power)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        is_zero, size = _size(leaf)
        slope = self.power * size ** (self.power - 1)
        return self.strength * jnp.where(is_zero, 0.0, jnp.sign(leaf) * slope)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        by_newton = functools.partial(_share_by_newton, power=self.power)
        find = _share_for_one_half if self.power == 0.5 else by_newton
        return _shrink_by_share(leaf, self.strength * step, self.power, find)

    def leaf_start(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        smallest = _smallest(self.strength * step, self.power)
        is_reachable = jnp.abs(leaf) >= smallest
        start = leaf + step * self.leaf_subgradient(leaf)
        return outside(
            _edge(smallest, self.power), jnp.where(is_reachable, start, leaf), leaf
        )


def _shrink_by_share(
    leaf: jax.Array,
    threshold: jax.Array,
    power: float,
    find_share: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """The prox of `threshold |x|^power`; `find_share` solves it for size 1.

    Its argument is the smallest weight that the prox returns, divided by the size, so
    that nothing over- or underflows at any scale. It returns the prox divided by the
    size.
    """
    constant = jax.lax.stop_gradient
    size, smallest = magnitude(leaf), _smallest(constant(threshold), power)
    is_nonzero = constant(size) > _edge(smallest, power)
    safe = jnp.where(is_nonzero, size, 1.0)
    reach = jnp.where(is_nonzero, smallest / constant(safe), 0.0)

    def find(size: jax.Array, threshold: jax.Array, reach: jax.Array) -> jax.Array:
        del threshold
        return find_share(reach) * size

    def residual(
        root: jax.Array, size: jax.Array, threshold: jax.Array, reach: jax.Array
    ) -> jax.Array:
        del reach
        return root + _force(root, threshold, power) - size

    root = root_of(find, residual, (safe, threshold, reach))
    shrunk = jnp.sign(leaf) * root
    return jnp.where(is_nonzero, shrunk, jnp.where(threshold == 0, leaf, 0.0))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _force(root: jax.Array, threshold: jax.Array, power: float) -> jax.Array:
    """The derivative of `threshold root^power`."""
    return power * threshold * _raised(root, power - 1)


@_force.defjvp
def _force_jvp(
    power: float, primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    (root, threshold), (move, change) = primals, tangents
    force = _force(root, threshold, power)
    # By a quotient: 0 times root^(power - 2), which overflows, would be NaN.
    slope = (power - 1) * force / root
    return force, slope * move + power * _raised(root, power - 1) * change


def _share_by_newton(smallest: jax.Array, power: float) -> jax.Array:
    """The larger root of `u + c u^(power - 1) = 1`, which is convex, from above."""
    bend = power * _raised(smallest, 2 - power) / (2 * (1 - power))
    share = 1 - bend / (1 - (1 - power) * bend)
    for _ in range(_NEWTON_STEPS):
        pull = bend * _raised(share, power - 1)
        slope = 1 - (1 - power) * pull / share
        share = share - (share + pull - 1) / slope
    return share


def _share_for_one_half(smallest: jax.Array) -> jax.Array:
    """The larger root of `u + c / sqrt(u) = 1`; three Newton steps give float64.

    The closed form, `(2/3) (1 + cos((2/3) arccos(-(3 sqrt(3) / 2) c)))`, is ten times
    slower on a CPU.
    """
    bend = smallest * jnp.sqrt(smallest) / 2
    share = 1 - bend / (1 - bend / 2)
    for _ in range(3):
        pull = bend / jnp.sqrt(share)
        share = share - (share + pull - 1) / (1 - pull / (2 * share))
    return share


def _raised(size: jax.Array, exponent: float) -> jax.Array:
    """A power of positive numbers, on CPUs far faster than `size**exponent`."""
    return jnp.exp(exponent * jnp.log(size))


def _smallest(threshold: jax.Array, power: float) -> jax.Array:
    """The smallest non-zero weight that the prox returns."""
    return (2 * (1 - power) * threshold) ** (1 / (2 - power))


def _edge(smallest: jax.Array, power: float) -> jax.Array:
    """The size up to which the prox returns 0."""
    return smallest * (2 - power) / (2 * (1 - power))


def _size(leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A mask of zeros (and subnormals, whose slope overflows), and safe sizes."""
    size = magnitude(leaf)
    is_zero = size < jnp.finfo(leaf.dtype).tiny
    return is_zero, jnp.where(is_zero, 1.0, size)
