"""One strength per group, by gradients of the validation loss through the solution.

Twenty groups of features, of which four have an effect: one strength for all shrinks
these as much as the rest. `jaxreg.minimise` has derivatives by its strengths, so that
gradient descent finds twenty of them, where a grid would need one axis for each.

python examples/strength_per_group.py
"""

import jax
import jax.numpy as jnp

import jaxreg

GROUPS, SIZE, SAMPLES, STEPS, RATE = 20, 3, 60, 30, 0.5


def make_data(key):
    """Training and validation data, with effects in the first four groups."""
    keys = jax.random.split(key, 3)
    x = jax.random.normal(keys[0], (2 * SAMPLES, GROUPS * SIZE))
    effects = (
        jnp.zeros((GROUPS, SIZE)).at[:4].set(jax.random.normal(keys[1], (4, SIZE)))
    )
    y = x @ effects.ravel() + 2 * jax.random.normal(keys[2], (len(x),))
    return (x[:SAMPLES], y[:SAMPLES]), (x[SAMPLES:], y[SAMPLES:])


def loss(w, x, y):
    return jnp.mean((x @ w.ravel() - y) ** 2) / 2


def validation(log_strengths, train, test):
    """The loss on test data of the fit to training data."""
    penalty = jaxreg.weighted(
        jaxreg.GroupLasso(1.0, group_axis=0), jnp.exp(log_strengths)[:, None]
    )
    start = jnp.zeros((GROUPS, SIZE))
    fit = jaxreg.minimise(loss, penalty, start, data=train, tolerance=1e-9)
    return loss(fit.params, *test)


def main():
    train, test = make_data(jax.random.key(0))
    value_and_grad = jax.jit(jax.value_and_grad(validation))
    grid = jnp.geomspace(1e-3, 1.0, 100)
    at_one = [
        value_and_grad(jnp.full(GROUPS, s), train, test)[0] for s in jnp.log(grid)
    ]
    uniform = min(at_one)
    strengths = jnp.full(GROUPS, jnp.log(grid[jnp.argmin(jnp.stack(at_one))]))
    best = uniform
    for _ in range(STEPS):
        value, slope = value_and_grad(strengths, train, test)
        best = min(best, value)
        strengths = strengths - RATE * slope / jnp.max(jnp.abs(slope))
    print(f"validation loss, best of 100 uniform strengths: {uniform:.3f}")
    print(f"a strength per group, {STEPS} gradient steps: {best:.3f}")
    return float(uniform), float(best)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
