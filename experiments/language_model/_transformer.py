"""A small GPT: pre-norm blocks, causal attention, learned positions, no dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

_INIT = nnx.initializers.normal(0.02)


class Block(nnx.Module):
    """What attention and then an MLP, four times as wide, add to their input.

    Attention has no biases, so that a head without values adds nothing.
    """

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            heads, width, use_bias=False, kernel_init=_INIT, decode=False, rngs=rngs
        )
        self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, kernel_init=_INIT, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, kernel_init=_INIT, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Of the shape of x, (samples, length, width)."""
        x = x + self.attention(self.norm(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.mlp_norm(x))))


class Transformer(nnx.Module):
    """Tokens in, logits of the token that follows each out."""

    def __init__(
        self,
        symbols: int,
        context: int,
        *,
        layers: int,
        width: int,
        heads: int,
        rngs: nnx.Rngs,
    ):
        self.embed = nnx.Embed(symbols, width, embedding_init=_INIT, rngs=rngs)
        self.positions = nnx.Embed(context, width, embedding_init=_INIT, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(layers)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.output = nnx.Linear(
            width, symbols, use_bias=False, kernel_init=_INIT, rngs=rngs
        )

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits of shape (samples, length, symbols)."""
        x = self.embed(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        mask = nnx.make_causal_mask(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.output(self.norm(x))
