"""From a penalty on whole neurons to an NNX model that has fewer of them.

`coupled` penalises a neuron as a whole, and `compact` removes those that became zero.

python examples/smaller_network_nnx.py
"""

import functools
import timeit

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits

import jaxreg

WIDTHS, STEPS = (300, 300), 100


def net(first, second):
    """Two hidden layers, as wide as they are told: the smaller model's code too."""
    layer = functools.partial(nnx.Linear, rngs=nnx.Rngs(0))
    hidden = layer(64, first), nnx.relu, layer(first, second), nnx.relu
    return nnx.Sequential(*hidden, layer(second, 10))


def report(name, model, x, y):
    run = nnx.jit(lambda model, x: model(x).argmax(1))
    accuracy = float(jnp.mean(run(model, x) == y))
    seconds = min(timeit.repeat(lambda: run(model, x).block_until_ready(), number=10))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    quality = f"test accuracy {accuracy:.3f}, {100 * seconds:.2f} ms"
    print(f"{name:9}  {count:7,} parameters, {quality}")
    return count, accuracy


def main():
    digits = load_digits()
    x, y = jnp.asarray(digits.data / 16), jnp.asarray(digits.target)
    x, x_test, y, y_test = x[:1000], x[1000:], y[:1000], y[1000:]
    graph, state = nnx.split(net(*WIDTHS))
    params = nnx.to_pure_dict(state)

    def apply(params, x):
        return nnx.merge(graph, params)(x)

    def loss(params):
        logits = apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    units = jaxreg.couplings(apply, params, x[:2])
    penalty = jaxreg.coupled(jaxreg.L1(3e-4), units)
    tx = jaxreg.regularize(optax.adam(1e-2), penalty)
    update = jax.jit(lambda p, state: tx.update(jax.grad(loss)(p), state, p))
    opt_state = tx.init(params)
    for _ in range(STEPS):
        updates, opt_state = update(params, opt_state)
        params = optax.apply_updates(params, updates)

    small = jaxreg.compact(units, params, x[:2])
    layers = small.params["layers"]
    model = net(*(layers[index]["bias"].size for index in (0, 2)))
    nnx.update(model, small.params)
    models = {"trained": nnx.merge(graph, params), "compacted": model}
    return [report(name, each, x_test, y_test) for name, each in models.items()]


if __name__ == "__main__":
    main()
