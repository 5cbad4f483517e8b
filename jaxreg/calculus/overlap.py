"""Overlapping groups, as disjoint groups of a latent."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp

from jaxreg._core.groups import is_int
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Leaf


@dataclasses.dataclass(frozen=True)
class Overlap:
    r"""Overlapping groups of entries along axis 0, in latent form.

    Each group gets entries of its own, `w = merge(latent)` adds them up, and the group
    lasso acts on the latent: `weighted(GroupLasso(s, 0), overlap.weights)` there is
    `s sum_g sqrt(n_g) ||v_g||`. Train the latent, with `loss(overlap.merge(latent))`:
    the support of `w` is then a union of groups. (A group lasso on `w` itself would
    keep the complement of such a union.) Rows of the latent are padded with zeros,
    which get no gradient and stay zero.

    Args:
      groups: the indices of each group; every entry in at least one group, no index
        twice in one.
      size: the number of entries along axis 0.

    Raises:
      TypeError: an index or the size is not an int.
      ValueError: no groups, an index out of range or twice in a group, an empty
        group, or an entry in no group.

    Reference: Jacob, Obozinski and Vert 2009, Group lasso with overlap and graph lasso.

    >>> import jax.numpy as jnp, jaxreg
    >>> overlap = jaxreg.Overlap(((0, 1), (1, 2, 3)), size=4)
    >>> latent = overlap.duplicate(jnp.array([1.0, 2.0, 3.0, 4.0]))
    >>> latent
    Array([[1., 1., 0.],
           [1., 3., 4.]], dtype=float32)
    >>> overlap.merge(latent)
    Array([1., 2., 3., 4.], dtype=float32)
    >>> penalty = jaxreg.weighted(jaxreg.GroupLasso(0.1, 0), overlap.weights)
    """

    groups: tuple[tuple[int, ...], ...]
    size: int

    def __post_init__(self) -> None:
        is_nested = isinstance(self.groups, Iterable)
        if not is_nested or not all(isinstance(g, Iterable) for g in self.groups):
            raise TypeError(
                f"Overlap: groups is {shown(self.groups)}; allowed: a tuple of tuples, "
                "the indices of each group"
            )
        groups = tuple(map(tuple, self.groups))
        for number in (self.size, *(i for group in groups for i in group)):
            if not is_int(number):
                raise TypeError(
                    f"Overlap({shown(self.groups)}, {shown(self.size)}) holds "
                    f"{shown(number)}; allowed: ints, the size and the index of each "
                    "entry along axis 0"
                )
        if not groups:
            raise ValueError("Overlap: there are no groups; allowed: at least one")
        groups = tuple(tuple(map(int, group)) for group in groups)
        object.__setattr__(self, "groups", groups)
        for index, group in enumerate(groups):
            if not group or len(set(group)) < len(group):
                raise ValueError(
                    f"Overlap: group {index} is {group}; allowed: at least one index, "
                    "and none twice"
                )
        covered = {i for group in groups for i in group}
        outside = sorted(covered - set(range(self.size)))
        if outside:
            raise ValueError(
                f"Overlap: indices {outside[:5]} are outside 0 to {self.size - 1}"
            )
        lone = sorted(set(range(self.size)) - covered)
        if lone:
            raise ValueError(
                f"Overlap: entries {lone[:5]} are in no group, and the latent would "
                "lose them; give each a group of its own, ((0,), ...)"
            )

    @property
    def weights(self) -> jax.Array:
        """Weights of shape (groups, 1) that give padded groups the factor `sqrt(n_g)`.

        For a latent of more axes, `weights[..., None]`.
        """
        lengths = [[len(group) / self._longest] for group in self.groups]
        return jnp.sqrt(jnp.array(lengths, jnp.float32))

    def duplicate(self, entries: Leaf) -> jax.Array:
        """The latent of shape `(groups, longest, ...)`, each entry split evenly."""
        entries = jnp.asarray(entries)
        if entries.ndim == 0 or entries.shape[0] != self.size:
            raise ValueError(
                f"Overlap.duplicate: shape {entries.shape}; allowed: {self.size} "
                "entries along axis 0"
            )
        uses = collections.Counter(i for group in self.groups for i in group)
        counts = jnp.array([uses[i] for i in range(self.size)], entries.dtype)
        share = entries / counts.reshape(-1, *(1,) * (entries.ndim - 1))
        return jnp.take(share, self._indices, axis=0, mode="fill", fill_value=0)

    def merge(self, latent: Leaf) -> jax.Array:
        """The entries: each is the sum of its copies in the latent."""
        latent, indices = jnp.asarray(latent), self._indices
        if latent.shape[:2] != indices.shape:
            raise ValueError(
                f"Overlap.merge: shape {latent.shape}; allowed: {indices.shape} along "
                "axes 0 and 1, as duplicate returns"
            )
        zeros = jnp.zeros((self.size, *latent.shape[2:]), latent.dtype)
        return zeros.at[indices].add(latent, mode="drop")

    @property
    def _longest(self) -> int:
        return max(map(len, self.groups))

    @property
    def _indices(self) -> jax.Array:
        """The index of each entry of the latent; `size` where it is padding."""
        pads = (self.size,) * self._longest
        return jnp.array([(*group, *pads)[: self._longest] for group in self.groups])
