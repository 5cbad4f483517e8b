"""`carry`: the next update of the smaller model is that of the original, restricted."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from jaxreg.compaction._carry import carried
from jaxreg.compaction._cut import cut_leaf

L1 = jaxreg.on_kernels(jaxreg.L1(1e-3))
STAYS = [0, 2, 3, 7, 8, 11]
KEPT: dict[str, Any] = {
    "a/bias": [STAYS],
    "a/kernel": [None, STAYS],
    "b/kernel": [STAYS, None],
}
SHAPES = {"a/bias": (12,), "a/kernel": (12, 12), "b/kernel": (12, 5)}
PARAMS = {
    "a": {
        "bias": jnp.zeros(12),
        "kernel": jax.random.normal(jax.random.key(0), (12, 12)),
    },
    "b": {"kernel": jax.random.normal(jax.random.key(1), (12, 5))},
}
LABELS = {"a": {"kernel": "x", "bias": "y"}, "b": {"kernel": "x"}}
KERNELS = {"a": {"kernel": True, "bias": False}, "b": {"kernel": True}}
RATE = optax.cosine_decay_schedule(1e-2, 100)
OPTIMIZERS = {
    "adam": optax.adam(1e-2),
    "adamw with a schedule": optax.adamw(RATE),
    "lion": optax.lion(1e-3),
    "momentum": optax.sgd(1e-2, 0.9),
    "rmsprop": optax.rmsprop(1e-2, momentum=0.9),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)),
    "inject_hyperparams": optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
    "masked": optax.masked(optax.adam(1e-2), KERNELS),
    "MultiSteps": optax.MultiSteps(optax.adam(1e-2), 2).gradient_transformation(),
    "partition": optax.partition({"x": optax.adam(1e-2), "y": optax.sgd(1e-2)}, LABELS),
    "apply_if_finite": optax.apply_if_finite(optax.adam(1e-2), 3),
    "ema": optax.chain(optax.adam(1e-2), optax.ema(0.9)),
    "schedule_free": optax.contrib.schedule_free_adamw(1e-2),
    "prodigy": optax.contrib.prodigy(1e-2),
    "sm3": optax.sm3(1e-2),
    "novograd": optax.novograd(1e-2),
    "adan": optax.adan(1e-2),
    "regularize": jaxreg.regularize(optax.adam(1e-2), L1),
    "target_sparsity": jaxreg.target_sparsity(optax.adam(1e-2), L1, 0.5, 100),
    "prox_adam": jaxreg.prox_adam(1e-2, L1),
    "reweight": jaxreg.reweight(lambda p: jaxreg.prox_sgd(0.1, p), L1, 0.1, 2),
}
MIXING = {
    "lamb": optax.lamb(1e-2),
    "muon": optax.contrib.muon(1e-2),
    "lbfgs": optax.lbfgs(1e-1, linesearch=None),
}
# The others are compiled in CI alone.
_DEFAULT = ["partition", "regularize"]


def small(tree: Any) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    pairs = zip(leaves, KEPT.values(), strict=True)
    return treedef.unflatten(cut_leaf(leaf, kept) for leaf, kept in pairs)


def grads(seed: int) -> Any:
    """Gradients that are zero for what is removed."""
    keep = jnp.zeros(12).at[jnp.array(STAYS)].set(1.0)
    whole = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(seed), x.shape), PARAMS
    )
    return {
        "a": jax.tree.map(lambda x: x * keep, whole["a"]),
        "b": {"kernel": whole["b"]["kernel"] * keep[:, None]},
    }


def warmed(tx: Any, params: Any = PARAMS) -> tuple[Any, Any]:
    """Parameters and state after three updates."""
    state = tx.init(params)
    step = jax.jit(tx.update)
    for seed in range(3):
        updates, state = step(grads(seed), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def named(names: Any) -> Any:
    return [
        pytest.param(name, marks=[] if name in _DEFAULT else pytest.mark.slow, id=name)
        for name in names
    ]


@pytest.mark.parametrize("name", named(OPTIMIZERS))
def test_the_next_update_is_that_of_the_original(name: str) -> None:
    tx = OPTIMIZERS[name]
    params, state = warmed(tx)
    less = carried(tx, state, small(params), SHAPES, KEPT)
    wanted = jax.eval_shape(tx.init, small(params))
    assert jax.tree.structure(less) == jax.tree.structure(wanted)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(less))
    update = jax.jit(tx.update)
    updates, _ = update(grads(9), state, params)
    fewer, _ = update(small(grads(9)), less, small(params))
    jax.tree.map(np.testing.assert_array_equal, fewer, small(updates))


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXING)
def test_optimizers_that_mix_entries_are_carried_with_a_warning(name: str) -> None:
    tx = MIXING[name]
    params, state = warmed(tx)
    with pytest.warns(UserWarning, match="mixes entries of a leaf"):
        less = carried(tx, state, small(params), SHAPES, KEPT)
    tx.update(small(grads(9)), less, small(params))


def test_groups_of_one_leaf_are_carried_with_a_warning() -> None:
    tx = jaxreg.regularize(optax.sgd(0.1), jaxreg.neurons(jaxreg.L1(1e-3), "a"))
    with pytest.warns(UserWarning, match=r"use jaxreg\.coupled"):
        carried(tx, tx.init(PARAMS), small(PARAMS), SHAPES, KEPT)


@pytest.mark.parametrize("least", [8, 12, 128])
def test_adafactor_raises_with_the_reason(least: int) -> None:
    tx = optax.adafactor(1e-2, min_dim_size_to_factor=least)
    with pytest.raises(ValueError, match=r"averages.*Start anew with optimizer\.init"):
        carried(tx, tx.init(PARAMS), small(PARAMS), SHAPES, KEPT)


def transformation(init: Any) -> Any:
    return optax.GradientTransformation(init, lambda g, s, p=None: (g, s))


def test_a_state_whose_form_depends_on_sizes_raises() -> None:
    def init(params: Any) -> Any:
        kernel = params["a"]["kernel"]
        is_large = kernel.shape[0] > 100
        return {"sums": kernel[0] if is_large else kernel}

    tx = transformation(init)
    with pytest.raises(ValueError, match=r"'sums' has shape .*its form depends"):
        carried(tx, tx.init(PARAMS), small(PARAMS), SHAPES, KEPT)


def test_a_state_of_computed_lengths_raises_with_its_leaf() -> None:
    tx = transformation(lambda params: {"flat": params["b"]["kernel"].ravel()})
    with pytest.raises(
        ValueError, match="'flat' has an axis whose length init computes"
    ):
        carried(tx, tx.init(PARAMS), small(PARAMS), SHAPES, KEPT)


def test_axes_of_square_kernels_are_not_mixed_up() -> None:
    tx = transformation(lambda params: jnp.zeros_like(params["a"]["kernel"].T))
    state = jnp.arange(144.0).reshape(12, 12)
    less = carried(tx, state, small(PARAMS), SHAPES, KEPT)
    np.testing.assert_array_equal(less, state[jnp.array(STAYS)])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (optax.sgd(1e-2, 0.9).init(PARAMS), "has float32.12. at '0/trace/a/bias'"),
        (optax.adam(1e-2).init(small(PARAMS)), r"has float32\[6\] at '0/mu/a/bias'"),
    ],
    ids=["of another optimizer", "of other parameters"],
)
def test_a_state_of_something_else_raises_with_its_leaf(state, message) -> None:
    with pytest.raises(ValueError, match=message):
        carried(optax.adam(1e-2), state, small(PARAMS), SHAPES, KEPT)


def test_another_new_optimizer_raises_unless_its_state_is_alike() -> None:
    tx = optax.adam(1e-2)
    state = tx.init(PARAMS)
    other = optax.adam(RATE)
    with pytest.raises(ValueError, match="new_optimizer= the one that goes on"):
        carried(tx, state, small(PARAMS), SHAPES, KEPT, other)
    carried(tx, state, small(PARAMS), SHAPES, KEPT, optax.adam(1e-3))


def test_what_is_no_optimizer_raises() -> None:
    for content in (None, optax.adam, 0.1):
        with pytest.raises(TypeError, match=r"optimizer is .*allowed: an Optax optim"):
            carried(content, (), small(PARAMS), SHAPES, KEPT)


def test_layers_with_units_of_their_own_are_cut_layer_by_layer() -> None:
    tx = optax.chain(optax.adam(1e-2), optax.lbfgs(1.0, memory_size=2, linesearch=None))
    params = {"kernel": jnp.arange(24.0).reshape(2, 3, 4)}
    kept: Any = {"kernel": [None, None, [[0, 3], [1, 2]]]}
    state = jax.tree.map(
        lambda x: jnp.arange(float(x.size)).reshape(x.shape).astype(x.dtype),
        tx.init(params),
    )
    less = {"kernel": cut_leaf(params["kernel"], kept["kernel"])}
    with pytest.warns(UserWarning, match="mixes entries"):
        found = carried(tx, state, less, {"kernel": (2, 3, 4)}, kept)
    for whole, cut in zip(*map(jax.tree.leaves, (state, found)), strict=True):
        if whole.ndim >= 3:
            np.testing.assert_array_equal(cut[..., 0, :, 1], whole[..., 0, :, 3])
            np.testing.assert_array_equal(cut[..., 1, :, 0], whole[..., 1, :, 1])


def test_no_warning_for_optimizers_of_single_entries() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tx = optax.contrib.prodigy(1e-2)
        carried(tx, tx.init(PARAMS), small(PARAMS), SHAPES, KEPT)
