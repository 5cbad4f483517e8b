"""How does the cost of a program grow with the number of leaves?

Question: How long does JAX take to trace and to lower, and XLA to compile, a training
step with a penalty, as a multiple of the same for `optax.adamw`: for 100 to 10,000
kernels of 16 x 16, and for the parameters of three public models (ResNet-50, and GPT-2
with 12 and with 48 blocks)? The penalty acts on kernels, by one rule.

Claim: Regularization is cheap: no penalty makes a program too large to compile.

Expected: for 10,000 leaves tracing in at most 3 times adamw's time for L1, 4 for
groups and 5 for a sparsity target; compiling in at most 3 (L1) and 6 (groups); tracing,
lowering and compiling the three models under groups in at most 2.5 together. Growth is
linear: the time per leaf at the most leaves is at most 1.5 times that at the fewest.

Cost: about 15 minutes on 2 cores; up to 600 leaves are compiled.

Command: python -m experiments leaves
"""

import dataclasses
import functools
import gc
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import optax

import jaxreg
from experiments.cost._steps import BASE, L1, RATE, Maker, step_of
from experiments.harness.contract import Row
from experiments.kit import stats
from experiments.kit.transformations import TRANSFORMATIONS, Settings

PARTS = ("tracing", "lowering", "compiling")
_PENALTIES = {"L1": L1, "groups": jaxreg.GroupLasso(1e-4, group_axis=-1)}
_SETTINGS = Settings(rate=RATE, target=0.9, end_step=100_000)
WAYS: dict[str, Maker] = {
    f"{name}, {label}": functools.partial(
        TRANSFORMATIONS[name].optimizer, jaxreg.on_kernels(penalty), _SETTINGS
    )
    for name in ("regularize", "target_sparsity")
    for label, penalty in _PENALTIES.items()
}
# Multiples of adamw's time, for the most leaves.
TRACING = {
    "regularize, L1": 3.0,
    "regularize, groups": 4.0,
    "target_sparsity, L1": 5.0,
    "target_sparsity, groups": 5.0,
}
COMPILING = {"regularize, L1": 3.0, "regularize, groups": 6.0}
MODEL_LIMIT, MODEL_WAY = 2.5, "regularize, groups"
GROWTH_LIMIT = 1.5

Shapes = dict[str, tuple[int, ...]]


def small(count: int) -> Shapes:
    """Kernels of 16 x 16."""
    return {f"layer_{index}/kernel": (16, 16) for index in range(count)}


def resnet_50() -> Shapes:
    """He et al. 2016, with a classifier of 1,000 classes."""
    shapes: Shapes = {}

    def convolution(name: str, *shape: int) -> None:
        shapes[f"{name}/conv/kernel"] = shape
        shapes[f"{name}/norm/scale"] = shapes[f"{name}/norm/bias"] = shape[-1:]

    convolution("stem", 7, 7, 3, 64)
    width = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = 64 * 2**stage
        for block in range(blocks):
            name = f"stage_{stage}/block_{block}"
            convolution(f"{name}/reduce", 1, 1, width, inner)
            convolution(f"{name}/spatial", 3, 3, inner, inner)
            convolution(f"{name}/expand", 1, 1, inner, 4 * inner)
            if block == 0:
                convolution(f"{name}/shortcut", 1, 1, width, 4 * inner)
            width = 4 * inner
    return shapes | {"head/kernel": (width, 1000), "head/bias": (1000,)}


def gpt_2(blocks: int, width: int) -> Shapes:
    """Radford et al. 2019, with the embedding of tokens for its head."""
    shapes: Shapes = {
        "tokens/embedding": (50_257, width),
        "places/embedding": (1024, width),
        "norm/scale": (width,),
        "norm/bias": (width,),
    }
    layers = {
        "attention/qkv": (width, 3 * width),
        "attention/out": (width, width),
        "mlp/up": (width, 4 * width),
        "mlp/down": (4 * width, width),
    }
    for block in range(blocks):
        for name, shape in layers.items():
            shapes[f"block_{block}/{name}/kernel"] = shape
            shapes[f"block_{block}/{name}/bias"] = shape[1:]
        for name in ("before_attention", "before_mlp"):
            shapes[f"block_{block}/{name}/scale"] = (width,)
            shapes[f"block_{block}/{name}/bias"] = (width,)
    return shapes


MODELS: dict[str, Callable[[], Shapes]] = {
    "ResNet-50": resnet_50,
    "GPT-2, 12 blocks": lambda: gpt_2(12, 768),
    "GPT-2, 48 blocks": lambda: gpt_2(48, 1600),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Numbers of small kernels, and the largest number of leaves that is compiled."""

    leaves: tuple[int, ...] = (100, 1000, 10_000)
    models: tuple[str, ...] = tuple(MODELS)
    ways: tuple[str, ...] = tuple(WAYS)
    most_compiled: int = 600


QUICK = Config(leaves=(2, 8), models=(), ways=("regularize, L1",), most_compiled=8)


def cells(config: Config) -> list[Row]:
    """One cell per way and set of shapes; adamw runs beside each."""
    names = [*(f"{count} kernels" for count in config.leaves), *config.models]
    return [{"parameters": name, "way": way} for name in names for way in config.ways]


def measure(config: Config, parameters: str, way: str) -> Row:
    """CPU seconds of the way, and their ratios to those of adamw."""
    build = MODELS.get(parameters, lambda: small(int(parameters.split()[0])))
    params = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in build().items()
    }
    compiles = len(params) <= config.most_compiled
    makers: dict[str, Maker] = {BASE: lambda: optax.adamw(RATE), way: WAYS[way]}
    base, ours = (_seconds(make(), params, compiles) for make in makers.values())
    ratios = {part: ours[part] / base[part] for part in base}
    return {
        "leaves": len(params),
        **{f"{part}_seconds": seconds for part, seconds in ours.items()},
        **{part: ratios.get(part) for part in PARTS},
        "together": sum(ours.values()) / sum(base.values()),
    }


def _seconds(
    tx: optax.GradientTransformation, params: Any, compiles: bool
) -> dict[str, float]:
    jax.clear_caches()
    gc.collect()
    state = jax.eval_shape(tx.init, params)
    step = jax.jit(step_of(tx), donate_argnums=(0, 1))
    clock = [time.process_time()]
    traced = step.trace(params, state, params)
    clock.append(time.process_time())
    lowered = traced.lower()
    clock.append(time.process_time())
    if compiles:
        lowered.compile()
        clock.append(time.process_time())
    spans = [end - start for start, end in itertools.pairwise(clock)]
    return dict(zip(PARTS, spans, strict=False))


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """The rows as they are."""
    return rows


def growth(config: Config, rows: list[Row], way: str) -> float:
    """The seconds per leaf to trace the most kernels, over those of the fewest."""
    per_leaf = [
        stats.select(rows, way=way, parameters=f"{count} kernels")[0]["tracing_seconds"]
        / count
        for count in (max(config.leaves), min(config.leaves))
    ]
    return per_leaf[0] / per_leaf[1]


def missed(config: Config, rows: list[Row]) -> list[str]:
    """The ratios that are above their limits, in words."""
    out = []

    def compare(what: str, found: float | None, limit: float) -> None:
        if found is not None and found > limit:
            out.append(f"{what} takes {found:.1f} (limit {limit:g})")

    for row in rows:
        way, where = row["way"], row["parameters"]
        if where in MODELS:
            if way == MODEL_WAY:
                compare(f"{where} under {way}", row["together"], MODEL_LIMIT)
            continue
        compare(f"tracing {where} under {way}", row["tracing"], TRACING[way])
        if way in COMPILING:
            compare(f"compiling {where} under {way}", row["compiling"], COMPILING[way])
    for way in config.ways:
        compare(f"growth of {way}", growth(config, rows, way), GROWTH_LIMIT)
    return out


def verdict(config: Config, rows: list[Row]) -> str:
    """True if no ratio is above its limit; false if a program grows faster than leaves.

    With conditions if other limits are missed, which are named.
    """
    above = missed(config, rows)
    grows = [text for text in above if text.startswith("growth")]
    word = "false" if grows else "holds with conditions" if above else "holds"
    largest = stats.select(rows, parameters=f"{max(config.leaves)} kernels")
    ratios = ", ".join(f"{row['way']} {row['tracing']:.1f}" for row in largest)
    told = f"; above their limits: {'; '.join(above)}" if above else ""
    return (
        f"{word}: {max(config.leaves)} leaves are traced in these multiples of adamw's "
        f"time: {ratios}{told}."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Seconds against the number of small kernels, a line per way."""
    figure = matplotlib.figure.Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, part in zip(panels, ("tracing", "compiling"), strict=True):
        for way in config.ways:
            points = [
                (row["leaves"], row.get(f"{part}_seconds"))
                for row in stats.select(rows, way=way)
                if row["parameters"] not in MODELS and row.get(f"{part}_seconds")
            ]
            if points:
                axes.loglog(*zip(*points, strict=True), marker="o", label=way)
        axes.set_xlabel("kernels of 16 x 16")
        axes.set_ylabel(f"CPU seconds of {part}")
    panels[0].legend()
    return figure
