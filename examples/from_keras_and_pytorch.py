"""Two habits and their form here: a `kernel_regularizer`, and penalties of a loop.

keras.layers.Dense(64, kernel_regularizer=keras.regularizers.l1(0.01))

torch.optim.Adam([{"params": weights, "weight_decay": 1e-2}, {"params": biases}])
loss = loss + 1e-3 * sum(w.abs().sum() for w in weights)

The strengths stay; a decay is L2 of half of it. Neither habit leaves a weight at 0, and
`regularize` solves the same problems with exact zeros.

python examples/from_keras_and_pytorch.py
"""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import jaxreg

STEPS = 300


def cross_entropy(params, x, y):
    hidden, out = params["hidden"], params["out"]
    logits = jax.nn.relu(x @ hidden["kernel"] + hidden["bias"]) @ out["kernel"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@jax.jit(static_argnames="tx")
def step(params, state, x, y, tx):
    grads = jax.grad(cross_entropy)(params, x, y)  # Of the loss alone.
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def main():
    digits = load_digits()
    x, y = jnp.asarray(digits.data / 16), jnp.asarray(digits.target)
    keras = jaxreg.by_path([("^hidden/kernel$", jaxreg.L1(0.01))])
    torch = jaxreg.on_kernels(jaxreg.ElasticNet(1e-3, 1e-2 / 2))
    keys, results = jax.random.split(jax.random.key(0)), {}
    first, second = (jax.random.normal(key, (64, 64)) / 8 for key in keys)
    start = {
        "hidden": {"kernel": first, "bias": jnp.zeros(64)},
        "out": {"kernel": second[:, :10]},
    }
    for origin, penalty in {"Keras": keras, "PyTorch": torch}.items():
        adam = optax.adam(1e-2)
        habit = optax.chain(jaxreg.add_penalty_gradient(penalty), adam)
        ways = {"in the loss": habit, "regularize": jaxreg.regularize(adam, penalty)}
        for way, tx in ways.items():
            params, state = start, tx.init(start)
            for _ in range(STEPS):
                params, state = step(params, state, x, y, tx)
            objective = float(cross_entropy(params, x, y) + penalty.value(params))
            share = float(jnp.mean(params["hidden"]["kernel"] == 0))
            print(
                f"{origin:7}  {way:11}  {share:5.1%} zeros, objective {objective:.3f}"
            )
            results[origin, way] = share, objective
    return results


if __name__ == "__main__":
    main()
