"""Rules for Flax in the terms of a network: neurons, filters, heads, channels.

They select leaves by name and check only the number of axes: a kernel with more or
fewer raises. Biases and embeddings are named neither `kernel` nor `scale` and stay
free.
"""

from __future__ import annotations

from jaxreg._core.checks import check_elementwise
from jaxreg._core.groups import check_count
from jaxreg._core.leafwise import Elementwise
from jaxreg._core.penalty import Penalty
from jaxreg.calculus.grouped import grouped
from jaxreg.rules.by_path import ByPath, by_path
from jaxreg.rules.patterns import Kernels, check_pattern


def on_kernels(penalty: Penalty) -> ByPath:
    """Puts the penalty on every leaf named `kernel`, as Flax names its weights.

    Biases, scales and embeddings stay free. For frameworks with other names write
    `by_path([(r"weight$", penalty)])`; nothing is guessed.

    >>> import jaxreg
    >>> jaxreg.on_kernels(jaxreg.L1(1e-4)).patterns
    ('(^|/)kernel$',)
    """
    return by_path([(r"(^|/)kernel$", penalty)])


def neurons(penalty: Elementwise, layers: str, *, stacked: int = 0) -> ByPath:
    """Puts a penalty on whole neurons of dense layers: groups of incoming weights.

    On kernels `(inputs, outputs)` of `Dense` and `nnx.Linear` it is
    `grouped(penalty, group_axis=1)`. A neuron without weights outputs its bias.

    Args:
      penalty: acts on the root mean square of a group, as in `grouped`: `L1(1e-3)`
        gives the group lasso.
      layers: a regular expression, searched in the path of the layer, the part before
        `/kernel`. Exclude the last layer: its neurons are the outputs of the network.
      stacked: the number of leading axes along which `nn.scan` or `nnx.vmap` stacks
        equal layers; each layer has its own neurons.

    Raises:
      TypeError: `penalty` is not elementwise, or `stacked` is not an int >= 0.
      ValueError: `layers` is not a regular expression. With parameters, so at the first
        update: it selects no kernel, or one with other axes.

    >>> import jax.numpy as jnp, jaxreg
    >>> params = {
    ...     "hidden": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)},
    ...     "out": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)},
    ... }
    >>> penalty = jaxreg.neurons(jaxreg.L1(0.5), layers="^hidden$")
    >>> for row in jaxreg.describe(penalty, params).rows:
    ...     print(row["leaf"], row["groups"])
    hidden/bias None
    hidden/kernel 3
    out/bias None
    out/kernel None
    """
    layout = _Layout("neurons", penalty, layers, {"stacked": stacked})
    return by_path([layout.rule(penalty, "kernel", ["inputs", "outputs"], "outputs")])


def input_features(
    penalty: Elementwise, layers: str, *, spatial: int = 0, stacked: int = 0
) -> ByPath:
    """Puts a penalty on whole inputs of layers: groups of outgoing weights.

    On kernels `(inputs, outputs)` it is `grouped(penalty, group_axis=0)`. On kernels
    `(height, width, inputs, outputs)` of convolutions, with `spatial=2`, the groups are
    input channels. In the first layer the inputs are features of the data.

    Args:
      penalty: as in `neurons`.
      layers: as in `neurons`.
      stacked: as in `neurons`.
      spatial: the number of axes along which the layers convolve, 0 for dense layers.

    Raises:
      TypeError, ValueError: as `neurons`; `spatial` is not an int >= 0.

    >>> import jax.numpy as jnp, jaxreg
    >>> params = {"first": {"kernel": jnp.ones((4, 3))}}
    >>> penalty = jaxreg.input_features(jaxreg.L1(0.5), layers="^first$")
    >>> jaxreg.describe(penalty, params).rows[0]["groups"]
    4
    """
    layout = _Layout(
        "input_features", penalty, layers, {"spatial": spatial, "stacked": stacked}
    )
    axes = [*["spatial"] * spatial, "inputs", "outputs"]
    return by_path([layout.rule(penalty, "kernel", axes, "inputs")])


def filters(
    penalty: Elementwise, layers: str, *, spatial: int = 2, stacked: int = 0
) -> ByPath:
    """Puts a penalty on whole filters of convolutions: groups of one output channel.

    On kernels `(height, width, inputs, outputs)` of `Conv` it is
    `grouped(penalty, group_axis=3)`.

    Args:
      penalty: as in `neurons`.
      layers: as in `neurons`.
      stacked: as in `neurons`.
      spatial: the number of axes along which the layers convolve.

    Raises:
      TypeError, ValueError: as `neurons`; `spatial` is not an int >= 0.

    >>> import jax.numpy as jnp, jaxreg
    >>> params = {"conv": {"kernel": jnp.ones((3, 3, 4, 8))}}
    >>> penalty = jaxreg.filters(jaxreg.L1(0.5), layers="conv")
    >>> jaxreg.describe(penalty, params).rows[0]["groups"]
    8
    """
    layout = _Layout(
        "filters", penalty, layers, {"spatial": spatial, "stacked": stacked}
    )
    axes = [*["spatial"] * spatial, "inputs", "outputs"]
    return by_path([layout.rule(penalty, "kernel", axes, "outputs")])


def heads(penalty: Elementwise, layers: str = "", *, stacked: int = 0) -> ByPath:
    """Puts a penalty on whole attention heads: a group in each of Flax's four kernels.

    The kernels are `query`, `key` and `value`, with axes `(inputs, heads, head_dim)`,
    and `out`, with `(heads, head_dim, outputs)`. A head whose part of `out` is zero
    contributes nothing and can be removed entirely.

    Args:
      penalty: as in `neurons`.
      stacked: as in `neurons`.
      layers: a regular expression, searched in the path of the attention module, the
        part before `/query/kernel`. Needed if other layers have these names too.

    Raises:
      TypeError, ValueError: as `neurons`.

    >>> import jax, jaxreg
    >>> from flax import nnx
    >>> attention = nnx.MultiHeadAttention(2, 6, 6, decode=False, rngs=nnx.Rngs(0))
    >>> params = nnx.state(attention, nnx.Param)
    >>> for row in jaxreg.describe(jaxreg.heads(jaxreg.L1(0.5)), params).rows:
    ...     if row["groups"]:
    ...         print(row["leaf"], row["shape"], row["groups"])
    key/kernel (6, 2, 3) 2
    out/kernel (2, 3, 6) 2
    query/kernel (6, 2, 3) 2
    value/kernel (6, 2, 3) 2
    """
    layout = _Layout("heads", penalty, layers, {"stacked": stacked})
    into, out = ["inputs", "heads", "head_dim"], ["heads", "head_dim", "outputs"]
    return by_path(
        [
            layout.rule(penalty, "(?:query|key|value)/kernel", into, "heads"),
            layout.rule(penalty, "out/kernel", out, "heads"),
        ]
    )


def channel_scales(
    penalty: Elementwise, layers: str = "", *, stacked: int = 0
) -> ByPath:
    """Puts a penalty on the scales of normalization layers: one entry per channel.

    A channel whose `scale` is zero outputs its bias. Consider it in place of `neurons`
    and `filters` where BatchNorm follows a layer: that undoes any shrinkage of the
    kernel before it, so that a penalty there removes fewer units.

    Args:
      penalty: acts on each scale; they start at 1.
      layers: a regular expression, searched in the path of the normalization layer, the
        part before `/scale`.
      stacked: as in `neurons`.

    Raises:
      TypeError, ValueError: as `neurons`.

    Reference: Liu, Li, Shen, Huang, Yan and Zhang 2017, Learning efficient
    convolutional networks through network slimming.

    >>> import jax.numpy as jnp, jaxreg
    >>> params = {"norm": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}}
    >>> penalty = jaxreg.channel_scales(jaxreg.L1(0.5))
    >>> [row["penalty"] for row in jaxreg.describe(penalty, params).rows]
    ['free', L1(strength=0.5)]
    """
    layout = _Layout("channel_scales", penalty, layers, {"stacked": stacked})
    return by_path([(layout.pattern("scale", ["channels"]), penalty)])


class _Layout:
    """Makes the rules of one preset, for its layers and the axes of their kernels."""

    def __init__(
        self, name: str, penalty: Elementwise, layers: str, counts: dict[str, int]
    ) -> None:
        check_elementwise(name, penalty, layers=layers)
        for option, count in counts.items():
            check_count(f"{name}: {option}", count)
        check_pattern(f"{name}: layers", layers)
        options = [f"{option}={count}" for option, count in counts.items() if count]
        self.call = f"{name}({', '.join([f'layers={layers!r}', *options])})"
        self.layers, self.stacked = layers, counts["stacked"]

    def rule(
        self, penalty: Elementwise, leaf: str, axes: list[str], group: str
    ) -> tuple[Kernels, Penalty]:
        pattern = self.pattern(leaf, axes)
        indexing = (*range(self.stacked), pattern.axes.index(group))
        group_axis = indexing if self.stacked else indexing[0]
        return pattern, grouped(penalty, group_axis)

    def pattern(self, leaf: str, axes: list[str]) -> Kernels:
        names = ("layers",) * self.stacked + tuple(axes)
        return Kernels(self.call, self.layers, leaf, names)
