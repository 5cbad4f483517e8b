"""The log-sum penalty."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Elementwise, magnitude
from jaxreg._core.penalty import Number, ratio
from jaxreg._core.pytree import positive, pytree_dataclass
from jaxreg._numerics.scalar_prox import root_of


@pytree_dataclass
class LogSum(Elementwise):
    r"""The log-sum penalty, `strength * sum log(1 + |w| / eps)`.

    The slope falls as `strength / (|w| + eps)`: weights that are small compared with
    `eps` see an L1 norm of strength `strength / eps`, large ones are hardly shrunk. The
    prox is the global minimiser at every step; up to `strength s = eps^2` it is
    continuous with threshold `strength s / eps`, beyond that it jumps. Under
    `regularize` the width is capped at `eps / 2`, where it does not jump. The
    subgradient at 0 is 0. bfloat16 leaves are computed in float32.

    Args:
      strength: >= 0, in units of loss.
      eps: > 0, in units of a weight: the size at which the slope is half that at 0.

    Reference: Candes, Wakin and Boyd 2008, Enhancing sparsity by reweighted l1
    minimization; Prater-Bennette, Shen and Tripp 2021, The proximity operator of the
    log-sum penalty.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.LogSum(1.0, eps=1.0).prox(jnp.array([1.5, -0.9, 0.0]), step=1.0)
    Array([1., 0., 0.], dtype=float32)
    """

    strength: Number
    eps: Number = positive()

    is_convex = False

    @property
    def slope_at_zero(self) -> Number:
        return self.strength / self.eps

    def step_for(self, width: Number) -> jax.Array:
        return ratio(self.eps * jnp.minimum(width, self.eps / 2), self.strength)

    def dead_zone(self, step: jax.Array) -> jax.Array:
        threshold = self.strength * step
        root = jnp.sqrt(threshold)
        # Where the prox jumps: the sizes at which 0 is the only stationary point.
        only_zero = jnp.maximum(2 * root - self.eps, 0.0)
        return jnp.where(root <= self.eps, threshold / self.eps, only_zero)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return self.strength * jnp.log1p(magnitude(leaf) / self.eps)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return self.strength * jnp.sign(leaf) / (self.eps + jnp.abs(leaf))

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        threshold, size = self.strength * step, magnitude(leaf)
        numbers = size, threshold, jnp.asarray(self.eps)
        is_nonzero = _larger_root(*jax.lax.stop_gradient(numbers))[1]
        root = root_of(lambda *numbers: _larger_root(*numbers)[0], _residual, numbers)
        shrunk = jnp.sign(leaf) * root
        return jnp.where(is_nonzero, shrunk, jnp.where(threshold == 0, leaf, 0.0))


def _residual(
    root: jax.Array, size: jax.Array, threshold: jax.Array, eps: jax.Array
) -> jax.Array:
    return root + threshold / (eps + root) - size


def _larger_root(
    size: jax.Array, threshold: jax.Array, eps: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The larger root of `x + threshold / (eps + x) = size`, and if it beats 0."""
    edge, middle = jnp.sqrt(threshold), (size + eps) / 2
    half_gap = jnp.sqrt(jnp.maximum(middle - edge, 0.0)) * jnp.sqrt(middle + edge)
    is_small = size < eps
    # Digits of the sum would cancel; the product of both roots is known.
    divisor = jnp.where(is_small, eps - size, 0.0) + 2 * half_gap
    quotient = 2 * eps * (size - threshold / eps) / jnp.where(is_small, divisor, 1.0)
    root = jnp.where(is_small, quotient, (size - eps) / 2 + half_gap)
    root = jnp.where(threshold == 0, size, root)
    safe = jnp.where(root > 0, root, 1.0)
    cost = threshold * (jnp.log1p(safe / eps) / safe)
    # At infinity the cost is NaN, and an infinite entry is no zero.
    is_lower = (middle > edge) & (root > 0) & ~(cost >= size - safe / 2)
    is_outside = (size > threshold / eps) & (root > 0)
    is_nonzero = jnp.where(edge <= eps, is_outside, is_lower)
    return jnp.where(is_nonzero, safe, 0.0), is_nonzero
