"""Bad input that does not raise: its outcome, measured.

Each row is a test and a line of docs/bad_input.md.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg
from tests.support import ways
from tests.support.trees import assert_equal
from tests.support.ways import EVERY, REPORTS, SUMS, TAILS
from tests.system.bad_input.inputs import Row

# The second row is zero, and the gradient spoils an entry of the first alone.
KERNEL = np.array([[1.0, 2.0], [0.0, 0.0], [-3.0, 1.0], [0.5, 0.25]], "f4")
PARAMS = {"bias": jnp.ones(2), "kernel": jnp.asarray(KERNEL)}
GOOD = {"bias": jnp.full(2, -0.5), "kernel": jnp.asarray(-0.5 * KERNEL)}


def spoilt(number: float) -> Any:
    return {**GOOD, "kernel": GOOD["kernel"].at[0, 0].set(number)}


def stepped(tx: Any, grads: Any, params: Any = None, state: Any = None) -> Any:
    """Parameters and state after one step."""
    params = PARAMS if params is None else params
    state = tx.init(params) if state is None else state
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def made(way: str, strength: Any = 0.1) -> Any:
    return ways.build(way, jaxreg.on_kernels(ways.penalty(way, strength)))


def shows(number: float) -> Callable[[str], None]:
    def check(way: str) -> None:
        after, _ = stepped(made(way), spoilt(number))
        kernel = np.asarray(after["kernel"])
        assert not np.isfinite(kernel[0, 0])
        assert np.isfinite(kernel[1:]).all()
        assert np.isfinite(after["bias"]).all()

    return check


def is_skipped(way: str) -> None:
    tx = optax.apply_if_finite(made(way), 3)
    state = tx.init(PARAMS)
    for number in (float("nan"), float("inf")):
        after, new = stepped(tx, spoilt(number), state=state)
        assert_equal(after, PARAMS)
        assert_equal(new.inner_state, state.inner_state)
    went_on, _ = stepped(tx, GOOD, after, new)
    assert_equal(went_on, stepped(tx, GOOD)[0])


def is_zeroed(way: str) -> None:
    def behind_clip(tx: Any) -> Any:
        return optax.chain(optax.zero_nans(), optax.clip(1.0), tx)

    after, _ = stepped(behind_clip(made(way)), spoilt(float("nan")))
    assert_equal(after, stepped(behind_clip(made(way)), spoilt(0.0))[0])


def starts_again(way: str) -> None:
    tx = made(way)
    stepped(tx, spoilt(float("nan")))
    assert_equal(stepped(tx, GOOD), stepped(tx, GOOD, state=tx.init(PARAMS)))


def reports_nan(way: str) -> None:
    broken, l1 = spoilt(float("nan")), jaxreg.on_kernels(jaxreg.L1(0.1))
    if way in ("describe", "summary"):
        row = REPORTS[way](l1, broken).rows[-1]
        assert way == "describe" or np.isnan(row["value"])
        return
    numbers = jax.tree.leaves(REPORTS[way](l1, broken))
    assert any(np.isnan(number) for number in numbers)


def grows(way: str) -> None:
    """A traced strength of -0.1 is a reward: weights move away from zero."""
    still = {**PARAMS, "kernel": jnp.asarray([[1.0, 1.0]])}
    nothing = jax.tree.map(jnp.zeros_like, still)

    @jax.jit
    def step(strength: Any) -> Any:
        tx = ways.build(way, jaxreg.on_kernels(jaxreg.L1(strength)))
        return stepped(tx, nothing, still)[0]["kernel"]

    assert np.all(step(-0.1) > 1) and np.all(step(0.1) < 1)
    assert np.isnan(step(float("nan"))).all()


def passes(params: Any) -> Callable[[str], None]:
    """The update keeps structure, shapes and dtypes of parameters without entries."""

    def check(way: str) -> None:
        updates, state = ways.first(way, ways.penalty(way), params)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        for update, leaf in zip(
            jax.tree.leaves(updates), jax.tree.leaves(params), strict=True
        ):
            assert (update.shape, update.dtype) == (leaf.shape, leaf.dtype)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
        for report in REPORTS.values():
            if way != "project":
                report(ways.penalty(way), params)

    return check


def is_left_out(absent: Any) -> Callable[[str], None]:
    def check(way: str) -> None:
        more = [{**tree, "absent": absent} for tree in (PARAMS, GOOD)]
        after, _ = stepped(made(way), more[1], more[0])
        assert after.pop("absent") is absent or isinstance(absent, optax.MaskedNode)
        assert_equal(after, stepped(made(way), GOOD)[0])

    return check


def stays_none(way: str) -> None:
    tx = made(way)
    updates, _ = tx.update({**GOOD, "kernel": None}, tx.init(PARAMS), PARAMS)
    assert updates["kernel"] is None
    assert_equal(updates["bias"], tx.update(GOOD, tx.init(PARAMS), PARAMS)[0]["bias"])


MEASURED = {
    "Gradients that are not finite": [
        Row(
            "a NaN in a gradient",
            EVERY,
            "the parameters of its entry, or of its group, are NaN; all others are as "
            "without it",
            "it shows at once, and never passes for a pruned zero; restore the "
            "parameters and call `tx.init(params)`",
            shows(float("nan")),
        ),
        Row(
            "an infinity in a gradient",
            EVERY,
            "the parameters of its entry, or of its group, are not finite; all others "
            "are as without it",
            "as for NaN",
            shows(float("inf")),
        ),
        Row(
            "NaN or infinity under `optax.apply_if_finite(tx, 3)`",
            EVERY,
            "the step is skipped",
            "parameters and state are as they were, to the bit, and the next step is "
            "the one that would have been",
            is_skipped,
            is_slow=True,
        ),
        Row(
            "a NaN behind `optax.zero_nans()` and `optax.clip(1.0)`",
            EVERY,
            "a step with a gradient of 0 at that entry",
            "all is finite; mind that elementwise clipping in front of a penalty "
            "changes the problem where it acts",
            is_zeroed,
        ),
        Row(
            "a NaN, then the parameters restored and `tx.init(params)`",
            EVERY,
            "the step of a fresh run",
            "nothing of the NaN is left: a transformation holds no state of its own",
            starts_again,
        ),
        Row(
            "NaN in parameters or gradients",
            tuple(REPORTS),
            "the numbers of its leaf are NaN; nothing raises",
            "a report does not stop a run",
            reports_nan,
        ),
    ],
    "Numbers that a trace hides": [
        Row(
            "a traced strength of -0.1, or NaN",
            ("regularize", "prox_sgd", "proximal", "shrink", *SUMS),
            "it is taken as it is: a negative one rewards weights for growing, NaN "
            "makes them NaN",
            "its value cannot be seen while tracing; `jaxreg.describe(penalty, "
            "params)` before the trace refuses both",
            grows,
        ),
    ],
    "Trees with little in them": [
        Row(
            "an empty tree, `{}`",
            EVERY,
            "empty updates",
            "there is nothing to lose; with rules it is refused, see above",
            passes({}),
        ),
        Row(
            "leaves without entries, of shapes `(0, 2)` and `(3, 0)`",
            EVERY,
            "updates without entries",
            "structure, shapes and dtypes are kept",
            passes({"a": jnp.ones((0, 2)), "b": jnp.ones((3, 0))}),
            is_slow=True,
        ),
        Row(
            "a leaf that is `None` in parameters and gradients",
            EVERY,
            "it is no leaf, and no rule sees it",
            "the other leaves train as without it",
            is_left_out(None),
        ),
        Row(
            "a leaf that is `optax.MaskedNode()`",
            EVERY,
            "it is no leaf, and no rule sees it",
            "the other leaves train as without it",
            is_left_out(optax.MaskedNode()),
        ),
        Row(
            "`None` as the gradient of a penalised leaf",
            ("prox_sgd", "reweight", "add_penalty_gradient", *TAILS),
            "its update is `None`: the leaf is not being trained",
            "no weight is touched; Adam and its like refuse such gradients by "
            "themselves",
            stays_none,
        ),
    ],
}
