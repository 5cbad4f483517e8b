"""The processor time of a lasso by jaxopt and by `minimise`, at equal duality gaps.

`python -m tests.solve.jaxopt_cost` prints the table of docs/from_jaxopt.md, in some
minutes. jaxopt takes as many steps as bring its gap below that of the fit beside it
(the first number of a grid with a spacing of a tenth): its own end, the length of a
step, says nothing about the gap. Both run compiled, in float64, by turns.
"""

import functools
import statistics
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np

import jaxreg

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "JAXopt is no longer", DeprecationWarning)
    import jaxopt

SAMPLES, FEATURES, ACTIVE, REPEATS = 1000, 5000, 50, 5


def squares(w, x, y):
    return jnp.mean((x @ w - y) ** 2) / 2


def relative_gap(w, x, y, strength):
    """The duality gap over half the mean square of y."""
    residual = y - x @ w
    largest = np.abs(x.T @ residual).max() / len(y)
    dual = residual * min(1, strength / largest)
    primal = residual @ residual / 2 + len(y) * strength * np.abs(w).sum()
    return (primal - (y @ y - (y - dual) @ (y - dual)) / 2) / (y @ y / 2)


def processor_time(call):
    begin = time.process_time()
    jax.block_until_ready(call())
    return time.process_time() - begin


def compare(x, y, share):
    strength = float(np.abs(x.T @ y).max()) / len(y) * share
    start, penalty = jnp.zeros(FEATURES), jaxreg.L1(strength)
    data = jnp.asarray(x), jnp.asarray(y)
    problem = jaxreg.solve.linear(*data, intercept=False, standardise=False)
    solver = jaxopt.ProximalGradient(squares, jaxopt.prox.prox_lasso)

    @jax.jit
    def theirs(steps, x, y):
        state = solver.init_state(start, strength, x, y)
        step = functools.partial(_step, solver, strength, x, y)
        return jax.lax.fori_loop(0, steps, step, (start, state))[0]

    ways = {
        "minimise(loss)": lambda: (
            jaxreg.minimise(squares, penalty, start, data=data).params
        ),
        "minimise(linear)": lambda: jaxreg.minimise(problem, penalty).params[
            "coefficients"
        ],
    }
    for name, ours in ways.items():
        gap = relative_gap(np.asarray(ours()), x, y, strength)
        steps = 20
        while relative_gap(np.asarray(theirs(steps, *data)), x, y, strength) > gap:
            steps += max(1, steps // 10)
        their_run = functools.partial(theirs, steps, *data)
        pairs = [
            (processor_time(ours), processor_time(their_run)) for _ in range(REPEATS)
        ]
        ms = [1000 * statistics.median(column) for column in zip(*pairs, strict=True)]
        print(
            f"| max / {1 / share:g} | {gap:.1e} | `{name}` | {ms[0]:.0f} | {ms[1]:.0f} "
            f"({steps} steps) | {ms[1] / ms[0]:.1f} |",
            flush=True,
        )


def _step(solver, strength, x, y, _, carry):
    return tuple(solver.update(*carry, strength, x, y))


def main():
    jax.config.update("jax_enable_x64", True)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(SAMPLES, FEATURES))
    truth = np.r_[generator.normal(size=ACTIVE), np.zeros(FEATURES - ACTIVE)]
    y = x @ truth + generator.normal(size=SAMPLES)
    print("| strength | relative gap | jaxreg | ms | jaxopt, ms | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for share in (0.1, 0.01):
        compare(x, y, share)


if __name__ == "__main__":
    main()
