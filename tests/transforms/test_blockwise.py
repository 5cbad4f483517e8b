"""The group prox in an optimizer's metric: exact, block by block, in little memory."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from jaxreg.transforms import _blockwise as blocks
from jaxreg.transforms._blockwise import _evaluate, _expressions, _keep_if_needed
from tests.support.training import train

WHOLE, SMALL = 2**60, 200
ADAM = optax.scale_by_adam()
MOMENTUM = optax.chain(optax.scale_by_rms(), optax.trace(0.5, nesterov=True))
PLAIN = optax.trace(0.5)
LAMB = optax.chain(optax.scale_by_adam(eps=1e-6), optax.scale_by_trust_ratio())
DIRECTIONS: dict[str, tuple[Any, Any]] = {
    "adam": (ADAM, jaxreg.preconditioners.adam()),
    "rms, momentum": (
        MOMENTUM,
        jaxreg.preconditioners.momentum(0.5, jaxreg.preconditioners.rmsprop()),
    ),
    "clip, adam, decay": (
        optax.chain(
            optax.clip_by_global_norm(0.1), ADAM, optax.add_decayed_weights(0.1)
        ),
        jaxreg.preconditioners.adam(),
    ),
    "lamb": (LAMB, jaxreg.preconditioners.lamb()),
    "uniform steps": (PLAIN, jaxreg.preconditioners.momentum(0.5)),
}
SLOW = pytest.mark.slow
SHAPES = {(50, 37): 1, (3, 3, 10, 13): 3, (13, 5, 11): (0, 2), (1, 600): 0}


@pytest.fixture(autouse=True)
def as_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves are cut on CPUs alone, but that is right on any device."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")


def problem(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Leaves of very different rows, so that some groups die, and their gradients."""
    keys = jax.random.split(jax.random.key(len(shape)), 2)
    leaf = jax.random.normal(keys[0], shape)
    params = {"large": leaf, "half": leaf.astype(jnp.bfloat16), "free": jnp.ones(3)}
    rows = 10.0 ** jnp.linspace(-3, 0, leaf.size).reshape(shape)
    grad = rows * jax.random.normal(keys[1], shape)
    return params, {"large": grad, "half": grad.astype(jnp.bfloat16), "free": -1.0}


def run(tx: Any, params: Any, grads: Any) -> Any:
    grads = jax.tree.map(lambda x, g: jnp.broadcast_to(g, x.shape), params, grads)
    return train(tx, lambda _: grads, params, 3)[0]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("adam", (37, 50)),
        *(pytest.param(n, (37, 50), marks=SLOW) for n in DIRECTIONS if n != "adam"),
        *(pytest.param("adam", shape, marks=SLOW) for shape in SHAPES),
    ],
)
@pytest.mark.slow
def test_blocks_are_the_whole(name, shape, monkeypatch) -> None:
    direction, metric = DIRECTIONS[name]
    lasso = jaxreg.GroupLasso(0.3, group_axis=SHAPES.get(shape, 0))
    penalty = jaxreg.by_path([("large|half", lasso)])
    tx = jaxreg.proximal(direction, 0.1, penalty, preconditioner=metric)
    found = []
    for size in (WHOLE, SMALL):
        monkeypatch.setattr(blocks, "BLOCK", size)
        found.append(run(tx, *problem(shape)))
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        # The order of sums differs, and in bfloat16 a last digit with it.
        slack = 1e-6 if one.dtype == jnp.float32 else 1e-2
        pair = (np.asarray(x, np.float64) for x in (one, other))
        np.testing.assert_allclose(*pair, rtol=slack, atol=slack)
    large, small = (tree["large"] for tree in found)
    np.testing.assert_array_equal(large == 0, small == 0)


def step_text(params: Any, penalty: Any = None) -> str:
    penalty = jaxreg.GroupLasso(0.3, group_axis=0) if penalty is None else penalty
    tx = jaxreg.prox_adam(0.1, penalty)
    return jax.jit(tx.update).lower(params, tx.init(params), params).as_text()


def test_only_large_leaves_of_groups_on_one_cpu_are_cut(monkeypatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", SMALL)
    assert "dynamic_slice" in step_text(jnp.ones((37, 50)))
    assert "dynamic_slice" not in step_text(jnp.ones((7, 50)))
    assert "dynamic_slice" not in step_text(jnp.ones((37, 50)), jaxreg.L1(0.3))
    heads = jaxreg.GroupLasso(0.3, group_axis=jaxreg.Blocks((None, 10)))
    assert "dynamic_slice" not in step_text(jnp.ones((37, 50)), heads)
    with monkeypatch.context() as two_devices:
        two_devices.setattr(jax, "device_count", lambda: 2)
        assert "dynamic_slice" not in step_text(jnp.ones((37, 50)))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "dynamic_slice" not in step_text(jnp.ones((37, 50)))


def test_a_step_that_a_large_leaf_cannot_take_raises(monkeypatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", SMALL)
    jumpy = jaxreg.grouped(jaxreg.MCP(0.3, knot=1.0), group_axis=0)
    with pytest.raises(ValueError, match="varies among entries"):
        step_text(jnp.ones((37, 50)), jumpy)


@SLOW
def test_a_cut_update_maps_and_differentiates(monkeypatch) -> None:
    penalty = jaxreg.GroupLasso(0.3, group_axis=0)
    tx = jaxreg.prox_adam(0.1, penalty)
    (leaf, grad) = (tree["large"] for tree in problem((37, 50)))

    def energy(scale: Any, x: Any) -> Any:
        updates, _ = tx.update(scale * grad, tx.init(x), x)
        return jnp.sum((x + updates) ** 3)

    def both(scale: Any) -> Any:
        stack = jnp.stack([leaf, 2 * leaf])
        slopes = jax.vmap(jax.grad(energy, argnums=1), (None, 0))(scale, stack)
        return slopes, jax.jacfwd(energy)(scale, leaf)

    found = []
    for size in (WHOLE, SMALL):
        monkeypatch.setattr(blocks, "BLOCK", size)
        found.append(jax.jit(lambda scale: both(scale))(1.0))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_many_small_leaves_share_one_loop() -> None:
    few, many = ([jnp.ones((4, 5))] * count for count in (9, 40))
    loops = [step_text(leaves).count("stablehlo.while") for leaves in (few, many)]
    assert loops[0] == loops[1]


def exact(v: np.ndarray, s: np.ndarray) -> np.ndarray:
    """The prox of sum_g sqrt(n) ||x_g|| over rows, by Newton from below in float64."""
    alone = np.max(abs(v) / np.sqrt(v.shape[1]) - s, axis=1, keepdims=True)
    size = np.maximum(alone, 1e-300)
    for _ in range(100):
        share = (v / (size + s)) ** 2
        total = share.mean(1, keepdims=True)
        turn = (share / (size + s)).mean(1, keepdims=True)
        size = np.maximum(size + total * (np.sqrt(total) - 1) / turn, 1e-300)
    is_active = np.mean((v / s) ** 2, axis=1, keepdims=True) > 1
    return np.where(is_active, v * size / (size + s), 0.0)


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("length", [5, 1000])
def test_a_varying_prox_is_exact_to_rounding(spread, length) -> None:
    rng = np.random.default_rng(0)
    v = rng.normal(size=(300, length))
    s = np.exp(spread * rng.normal(size=v.shape))
    # By this factor the pull on a group is above what zeroes it, or below.
    factor = np.concatenate(
        [rng.uniform(0.2, 0.9, 100), 10 ** rng.uniform(0.1, 3, 200)]
    )
    pull = np.sqrt(np.mean((v / s) ** 2, axis=1, keepdims=True))
    v, s = (np.float32(x) for x in (v, s * pull / factor[:, None]))
    found = np.asarray(jaxreg.GroupLasso(1.0, group_axis=0).prox(v, s))
    wanted = exact(np.float64(v), np.float64(s))
    lengths = np.linalg.norm(wanted, axis=1)
    error = np.linalg.norm(found - wanted, axis=1)
    np.testing.assert_array_less(error, 1e-5 * lengths + 1e-30)
    np.testing.assert_array_equal(np.all(found == 0, axis=1), factor < 1)


def test_an_expression_cuts_memory_and_computes_the_rest() -> None:
    def function(x: Any, y: Any) -> Any:
        scale = 1 / jnp.linalg.norm(x)
        kept = 0.5 * x + y
        return kept, jnp.where(kept > 0, jnp.sqrt(jnp.abs(kept)), 0.0) * scale + 1.0

    x, y = jnp.arange(-6.0, 6.0).reshape(4, 3), jnp.ones((4, 3))

    @jax.jit
    def middle(x: Any, y: Any) -> Any:
        values, traced = function(x, y), _expressions(function, x, y)
        memory = {traced[0]: values[0]}
        _keep_if_needed(traced[1], memory, values[1])
        cut_alone = _evaluate(traced[1:], memory, lambda whole: whole[1:3])
        return cut_alone[0], values[1][1:3], len(memory)

    found, wanted, kept = middle(x, y)
    np.testing.assert_array_equal(found, wanted)
    # The norm is no elementwise operation, so what it scales is in memory too.
    assert kept == 2
