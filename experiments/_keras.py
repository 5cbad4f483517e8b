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


def train(
    start: list[np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    *,
    strength: float,
    rate: float,
    batch: int,
) -> list[np.ndarray]:
    """Kernel and bias of the hidden layer and of the outputs, in float64.

    One pass of `fit` over x and y, batch by batch, as they stand.
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
    model.build((None, x.shape[1]))
    model.set_weights(start)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, **double)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
    model.fit(x, y, batch_size=batch, shuffle=False, verbose=0)
    return list(map(np.asarray, model.get_weights()))
