"""What do zeros cost a small language model?

Question: A GPT of 2 layers, width 64, learns the characters of Tiny Shakespeare. What
does its validation loss, in nats per character, pay for exact zeros in the kernels of
attention, MLP and output: by magnitude pruning after AdamW, with and without a refit,
by `jaxreg.shrink` behind Adam, by `jaxreg.regularize`, its strength constant or rising
from 0 over the first half, by `jaxreg.target_sparsity`, and by the removal of whole
heads and MLP neurons? Every way has the same number of steps, a refit included.

Claim: Most weights of a language model can be zero.

Expected: half of the weights cost at most 0.05 nats by any way. At 80 % a strength that
is constant from the first step costs several tenths, one that rises less than half of
that; cutting without a refit is worst; whole heads and neurons cost more than as many
single weights. The last 10 % of the text are the test set: no choice was made on them.
On another part, `--train_share 0.85 --until 0.9`, one network each chose the rate, the
best for AdamW of 1e-3, 3e-3 and 1e-2, the refit's, 3e-3 or 1e-2, its length, 200 or 500
steps, and strengths that give about 50, 80 and 90 %.

Corrected: half of the weights cost a hair more than 0.05 by a cut and a refit, since
AdamW then trains for fewer steps. Whole heads and neurons cost less than single weights
under a constant strength, which kills attention first.

Cost: about 15 minutes on 2 cores, 15 seconds a network; needs Tiny Shakespeare in
JAXREG_DATA. The usual size, on a GPU (not run; strengths act with the learning rate):
`python -m experiments language_model --layers 6 --width 384 --heads 6 --context 256
--batch 64 --steps 5000 --refit_steps 1000 --peak 1e-3 --refit_peak 1e-3 --seeds 2`.

Command: python -m experiments language_model
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
from flax import nnx

import jaxreg
from experiments.harness.contract import Row
from experiments.kit import data_sets, stats, training

REQUIRES = ("tinyshakespeare",)

DENSE = "AdamW"
CUT, REFIT = "AdamW then cut", "AdamW then cut and refit"
SHRINK, REGULARIZE = "shrink(L1)", "regularize(L1)"
RISING = "regularize(rising L1)"
TARGET = "target_sparsity(L1)"
UNITS = "heads and neurons (rising)"
WAYS = (DENSE, CUT, REFIT, SHRINK, REGULARIZE, RISING, TARGET, UNITS)

# Held-out windows whose logits are in memory together.
_WINDOWS = 64
_INIT = nnx.initializers.normal(0.02)

_MARKERS = dict(zip(WAYS, "*xovsPD^", strict=True))
_SHARE = 0.8
# Nats above the loss without zeros; larger costs would flatten the figure.
_MOST = 0.9


@dataclasses.dataclass(frozen=True)
class Config:
    """Batches of random windows; warm-up over a tenth of the steps, cosine to 0.

    `ways` begins with AdamW. Trains on the first `train_share` of the text and measures
    on what follows, until the share `until`. `shares` are of zeros, for pruning and
    `target_sparsity`, whose landing comes after the share `landing` of the steps;
    `base` is the strength that it steers from. The refit's steps are part of `steps`.
    """

    ways: tuple[str, ...] = WAYS
    shares: tuple[float, ...] = (0.5, 0.8, 0.9)
    shrink_strengths: tuple[float, ...] = (0.04, 0.1, 0.2)
    strengths: tuple[float, ...] = (5e-6, 2e-5)
    rising_strengths: tuple[float, ...] = (6e-5, 1.5e-4)
    unit_strengths: tuple[float, ...] = (2e-5, 6e-5)
    seeds: int = 5
    layers: int = 2
    width: int = 64
    heads: int = 4
    context: int = 64
    batch: int = 16
    steps: int = 1000
    refit_steps: int = 200
    peak: float = 1e-2
    refit_peak: float = 1e-2
    clip: float = 1.0
    weight_decay: float = 0.1
    base: float = 1e-6
    landing: float = 0.75
    train_share: float = 0.9
    until: float = 1.0


QUICK = Config(
    ways=(DENSE, CUT, UNITS),
    shares=(0.5,),
    shrink_strengths=(0.3,),
    strengths=(1e-4,),
    rising_strengths=(1e-4,),
    unit_strengths=(1e-3,),
    seeds=1,
    layers=1,
    width=16,
    heads=2,
    context=16,
    batch=8,
    steps=200,
    refit_steps=50,
    base=1e-5,
    until=0.91,
)


def cells(config: Config) -> list[Row]:
    """One cell per seed, way and setting: a strength, or the share of zeros asked."""
    settings = {
        DENSE: (0.0,),
        CUT: config.shares,
        REFIT: config.shares,
        SHRINK: config.shrink_strengths,
        REGULARIZE: config.strengths,
        RISING: config.rising_strengths,
        TARGET: config.shares,
        UNITS: config.unit_strengths,
    }
    return [
        {"seed": seed, "way": way, "setting": setting}
        for seed in range(config.seeds)
        for way in config.ways
        for setting in settings[way]
    ]


def measure(config: Config, seed: int, way: str, setting: float) -> Row:
    """Trains one network, and reads the held-out text once."""
    text, held = _texts(config)
    symbols = 1 + int(max(text.max(), held.max()))
    if way in (DENSE, CUT, REFIT):
        refit_steps = config.refit_steps if way == REFIT else 0
        params = _dense(config, symbols, config.steps - refit_steps, seed)
        if way != DENSE:
            params = cut(params, setting)
        if refit_steps:
            params = refit(config, symbols, refit_steps, params, seed, text)
    else:
        start, steps = init(config, symbols, seed), config.steps
        params = train(config, way, symbols, steps, start, setting, seed, text)
    numbers = _numbers(config, symbols, params, held)
    return {name: np.asarray(number).item() for name, number in numbers.items()}


@functools.cache
def _texts(config: Config) -> tuple[np.ndarray, np.ndarray]:
    text = data_sets.tiny_shakespeare()
    first, last = (
        round(part * len(text)) for part in (config.train_share, config.until)
    )
    return text[:first], text[first:last]


@functools.cache
def _dense(config: Config, symbols: int, steps: int, seed: int) -> Any:
    start, (text, _) = init(config, symbols, seed), _texts(config)
    return train(config, DENSE, symbols, steps, start, 0.0, seed, text)


class Block(nnx.Module):
    """A pre-norm block: attention, then an MLP four times as wide.

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
        """An array of the shape of x, (samples, length, width)."""
        x = x + self.attention(self.norm(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.mlp_norm(x))))


class Transformer(nnx.Module):
    """A small GPT with causal attention and learned positions, without dropout."""

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


@functools.partial(jax.jit, static_argnames=("config", "symbols"))
def init(config: Config, symbols: int, seed: Any) -> Any:
    """The parameters of a fresh network."""
    return nnx.state(_model(config, symbols, jax.random.key(seed)))


@functools.partial(jax.jit, static_argnames=("config", "way", "symbols", "steps"))
def train(
    config: Config,
    way: str,
    symbols: int,
    steps: int,
    params: Any,
    setting: Any,
    seed: Any,
    text: Any,
) -> Any:
    """The parameters after `steps` of training by a way."""
    tx = _optimizer(config, way, steps, setting)
    key = jax.random.fold_in(jax.random.key(seed), 0)
    return _fit(config, symbols, tx, params, steps, key, text)


@functools.partial(jax.jit, static_argnames=("config", "symbols", "steps"))
def refit(
    config: Config, symbols: int, steps: int, params: Any, seed: Any, text: Any
) -> Any:
    """The parameters after more steps of AdamW that leave the zeros alone."""
    key = jax.random.fold_in(jax.random.key(seed), 1)
    adamw = _adamw(config, config.refit_peak, steps)
    tx = optax.chain(adamw, jaxreg.hold_support(_kernels(1.0)))
    return _fit(config, symbols, tx, params, steps, key, text)


@jax.jit
def cut(params: Any, share: Any) -> Any:
    """The parameters with the smallest `share` of all kernel weights set to zero."""
    largest = jaxreg.TopK(fraction=1 - share, scope="tree")
    return jaxreg.on_kernels(largest).prox(params, 1.0)


@functools.partial(jax.jit, static_argnames=("config", "symbols"))
def _numbers(
    config: Config, symbols: int, params: Any, held: Any
) -> dict[str, jax.Array]:
    """Loss per character of the held-out text, zeros, and dead heads and neurons."""
    count = (len(held) - 1) // config.context
    starts = config.context * jnp.arange(count)
    loss = _loss(config, symbols, held)
    losses = jax.lax.map(
        lambda start: loss(params, start[None], None), starts, batch_size=_WINDOWS
    )
    attention = jaxreg.by_path([("attention/.*kernel$", jaxreg.L1(1.0))])
    blocks = [params["blocks"][layer] for layer in range(config.layers)]
    return {
        "validation_loss": jnp.mean(losses),
        "zeros": jaxreg.measure(_kernels(1.0), params)["zero_share"],
        "attention_zeros": jaxreg.measure(attention, params)["zero_share"],
        "dead_heads": jnp.sum(jnp.stack(list(map(dead_heads, blocks)))),
        "dead_neurons": jnp.sum(jnp.stack(list(map(dead_neurons, blocks)))),
    }


def dead_heads(block: Any) -> jax.Array:
    """The number of heads whose values, or whose part of `out`, are all zero."""
    attention = block["attention"]
    values, out = (attention[name]["kernel"][...] for name in ("value", "out"))
    is_dead = jnp.all(values == 0, axis=(0, 2)) | jnp.all(out == 0, axis=(1, 2))
    return jnp.sum(is_dead)


def dead_neurons(block: Any) -> jax.Array:
    """The number of neurons without incoming or without outgoing weights."""
    up, down = (block[name]["kernel"][...] for name in ("up", "down"))
    return jnp.sum(jnp.all(up == 0, axis=0) | jnp.all(down == 0, axis=1))


def _kernels(strength: Any) -> jaxreg.Penalty:
    return jaxreg.on_kernels(jaxreg.L1(strength))


def _units(strength: Any) -> jaxreg.Penalty:
    """Penalises heads, and both kernels of the MLP by neurons; the output is free."""
    size = jaxreg.L1(strength)
    return jaxreg.by_path(
        [
            jaxreg.heads(size),
            jaxreg.neurons(size, layers="up$"),
            jaxreg.input_features(size, layers="down$"),
        ]
    )


def _optimizer(
    config: Config, way: str, steps: int, setting: Any
) -> optax.GradientTransformation:
    if way == DENSE:
        return _adamw(config, config.peak, steps)
    rate = _rate(config.peak, steps)
    # Inside regularize: a clip around it would clip the loss without the penalty.
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


def _adamw(config: Config, peak: float, steps: int) -> optax.GradientTransformation:
    def is_matrix(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    rate, decay = _rate(peak, steps), config.weight_decay
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(rate, weight_decay=decay, mask=is_matrix),
    )


def _rate(peak: float, steps: int) -> optax.Schedule:
    return training.warmup_cosine(peak, steps, steps // 10)


def _model(config: Config, symbols: int, key: jax.Array) -> Transformer:
    return Transformer(
        symbols,
        config.context,
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        rngs=nnx.Rngs(params=key),
    )


def _loss(config: Config, symbols: int, text: Any) -> training.Loss:
    """The mean loss over windows of the text; samples are their first positions."""
    graph = nnx.graphdef(_model(config, symbols, jax.random.key(0)))
    of_batch = training.cross_entropy(lambda params, x: nnx.merge(graph, params)(x))

    def loss(params: Any, starts: Any, _: Any) -> jax.Array:
        windows = text[starts[:, None] + jnp.arange(config.context + 1)]
        return of_batch(params, windows[:, :-1], windows[:, 1:])

    return loss


def _fit(
    config: Config, symbols: int, tx: Any, params: Any, steps: int, key: Any, text: Any
) -> Any:
    starts = jnp.arange(len(text) - config.context)
    loss, length = _loss(config, symbols, text), training.Length(steps, config.batch)
    return training.fit(loss, tx, params, (starts, starts), length, key)


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Means over the seeds, and the cost: the loss less that of the dense networks."""
    measured = (
        "zeros",
        "validation_loss",
        "dead_heads",
        "dead_neurons",
        "attention_zeros",
    )
    table = stats.over_seeds(rows, ("way", "setting"), measured)
    dense = stats.select(table, way=DENSE)[0]["validation_loss"]
    return [{**row, "cost": row["validation_loss"] - dense} for row in table]


def verdict(config: Config, rows: list[Row]) -> str:
    """The cost of about 80 % zeros by each way, the cheapest first."""
    table = summarise(config, rows)
    (dense,) = stats.select(table, way=DENSE)
    nearest = [
        min(stats.select(table, way=way), key=lambda row: abs(row["zeros"] - _SHARE))
        for way in config.ways[1:]
    ]
    told = [
        f"{row['cost']:.2f} by {row['way']} ({row['zeros']:.0%})"
        for row in sorted(nearest, key=lambda row: float(row["cost"]))
    ]
    return (
        f"measured: of {dense['validation_loss']:.3f} nats per character, about "
        f"{_SHARE:.0%} zeros (in brackets) cost {'; '.join(told)}."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Validation loss against the share of zeros: means, errors and single networks."""
    figure = matplotlib.figure.Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    table = summarise(config, rows)
    for way in config.ways:
        color = f"C{WAYS.index(way)}"
        mine = stats.select(rows, way=way)
        single = [(100 * r["zeros"], r["validation_loss"]) for r in mine]
        axes.plot(*zip(*single, strict=True), ".", color=color, alpha=0.3)
        means = stats.select(table, way=way)
        axes.errorbar(
            [100 * row["zeros"] for row in means],
            [row["validation_loss"] for row in means],
            [row["validation_loss_se"] for row in means],
            marker=_MARKERS[way],
            color=color,
            capsize=3,
            label=way,
        )
    dense = table[0]["validation_loss"]
    axes.axhline(dense, color="C0", lw=0.8, ls=":")
    axes.set_ylim(dense - 0.05, dense + _MOST)
    axes.set_xlabel("exact zeros of the kernels' weights, %")
    axes.set_ylabel(f"validation loss, nats (above {dense + _MOST:.2f} not shown)")
    axes.legend(fontsize=8, loc="upper left")
    return figure
