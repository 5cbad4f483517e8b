"""One training loop for all experiments: pure, and inside jit."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

Params = Any
# An array of NumPy or of JAX, or a tracer.
Array = Any
Loss = Callable[[Params, Array, Array], jax.Array]
Apply = Callable[[Params, Array], jax.Array]


def warmup_cosine(peak: float, steps: int, warmup: int) -> optax.Schedule:
    """Linear warm-up, then cosine to 0 at the last step."""
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps)


def cross_entropy(apply: Apply) -> Loss:
    """The mean cross-entropy of a classifier."""

    def loss(params: Params, x: Array, y: Array) -> jax.Array:
        logits = apply(params, x)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return jnp.mean(losses)

    return loss


def accuracy(apply: Apply, params: Params, x: Array, y: Array) -> jax.Array:
    """The share of samples whose largest logit is that of their label."""
    return jnp.mean(jnp.argmax(apply(params, x), axis=-1) == y)


class Length(NamedTuple):
    """The number of updates, and the samples of each."""

    steps: int
    batch: int


class HasLength(Protocol):
    """A `Length`, or a Config with its fields."""

    @property
    def steps(self) -> int:
        """The number of updates."""

    @property
    def batch(self) -> int:
        """The samples of an update."""


def fit(
    loss: Loss,
    tx: optax.GradientTransformation,
    params: Params,
    data: tuple[Array, Array],
    length: HasLength,
    key: jax.Array,
    count: jax.Array | None = None,
) -> Params:
    """The parameters after training on batches drawn with replacement.

    Batches come from the first `count` samples, which may be traced; None takes all.
    """
    return fit_with_state(loss, tx, params, data, length, key, count)[0]


def fit_with_state(
    loss: Loss,
    tx: optax.GradientTransformation,
    params: Params,
    data: tuple[Array, Array],
    length: HasLength,
    key: jax.Array,
    count: jax.Array | None = None,
) -> tuple[Params, optax.OptState]:
    """Like `fit`, with the last state of the optimizer."""
    x, y = data
    last = len(x) if count is None else count

    def gradient(params: Params, key: jax.Array) -> Params:
        chosen = jax.random.randint(key, (length.batch,), 0, last)
        return jax.grad(loss)(params, x[chosen], y[chosen])

    return _run(tx, gradient, params, jax.random.split(key, length.steps))


def descend(
    tx: optax.GradientTransformation,
    gradient: Callable[[Params], Params],
    params: Params,
    steps: int,
) -> Params:
    """The parameters after `steps` updates with the gradient of a full batch."""
    return _run(tx, lambda params, _: gradient(params), params, jnp.arange(steps))[0]


def _run(
    tx: optax.GradientTransformation,
    gradient: Callable[[Params, jax.Array], Params],
    params: Params,
    inputs: jax.Array,
) -> tuple[Params, optax.OptState]:
    def step(carry: tuple[Params, Any], given: jax.Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = tx.update(gradient(params, given), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), inputs)[0]
