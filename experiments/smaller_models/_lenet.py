"""LeNets: training to sparse weights, what they take on disk, and the removal."""

import dataclasses
import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg
from experiments.kit import training

LENET_300, LENET_5 = "LeNet-300-100", "LeNet-5"
FIXED, TARGET = "fixed strength", "target_sparsity"
# The windows, inputs and outputs of the kernel of each layer.
SHAPES = {
    LENET_300: ((1, 784, 300), (1, 300, 100), (1, 100, 10)),
    LENET_5: ((25, 1, 20), (25, 20, 50), (16, 50, 500), (1, 500, 10)),
}

# Bytes of a number and of a pointer, and the bits of a byte.
_FLOAT, _POINTER, _BITS = 4, 4, 8

# Leaves of NumPy or of JAX.
Params = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A run of Adam with warm-up and cosine, and its refit by AdamW.

    `begin` and `landing` are the shares of the steps at which the zeros of
    `target_sparsity` begin to rise and reach their target.
    """

    steps: int
    peak: float
    begin: float
    landing: float
    refit_steps: int
    refit_decay: float = 0.1
    refit_peak: float = 1e-3
    width: float = 0.05
    batch: int = 128
    warmup: int = 200


def init(model: str, key: jax.Array) -> Params:
    """Fresh layers; each kernel has the axes window, inputs and outputs."""
    keys = jax.random.split(key, len(SHAPES[model]))
    scale = jax.nn.initializers.lecun_normal(in_axis=(0, 1), out_axis=2)
    return {
        f"layer_{index}": {"kernel": scale(key, shape), "bias": jnp.zeros(shape[2])}
        for index, (key, shape) in enumerate(zip(keys, SHAPES[model], strict=True))
    }


def logits(params: Params, x: Any) -> jax.Array:
    """The logits of flat images; 25 windows are a 5x5 convolution with pooling."""
    layers = list(params.values())
    for index, layer in enumerate(layers):
        kernel = layer["kernel"]
        if kernel.shape[0] == 25:
            x = _pooled(_convolved(x, kernel) + layer["bias"])
        else:
            flat = kernel.reshape(-1, kernel.shape[-1])
            x = x.reshape(len(x), -1) @ flat + layer["bias"]
        if index < len(layers) - 1:
            x = jax.nn.relu(x)
    return x


def _convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution by matrix products, since XLA's takes 1 s a step on a CPU."""
    _, inputs, outputs = kernel.shape
    if inputs == 1 and x.ndim == 2:
        x = x.reshape(-1, 28, 28)
        size = x.shape[1] - 4
        corners = [(row, column) for row in range(5) for column in range(5)]
        windows = [x[:, i : i + size, j : j + size] for i, j in corners]
        return jnp.stack(windows, axis=-1) @ kernel[:, 0]
    size = x.shape[1] - 4
    wide = jnp.concatenate([x[:, :, j : j + size] for j in range(5)], axis=-1)
    rows = kernel.reshape(5, 5 * inputs, outputs)
    products = [wide[:, i : i + size] @ rows[i] for i in range(5)]
    return functools.reduce(jnp.add, products)


def _pooled(x: jax.Array) -> jax.Array:
    samples, height, width, channels = x.shape
    pairs = x.reshape(samples, height // 2, 2, width // 2, 2, channels)
    return jnp.max(pairs, axis=(2, 4))


@functools.partial(jax.jit, static_argnames=("recipe", "model", "by"))
def trained(
    recipe: Recipe,
    model: str,
    by: str,
    penalty: jaxreg.Penalty,
    target: Any,
    seed: Any,
    data: tuple[Any, Any],
) -> tuple[Params, Params]:
    """The parameters after the run and after the refit."""
    keys = jax.random.split(jax.random.key(seed), 3)
    loss = training.cross_entropy(logits)
    rate = training.warmup_cosine(recipe.peak, recipe.steps, recipe.warmup)
    adam = optax.adam(rate)
    if by == FIXED:
        tx = jaxreg.regularize(adam, penalty, recipe.width)
    else:
        tx = jaxreg.target_sparsity(
            adam,
            penalty,
            target,
            round(recipe.landing * recipe.steps),
            begin_step=round(recipe.begin * recipe.steps),
            factor_range=(1.0, 1e3),
            width=recipe.width,
        )
    params = training.fit(loss, tx, init(model, keys[0]), data, recipe, keys[1])
    rate = training.warmup_cosine(recipe.refit_peak, recipe.refit_steps, recipe.warmup)
    adamw = optax.adamw(rate, weight_decay=recipe.refit_decay)
    refit = optax.chain(adamw, jaxreg.hold_support(penalty))
    length = training.Length(recipe.refit_steps, recipe.batch)
    return params, training.fit(loss, refit, params, data, length, keys[2])


def sizes(params: Params) -> list[tuple[int, int, int]]:
    """The entries, non-zeros and outputs of the kernel of each layer."""
    kernels = [np.asarray(layer["kernel"]) for layer in params.values()]
    return [(k.size, int(np.count_nonzero(k)), k.shape[-1]) for k in kernels]


def stored_bytes(params: Params) -> dict[str, int]:
    """The bytes of each format, with float32 values and dense biases.

    csr32 and csr16 store the values, column numbers of 32 or 16 bits, and a 32-bit
    pointer per row (an output) and layer; mask stores a bit per weight and the values.
    """
    layers = sizes(params)
    biases = _FLOAT * sum(outputs for _, _, outputs in layers)
    values = sum(left for _, left, _ in layers)
    pointers = _POINTER * sum(outputs + 1 for _, _, outputs in layers)
    bits = sum(math.ceil(entries / _BITS) for entries, _, _ in layers)
    return {
        "bytes_dense": _FLOAT * sum(entries for entries, _, _ in layers) + biases,
        "bytes_csr32": (_FLOAT + 4) * values + pointers + biases,
        "bytes_csr16": (_FLOAT + 2) * values + pointers + biases,
        "bytes_mask": _FLOAT * values + bits + biases,
    }


def compact(params: Params) -> tuple[Params, np.ndarray]:
    """The same function by smaller dense layers, and the inputs that these read.

    Removes units without incoming weights, whose constant output goes into the biases
    above, units without outgoing weights, and inputs that no unit reads.
    """
    kernels = [np.asarray(layer["kernel"]) for layer in params.values()]
    biases = [np.array(layer["bias"]) for layer in params.values()]
    size = -1
    while size != sum(kernel.size for kernel in kernels):
        size = sum(kernel.size for kernel in kernels)
        for low, high in itertools.pairwise(range(len(kernels))):
            has_inputs = np.any(kernels[low] != 0, axis=(0, 1))
            constant = np.where(has_inputs, 0.0, np.maximum(biases[low], 0.0))
            biases[high] += np.einsum("wio,i->o", kernels[high], constant, dtype="f4")
            keep = has_inputs & np.any(kernels[high] != 0, axis=(0, 2))
            kernels[low], biases[low] = kernels[low][..., keep], biases[low][keep]
            kernels[high] = kernels[high][:, keep]
    read = np.any(kernels[0] != 0, axis=(0, 2))
    kernels[0] = kernels[0][:, read]
    layers = zip(params, kernels, biases, strict=True)
    return {name: {"kernel": k, "bias": b} for name, k, b in layers}, read


def gap(params: Params, small: Params, read: np.ndarray, x: np.ndarray) -> float:
    """The largest difference of the logits, relative to the largest logit."""
    is_flat = len(read) == x.shape[1]
    large = np.asarray(logits(params, x))
    cut = np.asarray(logits(small, x[:, read] if is_flat else x))
    return float(np.max(np.abs(large - cut)) / np.max(np.abs(large)))
