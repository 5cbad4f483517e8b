"""`target_sparsity`: the wanted fraction of zeros, to the unit, and held."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support.training import history, train

END = 300


def make_params(seed: int = 0) -> Any:
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "a": {"kernel": jax.random.normal(keys[0], (12, 10))},
        "b": {"kernel": jax.random.normal(keys[1], (10, 8)), "bias": jnp.ones(8)},
    }


GOAL = make_params(1)


def grads_of(params: Any) -> Any:
    """The gradients of half the squared distance to `GOAL`."""
    return jax.tree.map(lambda leaf, goal: leaf - goal.astype(leaf.dtype), params, GOAL)


def trained(tx: Any, steps: int, params: Any = None, state: Any = None) -> Any:
    """The last params and state, and the params and states of every step."""
    params = make_params() if params is None else params
    path = history(tx, grads_of, params, steps, state)
    return jax.tree.map(lambda leaf: leaf[-1], path), path


def kernels(params: Any) -> list[np.ndarray]:
    return [np.asarray(params[layer]["kernel"]) for layer in "ab"]


def zeros(params: Any) -> int:
    return sum(int(np.sum(kernel == 0)) for kernel in kernels(params))


L1 = jaxreg.on_kernels(jaxreg.L1(0.01))
# 8 + 10 groups.
COLUMNS = jaxreg.on_kernels(jaxreg.GroupLasso(0.01, group_axis=1))
ADAM = optax.adam(optax.cosine_decay_schedule(3e-2, 500))


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "target", [0.5, *(pytest.param(share, marks=SLOW) for share in (0.1, 0.77, 0.95))]
)
def test_the_wanted_number_of_zeros_is_reached_and_held(target) -> None:
    tx = jaxreg.target_sparsity(ADAM, L1, target, END)
    (params, state), (history, _) = trained(tx, 500)
    assert zeros(params) == round(target * 200)
    assert round(float(state.reached) * 200) == round(target * 200)
    for kernel in kernels(history):
        held = kernel[END - 1] == 0
        np.testing.assert_array_equal(kernel[END:] == 0, held[None].repeat(200, 0))


@pytest.mark.parametrize("target", [0.5, pytest.param(0.8, marks=SLOW)])
def test_groups_are_counted_where_a_rule_has_groups(target: float) -> None:
    rules = [
        (r"^b/kernel$", jaxreg.L1(0.01)),
        (r"kernel$", jaxreg.GroupLasso(0.01, group_axis=1)),
    ]
    tx = jaxreg.target_sparsity(ADAM, jaxreg.by_path(rules), target, END)
    (params, state), _ = trained(tx, 500)
    dead = np.all(kernels(params)[0] == 0, axis=0)
    assert dead.sum() == round(10 * target)
    assert float(state.reached) == np.float32(round(10 * target) / 10)


def test_groups_of_one_entry_are_counted_as_groups() -> None:
    # The rows of a kernel with one column.
    params = {
        "body": jax.random.normal(jax.random.key(0), (8, 10)),
        "head": jax.random.normal(jax.random.key(1), (10, 1)),
    }
    rules = jaxreg.by_path(
        [
            ("body", jaxreg.GroupLasso(0.01, group_axis=1)),
            ("head", jaxreg.GroupLasso(0.01, group_axis=0)),
        ]
    )
    tx = jaxreg.target_sparsity(optax.sgd(0.0), rules, 0.5, end_step=1)
    nothing = jax.tree.map(jnp.zeros_like, params)
    updates, state = tx.update(nothing, tx.init(params), params)
    sparse = optax.apply_updates(params, updates)
    dead = [np.all(sparse["body"] == 0, axis=0).sum(), np.sum(sparse["head"] == 0)]
    assert sum(dead) == 10 and max(dead) < 10
    assert state.reached == 0.5


@pytest.mark.slow
def test_blocks_are_counted_as_groups() -> None:
    blocks = jaxreg.GroupLasso(0.01, group_axis=jaxreg.Blocks((2, 2)))
    tx = jaxreg.target_sparsity(ADAM, jaxreg.on_kernels(blocks), 0.5, END)
    (params, _), _ = trained(tx, 500)
    cut = [k.reshape(k.shape[0] // 2, 2, -1, 2) for k in kernels(params)]
    dead = sum(int(np.all(k == 0, axis=(1, 3)).sum()) for k in cut)
    assert dead == 25


def test_the_survivors_end_without_the_bias_of_the_penalty() -> None:
    tx = jaxreg.target_sparsity(optax.sgd(0.1), L1, 0.5, END)
    (params, _), _ = trained(tx, 500)
    for kernel, goal in zip(kernels(params), kernels(GOAL), strict=True):
        # 0.9^200 of the distance at the landing, and rounding.
        np.testing.assert_allclose(kernel[kernel != 0], goal[kernel != 0], atol=1e-6)
        assert np.abs(goal[kernel == 0]).max() < np.abs(goal[kernel != 0]).min()


def test_a_landing_that_cuts_much_empties_no_layer_for_its_scale() -> None:
    params = make_params()
    params["b"]["kernel"] *= 0.01
    tx = jaxreg.target_sparsity(optax.sgd(0.0), L1, 0.5, end_step=1)
    (params, _), _ = trained(tx, 1, params)
    # Normal entries, halved at their median.
    for kernel in kernels(params):
        assert 0.4 < np.mean(kernel == 0) < 0.6


def test_units_that_died_beyond_the_target_are_revived() -> None:
    # So strong that without revival all 200 would be zero from step 80 on.
    strong = jaxreg.on_kernels(jaxreg.L1(9.0))
    tx = jaxreg.target_sparsity(ADAM, strong, 0.1, END, factor_range=(1.0, 1.0))
    (params, state), (_, states) = trained(tx, 500)
    assert zeros(params) == 20
    assert round(float(state.reached) * 200) == 20 and state.missed_units == 0
    assert np.max(states.reached) > 0.4


@pytest.mark.parametrize(
    "penalty",
    [
        lambda strength: jaxreg.L1(strength),
        *(
            pytest.param(penalty, marks=SLOW)
            for penalty in (
                lambda strength: jaxreg.GroupLasso(strength, group_axis=1),
                lambda strength: jaxreg.grouped(jaxreg.MCP(strength, 3.0), 1),
            )
        ),
    ],
    ids=["L1", "group lasso", "group MCP"],
)
def test_the_base_strength_does_not_matter(penalty) -> None:
    def run(strength: Any) -> Any:
        rules = jaxreg.on_kernels(penalty(strength))
        tx = jaxreg.target_sparsity(ADAM, rules, 0.5, 50)
        return train(tx, grads_of, make_params(), 80)

    params, state = jax.jit(jax.vmap(run))(jnp.array([1e-5, 1e-3, 1e-1]))
    assert np.all(np.asarray(state.missed_units) == 0)
    for kernel in kernels(params):
        assert 0 < np.sum(kernel[0] == 0) < kernel[0].size
        np.testing.assert_array_equal(kernel == 0, kernel[:1].repeat(3, 0) == 0)
        # The factor times the strength is rounded, and Adam divides by small moments.
        np.testing.assert_allclose(kernel, kernel[:1].repeat(3, 0), atol=1e-3)


def fine_layer() -> Any:
    """The params, one kernel of which is 1000 times finer and has no use."""
    params = make_params()
    params["b"]["kernel"] *= 1e-3
    return params


def without_b(params: Any) -> Any:
    grads = grads_of(params)
    grads["b"]["kernel"] *= 1e-9
    return grads


@pytest.mark.parametrize(("least", "alive"), [(1, 1), (0, 0), (3, 3)])
def test_every_leaf_keeps_as_many_units_as_asked(least, alive) -> None:
    tx = jaxreg.target_sparsity(ADAM, L1, 0.5, 100, keep_at_least=least)
    params, state = train(tx, without_b, fine_layer(), 120)
    assert zeros(params) == 100 and state.missed_units == 0
    assert np.sum(kernels(params)[1] != 0) == alive


def test_a_leaf_is_not_empty_on_the_way_either() -> None:
    tx = jaxreg.target_sparsity(ADAM, L1, 0.5, END)
    path = history(tx, without_b, fine_layer(), END)[0]
    dead = np.all(kernels(path)[1] == 0, axis=(1, 2))
    # Dead from one check to the next at most: END / 100 steps.
    assert np.max(np.convolve(dead, np.ones(4), "valid")) < 4


def test_a_missed_target_warns_outside_jit() -> None:
    params = {"a": jnp.ones(4), "b": jnp.ones(4)}
    tx = jaxreg.target_sparsity(
        optax.sgd(0.0), jaxreg.L1(1.0), 0.9, end_step=1, keep_at_least=2
    )
    # 1 of 8 may stay, but 2 and 2 have to.
    with pytest.warns(UserWarning, match="missed its target: 3 units more"):
        _, state = tx.update(params, tx.init(params), params)
    _, state = jax.jit(tx.update)(params, tx.init(params), params)
    assert state.missed_units == 3
    with pytest.warns(UserWarning, match="3 units more than wanted.*keep_at_least"):
        found = jaxreg.measure(jaxreg.L1(1.0), params, opt_state=state)
    assert found["missed_units"] == 3
    jax.jit(lambda s: jaxreg.measure(jaxreg.L1(1.0), params, opt_state=s))(state)


def test_units_without_weights_and_gradients_cannot_be_revived() -> None:
    params = {"a": jnp.array([1.0, 0.0, 0.0, 0.0])}
    tx = jaxreg.target_sparsity(optax.sgd(0.1), jaxreg.L1(1.0), 0.5, end_step=1)
    with pytest.warns(UserWarning, match="missed its target: -1 units"):
        tx.update({"a": jnp.zeros(4)}, tx.init(params), params)


# A run to step 50 counts its zeros at every step, from the first one on.
@pytest.mark.parametrize("end_step", [50, 1000])
def test_without_gradients_the_factor_waits(end_step: int) -> None:
    params = {"a": jnp.ones(4)}
    tx = jaxreg.target_sparsity(optax.sgd(0.1), jaxreg.L1(2.0), 0.5, end_step)
    nothing, grads = {"a": jnp.zeros(4)}, {"a": jnp.full(4, 3.0)}
    _, state = tx.update(nothing, tx.init(params), params)
    assert state.next_factor == 0
    _, state = tx.update({"a": jnp.full(4, jnp.inf)}, tx.init(params), params)
    assert state.next_factor == 0
    _, state = tx.update(grads, tx.init(params), params)
    # A tenth of the gradient over the strength.
    np.testing.assert_allclose(state.next_factor, 0.15, rtol=1e-6)


def test_of_equal_units_the_later_become_zero() -> None:
    params = {"kernel": jnp.ones(8)}
    tx = jaxreg.target_sparsity(
        optax.sgd(0.0), jaxreg.on_kernels(jaxreg.L1(1e-3)), 0.5, end_step=1
    )
    updates, _ = tx.update(params, tx.init(params), params)
    found = optax.apply_updates(params, updates)["kernel"]
    np.testing.assert_array_equal(found == 0, [False] * 4 + [True] * 4)


@pytest.mark.slow
def test_the_factor_stays_in_its_range() -> None:
    # A target that the loss cannot give in this range: the factor would run away.
    tx = jaxreg.target_sparsity(ADAM, L1, 0.99, END, factor_range=(0.5, 1.5))
    (_, state), (_, states) = trained(tx, 400)
    assert float(np.max(states.next_factor)) == 1.5
    assert float(np.min(states.next_factor)) >= 0.5
    during = np.asarray(states.regularize.strength_factor)
    assert np.all((during[1:END] >= 0.5) & (during[1:END] <= 1.5))
    # Held, the penalty acts no more.
    assert jaxreg.measure(L1, make_params(), opt_state=state)["strength_factor"] == 0


@pytest.mark.slow
def test_before_the_first_look_it_is_regularize() -> None:
    tx = jaxreg.target_sparsity(ADAM, L1, 0.5, end_step=10_000)
    (ours, state), (_, states) = trained(tx, 99)
    factor = state.next_factor
    assert np.all(np.asarray(states.next_factor) == factor)

    def schedule(count: Any) -> Any:
        return jnp.where(count == 0, 0.0, factor)

    (theirs, _), _ = trained(jaxreg.regularize(ADAM, L1, schedule=schedule), 99)
    for one, other in zip(kernels(ours), kernels(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_it_waits_for_begin_step() -> None:
    tx = jaxreg.target_sparsity(ADAM, L1, 0.9, END, begin_step=200)
    _, (_, states) = trained(tx, END)
    factors = np.asarray(states.next_factor)
    assert np.all(factors[:199] == factors[0])
    assert np.any(factors[200:] > 1.1 * factors[0])


@pytest.mark.slow
def test_zeros_of_weights_loaded_after_the_landing_stay() -> None:
    tx = jaxreg.target_sparsity(optax.sgd(0.1), L1, 0.5, end_step=20)
    (params, state), _ = trained(tx, 40)
    loaded = jax.tree.map(lambda x: jnp.where(x == 0, 0.0, 5.0), params)
    loaded["a"]["kernel"] = loaded["a"]["kernel"].at[0, 0].set(5.0)
    (moved, _), _ = trained(tx, 1, loaded, state)
    for before, after, goal in zip(*map(kernels, (loaded, moved, GOAL)), strict=True):
        expected = np.where(before == 0, 0, before - 0.1 * (before - goal))
        np.testing.assert_allclose(after, expected, atol=1e-6)


@pytest.mark.slow
def test_target_and_strength_can_be_traced_and_vmapped() -> None:
    @jax.jit
    @jax.vmap
    def run(target: Any, strength: Any) -> Any:
        penalty = jaxreg.on_kernels(jaxreg.L1(strength))
        tx = jaxreg.target_sparsity(ADAM, penalty, target, 50)
        return train(tx, grads_of, make_params(), 60)[0]

    found = run(jnp.array([0.25, 0.5]), jnp.array([0.01, 0.02]))
    for place, wanted in enumerate((50, 100)):
        assert zeros(jax.tree.map(lambda x, place=place: x[place], found)) == wanted


@pytest.mark.slow
def test_other_rules_act_as_under_regularize_all_the_time() -> None:
    rules = [
        ("bias$", jaxreg.Box(-0.5, 0.5)),
        ("^b/kernel$", jaxreg.L2(0.5)),
        ("kernel$", jaxreg.L1(0.01)),
    ]
    tx = jaxreg.target_sparsity(optax.sgd(0.02), jaxreg.by_path(rules), 0.5, END)
    (params, _), (_, states) = trained(tx, 800)
    assert np.sum(kernels(params)[0] == 0) == 60
    assert float(np.max(states.next_factor)) > 3
    # Half the goal is the answer of ridge at strength 1/2; the bias goes to its bound.
    np.testing.assert_allclose(kernels(params)[1], kernels(GOAL)[1] / 2, atol=1e-4)
    np.testing.assert_allclose(params["b"]["bias"], 0.5, atol=1e-6)


@pytest.mark.slow
def test_a_clip_inside_does_not_see_gradients_of_held_zeros() -> None:
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    tx = jaxreg.target_sparsity(clipped, L1, 0.9, END)
    (params, state), _ = trained(tx, END)
    dead = jax.tree.map(lambda x: x == 0, params)
    (params, _), _ = trained(tx, 400, params, state)
    for kernel, goal, mask in zip(*map(kernels, (params, GOAL, dead)), strict=True):
        np.testing.assert_allclose(kernel[~mask], goal[~mask], atol=1e-5)
        assert np.all(kernel[mask] == 0)


def test_the_state_says_what_the_landing_cut() -> None:
    # A range in which the strength stays too weak.
    tx = jaxreg.target_sparsity(ADAM, L1, 0.5, END, factor_range=(1e-3, 1.0))
    (_, state), _ = trained(tx, END)
    assert float(state.cut) > 0.4
    strong = jaxreg.on_kernels(jaxreg.L1(0.3))
    (_, state), _ = trained(jaxreg.target_sparsity(ADAM, strong, 0.5, END), END)
    assert 0 <= float(state.cut) < 0.2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.slow
def test_after_the_landing_small_steps_add_up(dtype: str) -> None:
    params = {"w": jnp.linspace(-1.0, 1.0, 400).astype(dtype)}
    tx = jaxreg.target_sparsity(optax.sgd(1e-4), jaxreg.L1(1e-6), 0.1, end_step=1)
    noise = jax.random.normal(jax.random.key(0), (1000, 400))

    def grads_of(params: Any, jitter: Any) -> Any:
        # Half of the entries drift; the others jitter where they are.
        return {"w": jnp.where(jnp.arange(400) < 200, -1.0, jitter).astype(dtype)}

    _, state = train(tx, grads_of, params, noise)
    latent = jaxreg.latent(state)[0]["w"]
    assert np.sum(latent == 0) == 40
    moved = (latent - params["w"].astype("float32"))[:150]
    # 1,000 steps of 1e-4, where a step is below half a unit of bfloat16.
    np.testing.assert_allclose(moved, 0.1, atol=1e-3)


def test_leaves_without_entries_and_empty_trees_are_no_matter() -> None:
    groups = jaxreg.GroupLasso(1.0, group_axis=1)
    params = {"a": jnp.zeros((0, 3)), "b": jnp.ones((2, 3))}
    for tx in (
        jaxreg.target_sparsity(optax.sgd(0.1), groups, 0.5, 1),
        jaxreg.hold_support(groups),
        jaxreg.reweight(lambda p: jaxreg.prox_sgd(0.1, p), groups, 0.1, 1),
    ):
        updates, _ = tx.update(params, tx.init(params), params)
        assert updates["a"].shape == (0, 3)
    tx = jaxreg.target_sparsity(optax.sgd(0.1), jaxreg.L1(1.0), 0.5, 1)
    assert tx.update({}, tx.init({}), {})[0] == {}


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=SLOW)])
@pytest.mark.slow
def test_half_precision_reaches_the_target_too(dtype: str) -> None:
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), make_params())
    tx = jaxreg.target_sparsity(ADAM, L1, 0.75, END)
    (params, _), _ = trained(tx, 400, params)
    assert zeros(params) == 150
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": 1.0}, ValueError, "target is 1.0; allowed: a finite number from"),
        ({"target": -0.1}, ValueError, "target is -0.1; allowed"),
        ({"target": float("nan")}, ValueError, "target is nan; allowed"),
        ({"end_step": 0}, ValueError, "end_step is 0; allowed: an int >= 1"),
        ({"end_step": 2.5}, TypeError, "end_step is 2.5; allowed"),
        ({"end_step": True}, TypeError, "end_step is True; allowed"),
        ({"begin_step": False}, TypeError, "begin_step is False; allowed"),
        ({"begin_step": 10}, ValueError, "allowed: a begin before the end"),
        ({"factor_range": (0.0, 2.0)}, ValueError, "an end of factor_range is 0"),
        ({"factor_range": (2.0, 3.0)}, ValueError, "two numbers around 1"),
        (
            {"keep_at_least": -1},
            ValueError,
            "keep_at_least is -1; allowed: an int >= 0",
        ),
        ({"keep_at_least": 0.5}, TypeError, "keep_at_least is 0.5; allowed: an int"),
        ({"factor_range": 10.0}, ValueError, "two numbers around 1"),
        ({"target": "90%"}, TypeError, "target is '90%'"),
        ({"target": jnp.ones(2)}, ValueError, "target has shape"),
        ({"width": 0.0}, ValueError, "width is 0.0"),
        ({"penalty": jaxreg.L2(1.0)}, TypeError, "Allowed are penalties with a kink"),
        ({"penalty": jaxreg.L1(0.0)}, TypeError, "Allowed are penalties with a kink"),
        ({"penalty": jaxreg.TopK(3)}, TypeError, "Allowed are penalties with a kink"),
        ({"penalty": jaxreg.anchored(jaxreg.L1(1.0), 1.0)}, TypeError, "Allowed are"),
        ({"penalty": jaxreg.envelope(jaxreg.L1(1.0), 0.1)}, TypeError, "Allowed are"),
        ({"penalty": jaxreg.NuclearNorm(1.0)}, TypeError, "zeroes no entries or gro"),
        ({"optimizer": 0.1}, TypeError, "optimizer is 0.1"),
    ],
)
def test_bad_arguments_raise_with_the_fix(change, error, message) -> None:
    arguments = {"optimizer": ADAM, "penalty": L1, "target": 0.5, "end_step": 10}
    with pytest.raises(error, match=message):
        jaxreg.target_sparsity(**(arguments | change))


@pytest.mark.parametrize("wrap", [jax.jit, lambda step: step], ids=["jit", "eager"])
def test_leaves_without_entries_land_with_nothing_to_cut(wrap) -> None:
    params = {"kernel": jnp.ones((0, 3))}
    tx = jaxreg.target_sparsity(
        optax.sgd(0.1), jaxreg.GroupLasso(0.1, group_axis=0), 0.5, end_step=1
    )
    updates, state = wrap(tx.update)(params, tx.init(params), params)
    assert updates["kernel"].shape == (0, 3)
    assert state.cut == 0 and state.cut.dtype == jnp.float32


def test_leaves_of_one_kind_are_checked_by_one_program() -> None:
    def loops(count: int) -> int:
        tx = jaxreg.target_sparsity(optax.sgd(0.1), jaxreg.L1(0.1), 0.5, end_step=10)
        params = {f"{i}": jnp.ones((2, 3)) for i in range(count)}
        program = jax.jit(tx.update).lower(params, tx.init(params), params)
        return program.as_text().count("stablehlo.while")

    assert 0 < loops(12) == loops(2)
