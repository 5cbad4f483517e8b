"""What a sparse network takes on disk, and the dense network without what is dead."""

from __future__ import annotations

import itertools
import math

import numpy as np

from experiments.smaller_models._lenet import Params, logits

_FLOAT, _POINTER, _BITS = 4, 4, 8


def sizes(params: Params) -> list[tuple[int, int, int]]:
    """Per layer the entries of the kernel, those that are not 0, and its outputs."""
    kernels = [np.asarray(layer["kernel"]) for layer in params.values()]
    return [(k.size, int(np.count_nonzero(k)), k.shape[-1]) for k in kernels]


def stored_bytes(params: Params) -> dict[str, int]:
    """By format, with float32 values and dense biases.

    csr32 and csr16: the values, column numbers of as many bits, and a 32-bit pointer
    per row, which is an output, and layer; mask: a bit per weight, and the values.
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

    Cut are units whose weights from below are all 0, of which the constant output goes
    into the biases above, units that no weight above reads, and inputs that nothing
    reads.
    """
    kernels = [np.asarray(layer["kernel"]) for layer in params.values()]
    biases = [np.array(layer["bias"]) for layer in params.values()]
    seen = -1
    while seen != sum(kernel.size for kernel in kernels):
        seen = sum(kernel.size for kernel in kernels)
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
    """The largest difference of the logits over the largest logit."""
    is_flat = len(read) == x.shape[1]
    large = np.asarray(logits(params, x))
    other = np.asarray(logits(small, x[:, read] if is_flat else x))
    return float(np.max(np.abs(large - other)) / np.max(np.abs(large)))
