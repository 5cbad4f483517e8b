"""A network with 95 % zeros: train to that share, then go on without the penalty.

`target_sparsity` finds the strength and meets the number exactly. L1 has shrunk what it
kept, so that `hold_support` then trains the same weights without it.

python examples/wanted_sparsity_nnx.py
"""

import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import jaxreg

SHARE, STEPS, REFIT_STEPS = 0.95, 400, 100


def cross_entropy(model, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()


@nnx.jit
def step(model, optimizer, x, y):
    optimizer.update(model, nnx.grad(cross_entropy)(model, x, y))


def train(model, tx, steps, x, y):
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for _ in range(steps):
        step(model, optimizer, x, y)


def zeros_and_accuracy(model, x, y):
    kernels = jnp.concatenate([jnp.ravel(model.layers[i].kernel[...]) for i in (0, 2)])
    return float(jnp.mean(kernels == 0)), float(jnp.mean(model(x).argmax(1) == y))


def main():
    digits = load_digits()
    data = train_test_split(digits.data / 16, digits.target, random_state=0)
    x, x_test, y, y_test = map(jnp.asarray, data)
    rngs = nnx.Rngs(0)
    hidden, out = nnx.Linear(64, 100, rngs=rngs), nnx.Linear(100, 10, rngs=rngs)
    model = nnx.Sequential(hidden, nnx.relu, out)
    penalty = jaxreg.on_kernels(jaxreg.L1(1e-3))

    adam, end_step = optax.adam(1e-2), int(0.8 * STEPS)
    tx = jaxreg.target_sparsity(adam, penalty, SHARE, end_step=end_step)
    train(model, tx, STEPS, x, y)
    sparse = zeros_and_accuracy(model, x_test, y_test)
    tx = optax.chain(optax.adam(1e-3), jaxreg.hold_support(penalty))
    train(model, tx, REFIT_STEPS, x, y)
    refit = zeros_and_accuracy(model, x_test, y_test)
    for name, (zeros, accuracy) in (("sparse", sparse), ("fine-tuned", refit)):
        print(f"{name:10}  {zeros:.2%} zeros, test accuracy {accuracy:.3f}")
    return sparse, refit


if __name__ == "__main__":
    main()
