"""The ways of `language_model` to sparse weights: training, cutting, counting."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import jaxreg
from experiments.kit import training
from experiments.language_model._transformer import Transformer
from jaxreg.reports import measure as measures

DENSE = "AdamW"
CUT, REFIT = "AdamW then cut", "AdamW then cut and refit"
SHRINK, REGULARIZE = "shrink(L1)", "regularize(L1)"
RISING = "regularize(rising L1)"
TARGET = "target_sparsity(L1)"
UNITS = "heads and neurons (rising)"
WAYS = (DENSE, CUT, REFIT, SHRINK, REGULARIZE, RISING, TARGET, UNITS)

# Chunks of held-out windows whose logits are in memory together.
_WINDOWS = 64


@functools.partial(jax.jit, static_argnames=("config", "symbols"))
def started(config: Any, symbols: int, seed: Any) -> Any:
    """The parameters of a fresh network."""
    return nnx.state(_model(config, symbols, jax.random.key(seed)))


@functools.partial(jax.jit, static_argnames=("config", "way", "symbols", "steps"))
def trained(
    config: Any,
    way: str,
    symbols: int,
    steps: int,
    params: Any,
    setting: Any,
    seed: Any,
    text: Any,
) -> Any:
    """The parameters that a way leaves after `steps`."""
    tx = _optimizer(config, way, steps, setting)
    key = jax.random.fold_in(jax.random.key(seed), 0)
    return _fit(config, symbols, tx, params, steps, key, text)


@functools.partial(jax.jit, static_argnames=("config", "symbols", "steps"))
def refitted(
    config: Any, symbols: int, steps: int, params: Any, seed: Any, text: Any
) -> Any:
    """AdamW goes on with the weights that are not zero."""
    key = jax.random.fold_in(jax.random.key(seed), 1)
    adamw = _adamw(config, config.refit_peak, steps)
    tx = optax.chain(adamw, jaxreg.hold_support(_kernels(1.0)))
    return _fit(config, symbols, tx, params, steps, key, text)


@jax.jit
def cut(params: Any, share: Any) -> Any:
    """That share of the kernels' weights set to zero, the smallest of all of them."""
    largest = jaxreg.TopK(fraction=1 - share, scope="tree")
    return jaxreg.on_kernels(largest).prox(params, 1.0)


@functools.partial(jax.jit, static_argnames=("config", "symbols"))
def measured(config: Any, symbols: int, params: Any, held: Any) -> dict[str, jax.Array]:
    """Loss per character of the held-out text in order, zeros, and what is dead."""
    count = (len(held) - 1) // config.context
    starts = config.context * jnp.arange(count)
    loss = _loss(config, symbols, held)
    losses = jax.lax.map(
        lambda start: loss(params, start[None], None), starts, batch_size=_WINDOWS
    )
    attention = jaxreg.by_path([("attention/.*kernel$", jaxreg.L1(1.0))])
    blocks = [params["blocks"][place] for place in range(config.layers)]
    return {
        "validation_loss": jnp.mean(losses),
        "zeros": measures.zero_share(_kernels(1.0), params),
        "attention_zeros": measures.zero_share(attention, params),
        "dead_heads": jnp.sum(jnp.stack(list(map(dead_heads, blocks)))),
        "dead_neurons": jnp.sum(jnp.stack(list(map(dead_neurons, blocks)))),
    }


def dead_heads(block: Any) -> jax.Array:
    """Heads whose values, or whose part of `out`, are all zero: they add nothing."""
    attention = block["attention"]
    values, out = (attention[name]["kernel"][...] for name in ("value", "out"))
    is_dead = jnp.all(values == 0, axis=(0, 2)) | jnp.all(out == 0, axis=(1, 2))
    return jnp.sum(is_dead)


def dead_neurons(block: Any) -> jax.Array:
    """Neurons that see no input, or whose output nobody reads."""
    up, down = (block[name]["kernel"][...] for name in ("up", "down"))
    return jnp.sum(jnp.all(up == 0, axis=0) | jnp.all(down == 0, axis=1))


def _kernels(strength: Any) -> jaxreg.Penalty:
    return jaxreg.on_kernels(jaxreg.L1(strength))


def _units(strength: Any) -> jaxreg.Penalty:
    """Heads, and both kernels of the MLP by its neurons; the output layer is free."""
    size = jaxreg.L1(strength)
    return jaxreg.by_path(
        [
            jaxreg.heads(size),
            jaxreg.neurons(size, layers="up$"),
            jaxreg.input_features(size, layers="down$"),
        ]
    )


def _optimizer(
    config: Any, way: str, steps: int, setting: Any
) -> optax.GradientTransformation:
    if way == DENSE:
        return _adamw(config, config.peak, steps)
    rate = _rate(config.peak, steps)
    # Inside regularize: a clip around it would clip the penalty's force apart.
    adam = optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(rate))
    if way == SHRINK:
        return optax.chain(adam, jaxreg.shrink(_kernels(setting), rate))
    if way == TARGET:
        base, end = _kernels(config.base), round(config.landing * steps)
        return jaxreg.target_sparsity(adam, base, setting, end)
    penalty = _units(setting) if way == UNITS else _kernels(setting)
    rising = optax.linear_schedule(0.0, 1.0, steps // 2)
    schedule = None if way == REGULARIZE else rising
    return jaxreg.regularize(adam, penalty, schedule=schedule)


def _adamw(config: Any, peak: float, steps: int) -> optax.GradientTransformation:
    def is_matrix(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    rate, decay = _rate(peak, steps), config.weight_decay
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(rate, weight_decay=decay, mask=is_matrix),
    )


def _rate(peak: float, steps: int) -> optax.Schedule:
    return training.warmup_cosine(peak, steps, steps // 10)


def _model(config: Any, symbols: int, key: jax.Array) -> Transformer:
    return Transformer(
        symbols,
        config.context,
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        rngs=nnx.Rngs(params=key),
    )


def _loss(config: Any, symbols: int, text: Any) -> training.Loss:
    """The mean over windows of the text, given by where they start."""
    graph = nnx.graphdef(_model(config, symbols, jax.random.key(0)))
    of_batch = training.cross_entropy(lambda params, x: nnx.merge(graph, params)(x))

    def loss(params: Any, starts: Any, _: Any) -> jax.Array:
        windows = text[starts[:, None] + jnp.arange(config.context + 1)]
        return of_batch(params, windows[:, :-1], windows[:, 1:])

    return loss


def _fit(
    config: Any, symbols: int, tx: Any, params: Any, steps: int, key: Any, text: Any
) -> Any:
    starts = jnp.arange(len(text) - config.context)
    loss, batch = _loss(config, symbols, text), config.batch
    data = (starts, starts)
    return training.fit(loss, tx, params, data, steps=steps, batch=batch, key=key)
