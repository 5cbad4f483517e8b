"""A small Transformer trained on eight simulated devices, against one: a child process.

Run as a program it prints one JSON object, on which `test_meshes.py` has its tests.
"""

from __future__ import annotations

import collections
import json
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxreg

TOKENS, FEATURES, HEADS, HIDDEN = 32, 16, 2, 64
RATE, STEPS = 1e-2, 5
# XLA combines collectives into one, whose result is a tuple.
COLLECTIVES = r"= (\(.*?\)|\S+) (all-gather|all-to-all|all-reduce|collective-permute)\b"

LAYOUTS = {
    "data parallel": ((8,), ("data",)),
    "fully sharded": ((8,), ("data",)),
    "tensor parallel": ((4, 2), ("data", "model")),
}
# The axis of a kernel that tensor parallelism splits: heads, and columns of the MLP.
SPLIT = {"query": 1, "key": 1, "value": 1, "out": 0, "up": 1, "down": 0}

PENALTY = jaxreg.by_path(
    [
        (r"(query|key|value)/kernel$", jaxreg.GroupLasso(0.1, group_axis=1)),
        (r"out/kernel$", jaxreg.GroupLasso(0.1, group_axis=0)),
        # Inputs of `up`: under tensor parallelism a group spans devices.
        (r"(up|down)/kernel$", jaxreg.GroupLasso(0.1, group_axis=0)),
        (r"embedding$|head/kernel$", jaxreg.L1(0.02)),
    ]
)
BOUNDS = jaxreg.by_path(
    [
        (r"up/kernel$", jaxreg.L2Ball(0.5, group_axis=0)),
        (r"(query|key|value)/kernel$", jaxreg.MinMaxNorm(0.1, 0.5, group_axis=1)),
        (r"kernel$", jaxreg.Box(-0.2, 0.2)),
    ]
)


def adam() -> optax.GradientTransformation:
    # The gradients of this model go down to 1e-9, which is rounding error: a larger
    # eps keeps Adam from making steps of full size of it.
    return optax.adam(RATE, eps=1e-3)


WAYS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": adam,
    "regularize": lambda: jaxreg.regularize(adam(), PENALTY),
    "prox_adam": lambda: jaxreg.prox_adam(RATE, PENALTY, eps=1e-3),
    "shrink": lambda: optax.chain(adam(), jaxreg.shrink(PENALTY, RATE)),
    "project": lambda: optax.chain(adam(), jaxreg.project(BOUNDS)),
    "hold_support": lambda: optax.chain(adam(), jaxreg.hold_support(PENALTY)),
    "half_space": lambda: optax.chain(adam(), jaxreg.half_space(PENALTY_ON_GROUPS)),
    "target_sparsity": lambda: jaxreg.target_sparsity(adam(), PENALTY, 0.5, 3),
    "dual_average": lambda: jaxreg.dual_average(RATE, PENALTY),
    "ftrl": lambda: jaxreg.ftrl(RATE, PENALTY),
}
PENALTY_ON_GROUPS = jaxreg.on_kernels(jaxreg.GroupLasso(0.1, group_axis=0))


class Transformer(nnx.Module):
    """One block."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(TOKENS, FEATURES, rngs=rngs)
        self.norm = nnx.LayerNorm(FEATURES, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            HEADS, FEATURES, decode=False, use_bias=False, rngs=rngs
        )
        self.up = nnx.Linear(FEATURES, HIDDEN, rngs=rngs)
        self.down = nnx.Linear(HIDDEN, FEATURES, rngs=rngs)
        self.head = nnx.Linear(FEATURES, TOKENS, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.embed(tokens)
        x = x + self.attention(self.norm(x))
        return self.head(x + self.down(nnx.gelu(self.up(x))))


GRAPH, STATE = nnx.split(Transformer(nnx.Rngs(0)))


def by_flax(params: Any, tokens: jax.Array) -> jax.Array:
    state = jax.tree.map(lambda leaf: leaf, STATE)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(GRAPH, state)(tokens)


def by_hand(params: Any, tokens: jax.Array) -> jax.Array:
    """The same, with the shardings that an explicit mesh needs.

    Flax's modules do not run there: `nnx.Embed` raises a ShardingTypeError.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if "model" not in mesh.axis_names:
        params = jax.sharding.reshard(params, P())
    split = "model" if "model" in mesh.axis_names else None
    rows, heads = P("data", None, None), P("data", None, split, None)

    def of(name: str, form: str, x: jax.Array, out: Any) -> jax.Array:
        layer = params if name in params else params["attention"]
        y = jnp.einsum(form, x, layer[name]["kernel"], out_sharding=out)
        return y + layer[name]["bias"] if "bias" in layer[name] else y

    x = params["embed"]["embedding"].at[tokens].get(out_sharding=rows)
    normal = jax.nn.standardize(x, epsilon=1e-6)
    normal = normal * params["norm"]["scale"] + params["norm"]["bias"]
    asked, key, value = (
        of(name, "bte,ehd->bthd", normal, heads) for name in ("query", "key", "value")
    )
    scores = jnp.einsum("bthd,bshd->bhts", asked, key) / (FEATURES / HEADS) ** 0.5
    mixed = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), value)
    x = x + of("out", "bthd,hde->bte", mixed, rows)
    wide = jax.nn.gelu(of("up", "bte,ef->btf", x, P("data", None, split)))
    x = x + of("down", "btf,fe->bte", wide, rows)
    return of("head", "bte,ef->btf", x, rows)


def gradients(model: Callable[..., Any]) -> Callable[..., Any]:
    def loss(params: Any, tokens: jax.Array) -> jax.Array:
        logits = model(params, tokens)
        answers = (3 * tokens + 1) % TOKENS
        picked = jax.nn.one_hot(answers, TOKENS)
        return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * picked, axis=-1))

    return jax.grad(loss)


def start() -> Any:
    """The initial weights, with groups and entries that are zero or will soon be."""

    def one(path: Any, leaf: Any) -> Any:
        if "kernel" not in jax.tree_util.keystr(path):
            return np.asarray(leaf)
        halves = np.asarray(leaf).copy()
        halves[::2] *= 0.05
        halves[:, 0] *= 0.05
        halves[1] = 0
        return halves

    return jax.tree_util.tree_map_with_path(one, nnx.to_pure_dict(STATE))


def spec_of(layout: str, path: Any, leaf: Any) -> Any:
    """The layout of a parameter on the mesh."""
    names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    if layout == "fully sharded":
        fits = [axis for axis in range(leaf.ndim) if leaf.shape[axis] % 8 == 0]
        place, name = max(fits, key=lambda axis: leaf.shape[axis]), "data"
    elif layout == "tensor parallel" and names[-2] in SPLIT and leaf.ndim > 1:
        place, name = SPLIT[names[-2]], "model"
    else:
        return P()
    return P(*(name if axis == place else None for axis in range(leaf.ndim)))


class Run:
    """A model with its parameters and tokens on a mesh, or on one device."""

    def __init__(self, mesh: Any, layout: str) -> None:
        tokens = np.random.default_rng(0).integers(0, TOKENS, (8, 6))
        is_explicit = mesh is not None and AxisType.Explicit in mesh.axis_types
        self.mesh = mesh
        self.gradients = gradients(by_hand if is_explicit else by_flax)
        if mesh is None:
            self.params, self.tokens = jax.device_put((start(), tokens))
        else:
            self.params = jax.tree_util.tree_map_with_path(
                lambda path, leaf: jax.device_put(
                    leaf, NamedSharding(mesh, spec_of(layout, path, leaf))
                ),
                start(),
            )
            self.tokens = jax.device_put(tokens, NamedSharding(mesh, P("data")))
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.params)
        self.gradient = jax.jit(self.gradients, out_shardings=shardings)

    def train(self, way: str) -> tuple[Any, Any, str]:
        """Parameters and state after some steps, and the text of the update."""
        tx, params = WAYS[way](), self.params
        state = tx.init(params)
        lowered = jax.jit(tx.update).lower(params, state, params)
        compiled = lowered.compile()
        for _ in range(STEPS):
            grads = self.gradient(params, self.tokens)
            updates, state = compiled(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params, state, compiled.as_text()

    def done(self, way: str) -> Any:
        return self.measure() if way == "measure" else self.train(way)

    def measure(self) -> tuple[dict[str, float], str]:
        """The numbers of `measure`, and the text of its program."""
        grads = self.gradient(self.params, self.tokens)
        previous = jax.tree.map(lambda leaf: leaf * (leaf > 0), self.params)
        arguments = PENALTY, self.params, grads, None, previous
        compiled = jax.jit(jaxreg.measure).lower(*arguments).compile()
        found = compiled(*arguments)
        numbers = {name: float(number) for name, number in found.items()}
        return numbers, compiled.as_text()

    def gathers_of_a_step(self, way: str) -> dict[str, int]:
        """The all-gathers of gradient and update in one program, by their shape."""
        tx = WAYS[way]()

        def step(params: Any, state: Any, tokens: Any) -> Any:
            updates, state = tx.update(self.gradients(params, tokens), state, params)
            return optax.apply_updates(params, updates), state

        inputs = self.params, tx.init(self.params), self.tokens
        text = jax.jit(step).lower(*inputs).compile().as_text()
        return collections.Counter(
            re.sub(r"\{.*?\}", "", shape)
            for shape, name in re.findall(COLLECTIVES, text)
            if name == "all-gather"
        )


def collectives(text: str) -> list[str]:
    return sorted({name for _, name in re.findall(COLLECTIVES, text)})


def compared(found: Any, wanted: Any, params: Any) -> dict[str, Any]:
    """The results of a way on a mesh, compared with one device."""
    trained, state, text = found
    ours, theirs = (
        list(map(np.asarray, jax.tree.leaves(tree))) for tree in (trained, wanted[0])
    )
    shardings = {leaf.shape: leaf.sharding for leaf in jax.tree.leaves(params)}
    kept = [leaf for leaf in jax.tree.leaves((trained, state)) if leaf.ndim > 0]
    return {
        "off": max(
            float(np.max(np.abs(a - b))) for a, b in zip(ours, theirs, strict=True)
        ),
        "zeros": sum(int(np.sum(leaf == 0)) for leaf in theirs),
        "zeros differ": sum(
            int(np.sum((a == 0) != (b == 0))) for a, b in zip(ours, theirs, strict=True)
        ),
        "sharded otherwise": [
            f"{leaf.shape}: {leaf.sharding}"
            for leaf in kept
            if not leaf.sharding.is_equivalent_to(shardings[leaf.shape], leaf.ndim)
        ],
        "collectives": collectives(text),
    }


def on_mesh(run: Run, way: str, wanted: Any) -> dict[str, Any]:
    """Runs a way on a mesh and compares it with its run on one device."""
    if way == "gathers":
        return {name: run.gathers_of_a_step(name) for name in ("adam", "regularize")}
    if way == "measure":
        found, text = run.measure()
        seen = collectives(text)
        return {"found": found, "wanted": wanted[0], "collectives": seen}
    return compared(run.train(way), wanted, run.params)


def main(cases: list[str]) -> None:
    """Each case is "kind, layout: way, way"."""
    # One program at a time: simulated devices share few threads.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    alone = Run(None, "")
    expected: dict[str, Any] = {"gathers": None}
    rows: dict[str, Any] = {}
    for case in cases:
        kind, layout, *ways = re.split(r"[,:] ", case)
        sizes, names = LAYOUTS[layout]
        mesh = jax.make_mesh(sizes, names, (getattr(AxisType, kind),) * len(sizes))
        with jax.set_mesh(mesh):
            run = Run(mesh, layout)
        for way in ways:
            if way not in expected:
                expected[way] = alone.done(way)
            with jax.set_mesh(mesh):
                row = on_mesh(run, way, expected[way])
            rows[f"{kind}, {layout}: {way}"] = row
    print(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
