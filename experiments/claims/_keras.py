"""Keras itself, beside which `keras_regularizer` trains; needs Keras.

The backend is JAX unless KERAS_BACKEND was set before this import.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "jax")
keras: Any = importlib.import_module("keras")


Weights = list[np.ndarray]


def train(
    start: Weights,
    parts: list[tuple[np.ndarray, np.ndarray]],
    *,
    strength: float,
    rate: float,
) -> list[Weights]:
    """Kernel and bias of the hidden layer and of the outputs, in float64.

    Each part, batches of x and of y, is one pass of `fit`, batch by batch as they
    stand; the weights after every part are returned.
    """
    double = {"dtype": "float64"}
    model = keras.Sequential(
        [
            keras.layers.Dense(
                start[0].shape[1],
                activation="relu",
                kernel_regularizer=keras.regularizers.L1(strength),
                **double,
            ),
            keras.layers.Dense(start[2].shape[1], **double),
        ]
    )
    model.build((None, start[0].shape[0]))
    model.set_weights(start)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, **double)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
    found = []
    for x, y in parts:
        rows = x.reshape(-1, x.shape[-1])
        model.fit(rows, y.ravel(), batch_size=y.shape[1], shuffle=False, verbose=0)
        found.append([np.array(weight.value) for weight in model.weights])
    return found
