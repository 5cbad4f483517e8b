"""Small models of Flax NNX and of Linen, alike in both."""

from typing import Any

import flax.linen as nn
import flax.nnx as nnx

WIDTH, LAYERS, HEADS, WORDS, UNUSED = 8, 3, 2, 8, 2


class NnxMlp(nnx.Module):
    """Two layers, named by attributes."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(WIDTH, 16, rngs=rngs)
        self.second = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.second(nnx.relu(self.first(x)))


class LinenMlp(nn.Module):
    """The same two layers."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(1, name="second")(nn.relu(nn.Dense(16, name="first")(x)))


class NnxConvNet(nnx.Module):
    """Two convolutions with batch statistics, then a dense layer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(2, WIDTH, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, rngs=rngs)
        self.narrow = nnx.Conv(WIDTH, 4, (3, 3), strides=2, rngs=rngs)
        self.dense = nnx.Linear(36, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.norm(self.conv(x)))
        return self.dense(nnx.relu(self.narrow(x)).reshape(len(x), -1))


class LinenConvNet(nn.Module):
    """The same."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(WIDTH, (3, 3), use_bias=False, name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=False, name="norm")(x))
        x = nn.relu(nn.Conv(4, (3, 3), strides=2, name="narrow")(x))
        return nn.Dense(1, name="dense")(x.reshape(len(x), -1))


class NnxResidualBlock(nnx.Module):
    """Two convolutions whose output is added to their input."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.widen = nnx.Conv(4, WIDTH, (3, 3), rngs=rngs)
        self.narrow = nnx.Conv(WIDTH, 4, (3, 3), rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return x + self.narrow(nnx.relu(self.widen(self.norm(x))))


class NnxResidualNet(nnx.Module):
    """Two residual blocks in a list."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.blocks = nnx.List([NnxResidualBlock(rngs) for _ in range(2)])
        self.dense = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.dense(nnx.relu(x).mean((1, 2)))


class LinenResidualBlock(nn.Module):
    """The same."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        y = nn.BatchNorm(use_running_average=False, name="norm")(x)
        y = nn.relu(nn.Conv(WIDTH, (3, 3), name="widen")(y))
        return x + nn.Conv(4, (3, 3), name="narrow")(y)


class LinenResidualNet(nn.Module):
    """The same; Linen names the list's blocks `blocks_0`, `blocks_1`."""

    def setup(self) -> None:
        self.stem = nn.Conv(4, (3, 3))
        self.blocks = [LinenResidualBlock() for _ in range(2)]
        self.dense = nn.Dense(1)

    def __call__(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.dense(nn.relu(x).mean((1, 2)))


class NnxTransformer(nnx.Module):
    """Embeddings and one block of attention and an MLP."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            HEADS, WIDTH, WIDTH, decode=False, rngs=rngs
        )
        self.mlp_norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.mlp_up = nnx.Linear(WIDTH, 16, rngs=rngs)
        self.mlp_down = nnx.Linear(16, WIDTH, rngs=rngs)
        self.answer = nnx.Linear(WIDTH, 1, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        x = self.embed(tokens)
        x = x + self.attention(self.norm(x))
        x = x + self.mlp_down(nnx.relu(self.mlp_up(self.mlp_norm(x))))
        return self.answer(x.mean(1))


class LinenTransformer(nn.Module):
    """The same."""

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        x = nn.Embed(WORDS, WIDTH, name="embed")(tokens)
        attention = nn.MultiHeadDotProductAttention(HEADS, name="attention")
        x = x + attention(nn.LayerNorm(name="norm")(x))
        y = nn.Dense(16, name="mlp_up")(nn.LayerNorm(name="mlp_norm")(x))
        x = x + nn.Dense(WIDTH, name="mlp_down")(nn.relu(y))
        return nn.Dense(1, name="answer")(x.mean(1))


class NnxLayer(nnx.Module):
    """One of the layers that are stacked."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.up = nnx.Linear(WIDTH, 16, rngs=rngs)
        self.down = nnx.Linear(16, WIDTH, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return x + self.down(nnx.relu(self.up(x)))


class NnxStack(nnx.Module):
    """Equal layers whose kernels `nnx.vmap` stacks and `nnx.scan` runs through."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        @nnx.split_rngs(splits=LAYERS)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def stacked(rngs: nnx.Rngs) -> NnxLayer:
            return NnxLayer(rngs)

        self.layers = stacked(rngs)
        self.answer = nnx.Linear(WIDTH, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def run(x: Any, layer: NnxLayer) -> Any:
            return layer(x)

        return self.answer(run(x, self.layers))


class LinenLayer(nn.Module):
    """The same."""

    @nn.compact
    def __call__(self, x: Any, _: None) -> Any:
        y = nn.relu(nn.Dense(16, name="up")(x))
        return x + nn.Dense(WIDTH, name="down")(y), None


class LinenStack(nn.Module):
    """The same by `nn.scan`."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        scanned = nn.scan(
            LinenLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=LAYERS,
        )
        x, _ = scanned(name="layers")(x, None)
        return nn.Dense(1, name="answer")(x)
