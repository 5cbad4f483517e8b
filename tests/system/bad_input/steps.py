"""Bad steps: gradients and states that do not belong to the parameters.

Each row is a test and a line of docs/bad_input.md.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg
from experiments.kit.transformations import TRANSFORMATIONS, Settings
from tests.support import ways
from tests.support.ways import NORMAL_MAPS, PARAMS, PROXIMAL, SUMS, WITH_STATE
from tests.system.bad_input.inputs import Row, refused
from tests.system.bad_input.outcomes import GOOD, KERNEL, made, stepped
from tests.system.bad_input.outcomes import PARAMS as KERNELS


def with_grads(grads: Any) -> Callable[[str], Any]:
    return lambda way: ways.first(way, ways.on_kernels(way), PARAMS, grads)


def body(kernel: Any, bias: Any = None) -> Any:
    return {"body": {"bias": jnp.ones(2) if bias is None else bias, "kernel": kernel}}


def with_inner(change: Callable[[Any], Any]) -> Callable[[str], Any]:
    """A step around an optimizer whose update of each leaf is changed."""

    def use(way: str) -> Any:
        def update(updates: Any, state: Any, params: Any = None) -> Any:
            return jax.tree.map(change, updates), state

        inner = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
        settings = Settings(
            inner=lambda rate: inner, preconditioner=jaxreg.preconditioners.identity()
        )
        tx = TRANSFORMATIONS[way].alone(ways.on_kernels(way), settings)
        return tx.update(PARAMS, tx.init(PARAMS), PARAMS)

    return use


AT_KERNEL = "at leaf 'body/kernel' of shape (3, 2)"
GRADS_ROWS = [
    refused(
        "gradients that lack a leaf",
        ValueError,
        "updates and params differ in structure",
        with_grads({"body": {"kernel": jnp.ones((3, 2))}}),
    ),
    refused(
        "a gradient of a shape that broadcasts",
        ValueError,
        f"{{way}}: updates has shape (1, 2) {AT_KERNEL}",
        with_grads(body(jnp.ones((1, 2)))),
    ),
    refused(
        "a gradient of another shape",
        ValueError,
        f"{{way}}: updates has shape (4, 2) {AT_KERNEL}",
        with_grads(body(jnp.ones((4, 2)))),
    ),
    refused(
        "a scalar as the gradient of a free leaf",
        ValueError,
        "{way}: updates has shape () at leaf 'body/bias' of shape (2,)",
        with_grads(body(jnp.ones((3, 2)), jnp.ones(()))),
    ),
    refused(
        "a tree where a gradient should be",
        ValueError,
        f"{{way}}: updates has a tree {AT_KERNEL}",
        with_grads(body({"kernel": jnp.ones((3, 2))})),
    ),
    refused(
        "complex gradients",
        TypeError,
        "{way}: updates has dtype complex64 at leaf 'body/kernel' of dtype float32; "
        "allowed: the real floating gradient of a real loss",
        with_grads(body(1j * jnp.ones((3, 2)))),
    ),
    refused(
        "integer gradients",
        TypeError,
        "{way}: updates has dtype int32 at leaf 'body/kernel' of dtype float32",
        with_grads(body(jnp.ones((3, 2), jnp.int32))),
    ),
    refused(
        "gradients of 8 bits",
        TypeError,
        "{way}: updates has dtype float8_e4m3fn at leaf 'body/kernel' of dtype float32",
        with_grads(body(jnp.ones((3, 2), jnp.float8_e4m3fn))),
    ),
    refused(
        "`optax.MaskedNode()` as the gradient of a penalised leaf",
        ValueError,
        "{way}: updates has MaskedNode() at the penalised leaf 'body/kernel'; allowed: "
        "an array, or None if the leaf is not being trained. Mask params alike, as "
        "optax.masked does, or leave the leaf out of the rules",
        with_grads(body(optax.MaskedNode())),
    ),
    refused(
        "`None` as the gradient of a penalised leaf",
        ValueError,
        "{way}: the gradient of the penalised leaf 'body/kernel' is None. Leave the "
        "leaf out of the rules, or train it",
        with_grads(body(None)),
        (*NORMAL_MAPS, *SUMS),
    ),
    refused(
        "an inner optimizer whose updates have another shape, one that broadcasts",
        ValueError,
        "{way}: ...updates... has shape (2,) at leaf 'body/kernel' of shape (3, 2)",
        with_inner(lambda update: jnp.ones(2)),
        (*NORMAL_MAPS, "proximal"),
    ),
    refused(
        "an inner optimizer that gives no update to a penalised leaf",
        ValueError,
        "{way}: the updates of the optimizer has None at the penalised leaf "
        "'body/kernel'",
        with_inner(lambda update: None),
        NORMAL_MAPS,
    ),
]


def with_state_of(made: Any) -> Callable[[str], Any]:
    """An update with the state of other parameters."""

    def use(way: str) -> Any:
        rules = jaxreg.by_path([("kernel", ways.penalty(way))])
        state = ways.build(way, rules).init(made)
        return ways.first(way, rules, PARAMS, state=state)

    return use


def with_new_rules(way: str) -> Any:
    before = jaxreg.by_path([("body/kernel", ways.penalty(way))])
    params = {**PARAMS, "head": {"kernel": jnp.ones((3, 2))}}
    state = ways.build(way, before).init(params)
    return ways.first(way, ways.on_kernels(way), params, state=state)


def with_state_of_adam(way: str) -> Any:
    state = optax.adam(0.01).init(PARAMS)
    return ways.first(way, ways.on_kernels(way), PARAMS, state=state)


NEW_STATE = "call tx.init(params)"
SMALL = body(jnp.ones((1, 2)))
STATE_ROWS = [
    refused(
        "a state of parameters of another structure",
        ValueError,
        f"state and params differ in structure...{NEW_STATE}",
        with_state_of({"kernel": jnp.ones((3, 2))}),
        (*NORMAL_MAPS, *PROXIMAL, *SUMS, "reweight"),
    ),
    refused(
        "a state of parameters of another shape, one that broadcasts",
        ValueError,
        f"shape (1, ...(3, ...{NEW_STATE}",
        with_state_of(SMALL),
        (*NORMAL_MAPS, *PROXIMAL, *SUMS, "reweight"),
    ),
    refused(
        "other rules than the state was made with",
        ValueError,
        f"'head/kernel'...{NEW_STATE}",
        with_new_rules,
        (*NORMAL_MAPS, "reweight"),
    ),
    refused(
        "the state of another optimizer, or a checkpoint restored without its types",
        TypeError,
        "{way}: state is of type ...; allowed: the ... that tx.init(params) returns. "
        "Restore a checkpoint into the structure of tx.init(params)",
        with_state_of_adam,
        WITH_STATE,
    ),
]


def goes_on_with(penalty: Any, way: str) -> None:
    """A restored state steps on under another penalty, and feels it."""
    params, state = stepped(made(way), GOOD)
    after = ways.build(way, jaxreg.on_kernels(penalty))
    went_on, _ = stepped(after, GOOD, params, state)
    # A step or two of the learning rate 0.01; that of RMSProp's first is 0.03.
    np.testing.assert_allclose(went_on["kernel"], params["kernel"], atol=0.1)
    unchanged, _ = stepped(made(way), GOOD, params, state)
    assert np.any(went_on["kernel"] != unchanged["kernel"])


def takes_the_new_strength(way: str) -> None:
    goes_on_with(jaxreg.GroupLasso(0.5, group_axis=0), way)


def takes_the_new_class(way: str) -> None:
    goes_on_with(jaxreg.ElasticNet(0.1, 0.05), way)


def after_loading(way: str) -> tuple[Any, ...]:
    """Kernels: trained, loaded, a step after that, and with a new state."""
    tx = made(way)
    trained, state = stepped(tx, GOOD)
    loaded = {**KERNELS, "kernel": jnp.asarray(KERNEL[::-1] + 1)}
    after, _ = stepped(tx, GOOD, loaded, state)
    fresh, _ = stepped(tx, GOOD, loaded)
    return tuple(tree["kernel"] for tree in (trained, loaded, after, fresh))


def keeps_loaded_weights(way: str) -> None:
    _, loaded, after, _ = after_loading(way)
    # As above: a step or two.
    np.testing.assert_allclose(after, loaded, atol=0.1)


def undoes_loaded_weights(way: str) -> None:
    trained, loaded, after, fresh = after_loading(way)
    # Of the edit, up to 5, FTRL keeps what its first steps still weigh.
    assert np.abs(after - trained).max() < np.abs(after - loaded).max()
    np.testing.assert_allclose(fresh, loaded, atol=0.1)


# Those that a strength acts in: target_sparsity finds its own, from the target.
_ACTING = tuple(
    way
    for way in (*NORMAL_MAPS, *PROXIMAL, "prox_sgd", *SUMS)
    if way != "target_sparsity"
)
CHANGED_ROWS = [
    Row(
        "another strength after a restore",
        _ACTING,
        "it acts from the next step on",
        "parameters and moments go on",
        takes_the_new_strength,
        is_slow=True,
    ),
    Row(
        "another class of penalty after a restore, on the same leaves",
        (*NORMAL_MAPS, *PROXIMAL, *SUMS),
        "it acts from the next step on; `regularize` moves latents that do "
        "not fit the parameters",
        "no weight jumps; call `tx.init(params)` for a latent that is the new "
        "penalty's own",
        takes_the_new_class,
        is_slow=True,
    ),
    Row(
        "weights loaded or edited between two steps",
        (*NORMAL_MAPS, *PROXIMAL, "prox_sgd", "reweight"),
        "training goes on from the new weights",
        "`regularize` moves their latents to the nearest ones of the new weights",
        keeps_loaded_weights,
    ),
    Row(
        "weights loaded or edited between two steps",
        SUMS,
        "the next step undoes the edit: the sums alone say where the weights are",
        "with `tx.init(params)` after loading, training goes on from them",
        undoes_loaded_weights,
    ),
]
