"""Small architectures whose couplings are hard, and ways to kill their units."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxreg
from jaxreg.states import Couplings

BATCH = 3


@dataclasses.dataclass(frozen=True)
class Model:
    """A function with parameters and examples of its inputs."""

    apply: Callable[..., Any]
    params: Any
    inputs: tuple[Any, ...]

    @property
    def couplings(self) -> Couplings:
        return jaxreg.couplings(self.apply, self.params, *self.inputs)

    def in_dtype(self, dtype: str) -> "Model":
        def cast(leaf: Any) -> Any:
            is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
            return leaf.astype(dtype) if is_float else leaf

        return Model(self.apply, *jax.tree.map(cast, (self.params, self.inputs)))


ZOO: dict[str, Callable[[], Model]] = {}


def model(build: Callable[["Draw"], tuple[Any, Any, Any]]) -> Any:
    ZOO[build.__name__] = lambda: Model(*build(Draw()))
    return build


class Draw:
    """Normal arrays, weights scaled by their fan-in."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def __call__(self, *shape: int) -> jax.Array:
        scale = np.sqrt(max(1, np.prod(shape[:-1])))
        return jnp.asarray(self._rng.normal(size=shape) / scale, "float32")

    def x(self, *shape: int) -> jax.Array:
        return jnp.asarray(self._rng.normal(size=shape), "float32")

    def ints(self, most: int, *shape: int) -> jax.Array:
        return jnp.asarray(self._rng.integers(0, most, shape))


def redraw(inputs: Any, seed: int) -> Any:
    """Inputs of the same shapes; integers stay below the largest of the examples."""
    draw = Draw(seed)

    def drawn(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return draw.ints(int(leaf.max()) + 1, *leaf.shape).astype(leaf.dtype)
        return draw.x(*leaf.shape).astype(leaf.dtype)

    return jax.tree.map(drawn, inputs)


def _mlp(draw: Draw, act: Callable[..., Any]) -> tuple[Any, Any, Any]:
    params = {
        "w1": draw(5, 8),
        "b1": draw(8),
        "w2": draw(8, 6),
        "b2": draw(6),
        "w3": draw(6, 4),
        "b3": draw(4),
    }

    def apply(p: Any, x: Any) -> Any:
        x = act(x @ p["w1"] + p["b1"])
        return act(x @ p["w2"] + p["b2"]) @ p["w3"] + p["b3"]

    return apply, params, (draw.x(BATCH, 5),)


@model
def mlp_relu(draw):
    return _mlp(draw, jax.nn.relu)


@model
def mlp_sigmoid(draw):
    """A dead unit is the constant 1/2, which folds into the next bias."""
    return _mlp(draw, jax.nn.sigmoid)


@model
def mlp_gelu(draw):
    return _mlp(draw, jax.nn.gelu)


def conv(x, w, padding, groups=1):
    return jax.lax.conv_general_dilated(
        x,
        w,
        (1, 1),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def batch_norm(x, p):
    return (x - p["m"]) * jax.lax.rsqrt(p["v"] + 1e-5) * p["s"] + p["b"]


def _norm(draw, width):
    return {
        "m": draw(width),
        "v": jnp.abs(draw(width)) + 0.5,
        "s": draw(width),
        "b": draw(width),
    }


def max_pool(x):
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


@model
def resnet(draw):
    """A residual stream, a depthwise convolution, and pixels joined to features."""
    params = {
        "c0": draw(3, 3, 2, 6),
        "n0": _norm(draw, 6),
        "c1": draw(3, 3, 6, 5),
        "n1": _norm(draw, 5),
        "c2": draw(3, 3, 5, 6),
        "n2": _norm(draw, 6),
        "depth": draw(3, 3, 1, 6),
        "point": draw(1, 1, 6, 7),
        "out": draw(28, 4),
        "bias": draw(4),
    }

    def apply(p, x):
        x = jax.nn.relu(batch_norm(conv(x, p["c0"], "SAME"), p["n0"]))
        y = jax.nn.relu(batch_norm(conv(x, p["c1"], "SAME"), p["n1"]))
        x = x + batch_norm(conv(y, p["c2"], "SAME"), p["n2"])
        x = conv(jax.nn.relu(x), p["depth"], "SAME", x.shape[-1])
        x = max_pool(jax.nn.relu(conv(x, p["point"], "VALID")))
        return x.reshape(x.shape[0], -1) @ p["out"] + p["bias"]

    return apply, params, (draw.x(BATCH, 4, 4, 2),)


@model
def grouped_conv(draw):
    params = {
        "c0": draw(1, 1, 2, 8),
        "c1": draw(3, 3, 2, 12),
        "b1": draw(12),
        "c2": draw(1, 1, 12, 4),
    }

    def apply(p, x):
        x = jax.nn.relu(conv(x, p["c0"], "SAME"))
        x = jax.nn.relu(conv(x, p["c1"], "SAME", 4) + p["b1"])
        return conv(x, p["c2"], "SAME").mean((1, 2))

    return apply, params, (draw.x(BATCH, 4, 4, 2),)


@model
def densenet(draw):
    params = {"a": draw(5, 6), "b": draw(5, 4), "c": draw(10, 3), "d": draw(13, 4)}

    def apply(p, x):
        u = jnp.concatenate([jax.nn.relu(x @ p["a"]), jnp.tanh(x @ p["b"])], -1)
        return jnp.concatenate([u, jax.nn.relu(u @ p["c"])], -1) @ p["d"]

    return apply, params, (draw.x(BATCH, 5),)


def attention(q, k, v):
    scores = jnp.einsum("bthd,bshd->bhts", q, k) / 2.0
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores, -1), v)


@model
def fused_qkv_split(draw):
    params = {"qkv": draw(8, 36), "b": draw(36), "o": draw(12, 8)}

    def apply(p, x):
        parts = jnp.split(x @ p["qkv"] + p["b"], 3, -1)
        q, k, v = (t.reshape(*t.shape[:2], 4, 3) for t in parts)
        out = attention(q, k, v)
        return x + out.reshape(*out.shape[:2], 12) @ p["o"]

    return apply, params, (draw.x(BATCH, 5, 8),)


@model
def fused_qkv_3hd(draw):
    params = {"qkv": draw(8, 36), "o": draw(12, 8)}

    def apply(p, x):
        t = (x @ p["qkv"]).reshape(*x.shape[:2], 3, 4, 3)
        out = attention(t[:, :, 0], t[:, :, 1], t[:, :, 2])
        return x + out.reshape(*out.shape[:2], 12) @ p["o"]

    return apply, params, (draw.x(BATCH, 5, 8),)


@model
def gqa_repeat(draw):
    """Two query heads read one key head."""
    params = {
        "q": draw(8, 4, 3),
        "k": draw(8, 2, 3),
        "v": draw(8, 2, 3),
        "o": draw(4, 3, 8),
    }

    def apply(p, x):
        q, k, v = (jnp.einsum("btd,dhk->bthk", x, p[n]) for n in "qkv")
        k, v = (jnp.repeat(t, 2, axis=2) for t in (k, v))
        return x + jnp.einsum("bthk,hkd->btd", attention(q, k, v), p["o"])

    return apply, params, (draw.x(BATCH, 5, 8),)


@model
def rope_llama(draw):
    """Tied embeddings, RMSNorm, rotary positions, grouped queries and a fused gate."""
    params = {
        "e": draw(11, 8),
        "q": draw(8, 4, 4),
        "k": draw(8, 2, 4),
        "v": draw(8, 2, 4),
        "o": draw(4, 4, 8),
        "gu": draw(8, 24),
        "down": draw(12, 8),
        "n1": draw(8),
        "n2": draw(8),
        "n3": draw(8),
    }

    def norm(x, s):
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * s

    def rope(x):
        t = jnp.arange(x.shape[1])[:, None] / 10 ** jnp.arange(2)
        c, s = (f(t)[None, :, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
        a, b = jnp.split(x, 2, -1)
        return jnp.concatenate([a * c - b * s, b * c + a * s], -1)

    def apply(p, ids):
        x = p["e"][ids]
        y = norm(x, p["n1"])
        q, k, v = (jnp.einsum("btd,dhk->bthk", y, p[n]) for n in "qkv")
        q, k = rope(q), rope(k)
        k, v = (jnp.repeat(t, 2, axis=2) for t in (k, v))
        x = x + jnp.einsum("bthk,hkd->btd", attention(q, k, v), p["o"])
        g, u = jnp.split(norm(x, p["n2"]) @ p["gu"], 2, -1)
        x = x + (jax.nn.silu(g) * u) @ p["down"]
        return norm(x, p["n3"]) @ p["e"].T

    return apply, params, (draw.ints(11, BATCH, 5),)


@model
def scan_stack(draw):
    """Layers of a stack keep units of their own."""
    params = {
        "u": draw(3, 6, 9),
        "b": draw(3, 9),
        "d": draw(3, 9, 6),
        "i": draw(5, 6),
        "o": draw(6, 4),
    }

    def apply(p, x):
        def layer(x, w):
            return x + jax.nn.relu(x @ w["u"] + w["b"]) @ w["d"], None

        x, _ = jax.lax.scan(layer, x @ p["i"], {key: p[key] for key in "ubd"})
        return x @ p["o"]

    return apply, params, (draw.x(BATCH, 5),)


@model
def lstm(draw):
    """Four gates share the units; the recurrent kernel reads what it makes."""
    params = {"wx": draw(4, 24), "wh": draw(6, 24), "b": draw(24), "o": draw(6, 3)}

    def apply(p, x):
        def cell(carry, x):
            h, s = carry
            gates = x @ p["wx"] + h @ p["wh"] + p["b"]
            i, g, f, o = jnp.split(gates, 4, -1)
            s = jax.nn.sigmoid(f) * s + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(s), s), None

        start = jnp.zeros((x.shape[0], 6), x.dtype)
        (h, _), _ = jax.lax.scan(cell, (start, start), x.swapaxes(0, 1))
        return h @ p["o"]

    return apply, params, (draw.x(BATCH, 5, 4),)


@model
def ensemble(draw):
    params = {"w1": draw(3, 5, 8), "b1": draw(3, 8), "w2": draw(3, 8, 2)}

    def apply(p, x):
        def member(q):
            return jax.nn.relu(x @ q["w1"] + q["b1"]) @ q["w2"]

        return jax.vmap(member)(p).mean(0)

    return apply, params, (draw.x(BATCH, 5),)


@model
def equinox_like(draw):
    params = {"w1": draw(8, 5), "b1": draw(8), "w2": draw(4, 8), "b2": draw(4)}

    def apply(p, x):
        def one(x):
            return p["w2"] @ jax.nn.sigmoid(p["w1"] @ x + p["b1"]) + p["b2"]

        return jax.vmap(one)(x)

    return apply, params, (draw.x(BATCH, 5),)


def _two_layers(draw, between):
    params = {"a": draw(5, 6), "b": draw(6, 7), "c": draw(7, 3)}
    return lambda p, x: between(p, x), params, (draw.x(BATCH, 5),)


@model
def reversed_features(draw):
    def apply(p, x):
        return jax.nn.relu(jax.nn.relu(x @ p["a"])[:, ::-1] @ p["b"]) @ p["c"]

    return _two_layers(draw, apply)


@model
def fft_unknown(draw):
    def apply(p, x):
        return jax.nn.relu(jnp.fft.fft(x @ p["a"]).real @ p["b"]) @ p["c"]

    return _two_layers(draw, apply)


@model
def sorted_gather(draw):
    def apply(p, x):
        order = jnp.array([0, 2, 1, 3, 4, 5, 6])
        h = jax.nn.relu(jnp.sort(jnp.tanh(x @ p["a"]), -1) @ p["b"])
        return h[:, order] @ p["c"] + jnp.tanh(x @ p["e"]) @ p["f"]

    function, params, inputs = _two_layers(draw, apply)
    return function, params | {"e": draw(5, 4), "f": draw(4, 3)}, inputs


@model
def weight_norm(draw):
    params = {"a": draw(5, 6), "g": draw(6), "b": draw(6, 3)}

    def apply(p, x):
        norm = jnp.sqrt(jnp.sum(p["a"] ** 2, axis=0) + 1e-12)
        return jax.nn.relu(x @ (p["g"] * p["a"] / norm)) @ p["b"]

    return apply, params, (draw.x(BATCH, 5),)


@model
def layernorm_block(draw):
    params = {"s": draw(5), "t": draw(5), "a": draw(5, 6), "b": draw(6, 5)}

    def apply(p, x):
        h = x - x.mean(-1, keepdims=True)
        h = h * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * p["s"] + p["t"]
        return x + jax.nn.relu(h @ p["a"]) @ p["b"]

    return apply, params, (draw.x(BATCH, 5),)


@model
def cond_branch(draw):
    params = {"a": draw(5, 6), "b": draw(6, 3)}

    def apply(p, x):
        h = x @ p["a"]
        h = jax.lax.cond(x.sum() > 0, jax.nn.relu, lambda h: 2 * h, h)
        return h @ p["b"]

    return apply, params, (draw.x(BATCH, 5),)


@model
def while_loop(draw):
    params = {"a": draw(5, 6), "r": draw(6, 6), "b": draw(6, 3)}

    def apply(p, x):
        def body(carry):
            return carry[0] + 1, jnp.tanh(carry[1] @ p["r"])

        start = 0, x @ p["a"]
        return jax.lax.while_loop(lambda c: c[0] < 3, body, start)[1] @ p["b"]

    return apply, params, (draw.x(BATCH, 5),)


@model
def pixel_shuffle(draw):
    params = {"a": draw(1, 1, 2, 12), "b": draw(1, 1, 3, 2)}

    def apply(p, x):
        h = conv(x, p["a"], "SAME").reshape(-1, 4, 4, 2, 2, 3)
        h = h.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 8, 8, 3)
        return conv(jax.nn.relu(h), p["b"], "SAME")

    return apply, params, (draw.x(BATCH, 4, 4, 2),)


@model
def glu_gate(draw):
    """Two kernels make one unit; either of them kills it."""
    params = {"g": draw(5, 7), "u": draw(5, 7), "c": draw(7), "d": draw(7, 3)}

    def apply(p, x):
        return (jax.nn.sigmoid(x @ p["g"]) * (x @ p["u"] + p["c"])) @ p["d"]

    return apply, params, (draw.x(BATCH, 5),)


@model
def mixture_of_experts(draw):
    """Experts share one width, by a contraction that batches over them."""
    params = {
        "r": draw(5, 3),
        "w1": draw(3, 5, 7),
        "b": draw(3, 7),
        "w2": draw(3, 7, 4),
    }

    def apply(p, x):
        gates = jax.nn.softmax(x @ p["r"], -1)
        h = jax.nn.relu(jnp.einsum("ti,eih->teh", x, p["w1"]) + p["b"])
        return jnp.einsum("te,teo->to", gates, jnp.einsum("teh,eho->teo", h, p["w2"]))

    return apply, params, (draw.x(BATCH, 5),)


@model
def unet(draw):
    """A skip connection concatenates what the encoder keeps to what comes up."""
    params = {
        "down": draw(3, 3, 2, 5),
        "mid": draw(3, 3, 5, 6),
        "up": draw(2, 2, 6, 4),
        "out": draw(1, 1, 9, 3),
        "bias": draw(3),
    }

    def apply(p, x):
        skip = jax.nn.relu(conv(x, p["down"], "SAME"))
        h = jax.nn.relu(conv(max_pool(skip), p["mid"], "SAME"))
        h = jax.lax.conv_transpose(h, p["up"], (2, 2), "SAME")
        return conv(jnp.concatenate([skip, h], -1), p["out"], "SAME") + p["bias"]

    return apply, params, (draw.x(BATCH, 4, 4, 2),)


@model
def bidirectional(draw):
    """Two recurrences, one of them backwards, side by side in the readout."""
    params = {
        "f": {"x": draw(4, 5), "h": draw(5, 5)},
        "b": {"x": draw(4, 6), "h": draw(6, 6)},
        "o": draw(11, 3),
    }

    def apply(p, x):
        def run(q, reverse):
            def cell(h, x):
                h = jnp.tanh(x @ q["x"] + h @ q["h"])
                return h, h

            start = jnp.zeros((x.shape[0], q["h"].shape[0]), x.dtype)
            return jax.lax.scan(cell, start, x.swapaxes(0, 1), reverse=reverse)[1]

        both = [run(p["f"], False), run(p["b"], True)]
        return jnp.concatenate(both, -1) @ p["o"]

    return apply, params, (draw.x(BATCH, 5, 4),)


@model
def squeeze_excite(draw):
    """Channels scale themselves by a small network of their means."""
    params = {
        "c": draw(3, 3, 2, 6),
        "s": draw(6, 4),
        "e": draw(4, 6),
        "o": draw(1, 1, 6, 3),
    }

    def apply(p, x):
        h = jax.nn.relu(conv(x, p["c"], "SAME"))
        gate = jax.nn.sigmoid(jax.nn.relu(h.mean((1, 2)) @ p["s"]) @ p["e"])
        return conv(h * gate[:, None, None], p["o"], "VALID")

    return apply, params, (draw.x(BATCH, 4, 4, 2),)


@model
def tied_autoencoder(draw):
    """One kernel encodes and, transposed, decodes."""
    params = {"w": draw(6, 8), "c": draw(8), "b": draw(6)}

    def apply(p, x):
        return jax.nn.relu(x @ p["w"] + p["c"]) @ p["w"].T + p["b"]

    return apply, params, (draw.x(BATCH, 6),)


@model
def padded_attention(draw):
    """A mask of the inputs meets a mask of the code; layers are rematerialised."""
    params = {
        "q": draw(6, 2, 3),
        "k": draw(6, 2, 3),
        "v": draw(6, 2, 3),
        "o": draw(2, 3, 6),
        "u": draw(6, 9),
        "c": draw(9),
        "d": draw(9, 6),
    }

    def apply(p, x, lengths):
        there = jnp.arange(x.shape[1]) < lengths[:, None]
        causal = jnp.tril(jnp.ones((x.shape[1],) * 2, bool))
        mask = causal[None, None] & there[:, None, None]

        @jax.checkpoint
        def layer(x):
            q, k, v = (jnp.einsum("btd,dhk->bhtk", x, p[n]) for n in "qkv")
            scores = jnp.where(mask, q @ k.swapaxes(2, 3), -1e9)
            out = jnp.einsum("bhts,bhsk->bthk", jax.nn.softmax(scores, -1), v)
            return x + jnp.einsum("bthk,hkd->btd", out, p["o"])

        x = layer(x)
        x = x + jax.nn.gelu(x @ p["u"] + p["c"]) @ p["d"]
        return jnp.where(there[..., None], x, 0)

    return apply, params, (draw.x(BATCH, 5, 6), draw.ints(4, BATCH) + 1)


@model
def interleaved(draw):
    """Features stacked in pairs, tiled over positions and taken apart again."""
    params = {"a": draw(5, 6), "b": draw(5, 6), "w": draw(12, 4), "t": draw(8, 3)}

    def apply(p, x):
        pairs = jnp.stack([jax.nn.relu(x @ p["a"]), jnp.tanh(x @ p["b"])], -1)
        h = jax.nn.relu(pairs.reshape(len(x), -1) @ p["w"])
        first, second = jnp.unstack(jnp.stack([h, 2 * h]))
        return jnp.tile(first + second, (1, 2)) @ p["t"]

    return apply, params, (draw.x(BATCH, 5),)


@model
def low_rank(draw):
    """A product of parameters is added to a kernel."""
    params = {"w": draw(5, 6), "a": draw(5, 3), "b": draw(3, 6), "o": draw(6, 2)}

    def apply(p, x):
        return jax.nn.relu(x @ (p["w"] + p["a"] @ p["b"])) @ p["o"]

    return apply, params, (draw.x(BATCH, 5),)


def killed(
    units: Couplings, params: Any, way: str, seed: int = 1
) -> tuple[Any, list[np.ndarray]]:
    """Parameters with dead units, and per removable dimension which are dead.

    `readers` and `makers` zero the slices of random units in these leaves alone,
    `entries` three quarters of all numbers.
    """
    rng = np.random.default_rng(seed)
    leaves, treedef = jax.tree.flatten(params)
    arrays = {
        path: np.array(leaf) for path, leaf in zip(units.paths, leaves, strict=True)
    }
    dead = []
    for dimension in units.removable:
        off = rng.random(dimension.size) < 0.4
        off[0] = False
        dead.append(off)
        for member in dimension.members:
            if member.is_contracted == (way == "readers") and way != "entries":
                where = np.array(member.units)
                index = np.flatnonzero((where >= 0) & off[where])
                lead = (slice(None),) * member.axis
                arrays[member.path][(*lead, index)] = 0
    if way == "entries":
        for path, leaf in arrays.items():
            arrays[path] = np.where(rng.random(leaf.shape) < 0.75, 0, leaf)
    out = [
        jnp.asarray(arrays[path], leaf.dtype)
        for path, leaf in zip(units.paths, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, out), dead
