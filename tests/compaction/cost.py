"""CPU seconds of couplings and compact beside the compilation of the model.

A transformer of 12 blocks: python -m tests.compaction.cost
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxreg
from jaxreg.compaction._trace import traced
from jaxreg.compaction.compact import Decision
from tests.compaction.zoo import Draw, attention

BLOCKS, WIDTH, HEADS, HIDDEN, WORDS = 12, 64, 4, 128, 50


def params() -> dict[str, Any]:
    """Blocks without a head and half of the hidden units, by zero output rows."""
    draw, size = Draw(), WIDTH // HEADS
    blocks = [
        {
            **{name: draw(WIDTH, HEADS, size) for name in "qkv"},
            "norm1": draw(WIDTH),
            "norm2": draw(WIDTH),
            "bias": draw(HEADS, size),
            "o": draw(HEADS, size, WIDTH).at[1].set(0.0),
            "u": draw(WIDTH, HIDDEN),
            "ub": draw(HIDDEN),
            "d": draw(HIDDEN, WIDTH).at[::2].set(0.0),
            "db": draw(WIDTH),
        }
        for _ in range(BLOCKS)
    ]
    return {"e": draw(WORDS, WIDTH), "blocks": blocks, "out": draw(WIDTH, WORDS)}


def norm(x: Any, scale: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale


def apply(p: Any, ids: Any) -> Any:
    x = p["e"][ids]
    for b in p["blocks"]:
        y = norm(x, b["norm1"])
        q, k, v = (jnp.einsum("btd,dhk->bthk", y, b[name]) for name in "qkv")
        out = attention(q + b["bias"], k, v)
        x = x + jnp.einsum("bthk,hkd->btd", out, b["o"])
        hidden = jax.nn.gelu(norm(x, b["norm2"]) @ b["u"] + b["ub"])
        x = x + hidden @ b["d"] + b["db"]
    return x @ p["out"]


def main() -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    tree, ids = params(), Draw().ints(WORDS, 2, 16)
    lowered = jax.jit(apply).lower(tree, ids)
    compiling = seconds(lowered.compile)
    tracing = seconds(lambda: jaxreg.couplings(apply, tree, ids))
    print(f"compile apply {compiling:.2f} s, couplings {tracing / compiling:.3f} of it")
    model = traced(apply, tree, (ids,))
    leaves = jax.tree.leaves(tree)

    def decide() -> None:
        Decision(model, model.removable, leaves, fold=True).settle(1)

    print(f"decision {seconds(decide) / compiling:.1f} of it")
    units = jaxreg.couplings(apply, tree, ids)
    whole = seconds(lambda: jaxreg.compact(units, tree, ids))
    print(f"compact with verification {whole / compiling:.1f} of it")


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
