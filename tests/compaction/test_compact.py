"""Compaction: what goes, what stays and why, and that a wrong model raises."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxreg
from jaxreg.compaction import _verify
from jaxreg.states import Compaction
from tests.compaction.zoo import ZOO, Draw, attention, conv, killed, redraw

DRAW = Draw(5)
X = DRAW.x(4, 5)


def two_layers(params: Any, x: Any) -> Any:
    return jax.nn.relu(x @ params["a"] + params["b"]) @ params["c"] + params["d"]


def two_layer_params() -> dict[str, jax.Array]:
    return {"a": DRAW(5, 8), "b": DRAW(8), "c": DRAW(8, 3), "d": DRAW(3)}


def compacted(apply: Any, params: Any, *inputs: Any, **options: Any) -> Compaction:
    units = jaxreg.couplings(apply, params, *inputs)
    return jaxreg.compact(units, params, *inputs, **options)


def after(small: Compaction) -> list[int]:
    return [row["after"] for row in small.rows]


def test_a_constant_goes_into_the_bias_once() -> None:
    params = two_layer_params()
    params["a"] = params["a"].at[:, :3].set(0.0)
    params["b"] = params["b"].at[:3].set(jnp.array([0.5, 1.0, -1.0]))
    small = compacted(two_layers, params, X)
    added = jnp.array([0.5, 1.0]) @ params["c"][:2]
    assert after(small) == [5]
    np.testing.assert_allclose(small.params["d"], params["d"] + added, atol=1e-6)


def test_constants_of_summed_contractions_go_into_one_bias() -> None:
    def apply(params: Any, x: Any) -> Any:
        h = jax.nn.relu(x @ params["a"] + params["b"])
        g = jax.nn.relu(x @ params["e"] + params["f"])
        return h @ params["c"] + (g @ params["c2"] + h @ params["c3"]) + params["d"]

    params = {**two_layer_params(), "e": DRAW(5, 4), "f": DRAW(4)}
    readers = DRAW(4, params["c"].shape[1]), DRAW(*params["c"].shape)
    params |= dict(zip(("c2", "c3"), readers, strict=True))
    params["a"] = params["a"].at[:, :3].set(0.0)
    params["b"] = params["b"].at[:3].set(jnp.array([0.5, 1.0, -1.0]))
    params["e"] = params["e"].at[:, 1].set(0.0)
    params["f"] = params["f"].at[1].set(2.0)
    small = compacted(apply, params, X)
    added = jnp.array([0.5, 1.0]) @ (params["c"] + params["c3"])[:2]
    added += 2.0 * params["c2"][1]
    assert sorted(after(small)) == [3, 5]
    np.testing.assert_allclose(small.params["d"], params["d"] + added, atol=1e-6)


def test_without_fold_constants_stay_and_the_row_says_so() -> None:
    params = two_layer_params()
    params["a"] = params["a"].at[:, :3].set(0.0)
    params["b"] = params["b"].at[:3].set(jnp.array([0.5, 1.0, -1.0]))
    small = compacted(two_layers, params, X, fold=False)
    assert after(small) == [7]
    assert "2 constant, dot_general at test_compact.py" in small.rows[0]["stayed"]
    assert small.params["d"] is params["d"]


def test_a_constant_counts_once_where_its_unit_is_brought_back() -> None:
    """All units are constant: one is brought back, and stays out of the bias."""
    params = two_layer_params()
    params["a"] = jnp.zeros_like(params["a"])
    params["b"] = jnp.abs(params["b"]) + 0.5
    small = compacted(two_layers, params, X)
    assert after(small) == [1]
    assert small.gap < 1e-6
    assert small.rows[0]["stayed"] == "all 8 dead: remove this block by hand"


def test_a_unit_brought_back_brings_back_what_makes_it() -> None:
    """One constant unit stays in the second layer, and no bias takes its terms."""

    def apply(params: Any, x: Any) -> Any:
        h = jax.nn.relu(x @ params["a"] + params["b"])
        return jax.nn.relu(h @ params["c"]) @ params["d"] + params["e"]

    params = {
        "a": jnp.zeros((5, 8)),
        "b": jnp.ones(8).at[2].set(-1.0),
        "c": jnp.abs(DRAW(8, 6)) + 0.1,
        "d": DRAW(6, 3),
        "e": DRAW(3),
    }
    small = compacted(apply, params, X)
    assert dict(zip("ac", after(small), strict=True)) == {"a": 7, "c": 1}
    assert small.gap < 1e-6


@pytest.mark.slow
def test_zero_padding_keeps_constant_channels() -> None:
    def apply(params: Any, x: Any) -> Any:
        h = jax.nn.relu(conv(x, params["a"], "SAME") + params["b"])
        return conv(h, params["c"], params["padding"]) + params["d"]

    params = {
        "a": DRAW(3, 3, 2, 6).at[..., :2].set(0.0),
        "b": jnp.ones(6),
        "c": DRAW(3, 3, 6, 3),
        "d": DRAW(3),
    }
    x = DRAW.x(2, 5, 5, 2)
    for padding, count in (("SAME", 6), ("VALID", 4)):

        def padded(params: Any, x: Any, padding: str = padding) -> Any:
            return apply(params | {"padding": padding}, x)

        small = compacted(padded, params, x)
        assert after(small) == [count]
        assert small.gap < 1e-6
        is_kept = padding == "SAME"
        assert ("2 constant" in (small.rows[0]["stayed"] or "")) == is_kept


@pytest.mark.slow
def test_a_mean_takes_the_constant_of_a_convolution() -> None:
    """Batch normalization subtracts its mean: the sign of the fold is minus."""

    def apply(params: Any, x: Any) -> Any:
        h = jax.nn.relu(conv(x, params["a"], "VALID") + params["b"])
        h = conv(h, params["c"], "VALID") - params["mean"]
        return (h * params["scale"]).mean((1, 2))

    params = {
        "a": DRAW(3, 3, 2, 6).at[..., :2].set(0.0),
        "b": jnp.ones(6),
        "c": DRAW(1, 1, 6, 3),
        "mean": DRAW(3),
        "scale": DRAW(3),
    }
    small = compacted(apply, params, DRAW.x(2, 4, 4, 2))
    assert after(small) == [4]
    assert float(jnp.max(jnp.abs(small.params["mean"] - params["mean"]))) > 1e-3
    assert small.gap < 1e-6


def test_a_head_goes_when_the_output_does_not_read_it() -> None:
    """Only contracted axes decide: queries and keys of the head are not zero."""

    def apply(params: Any, x: Any) -> Any:
        q, k, v = (jnp.einsum("btd,dhk->bthk", x, params[n]) for n in "qkv")
        return jnp.einsum("bthk,hkd->btd", attention(q, k, v), params["o"])

    params = {name: DRAW(8, 4, 3) for name in "qkv"}
    params["o"] = DRAW(4, 3, 8).at[jnp.array([0, 2])].set(0.0)
    small = compacted(apply, params, DRAW.x(2, 5, 8))
    assert small.kept["q"] == [None, [1, 3], None]
    assert small.kept["o"] == [[1, 3], None, None]


@pytest.mark.slow
def test_pixels_of_a_channel_go_together() -> None:
    model = ZOO["resnet"]()
    rows = [pixel * 7 + 3 for pixel in range(4)]
    out = model.params["out"].at[jnp.array(rows)].set(0.0)
    small = compacted(model.apply, model.params | {"out": out}, *model.inputs)
    assert small.kept["point"][3] == [0, 1, 2, 4, 5, 6]
    assert small.kept["out"][0] == [i for i in range(28) if i not in rows]


@pytest.mark.slow
def test_units_that_only_feed_dead_units_go() -> None:
    model = ZOO["mlp_relu"]()
    params = dict(model.params)
    params["w3"] = params["w3"].at[:2].set(0.0)
    params["w2"] = params["w2"].at[:3, 2:].set(0.0)
    small = compacted(model.apply, params, *model.inputs)
    assert after(small) == [5, 4]


@pytest.mark.slow
def test_a_cell_that_only_reads_itself_goes() -> None:
    model = ZOO["lstm"]()
    params = dict(model.params)
    params["o"] = params["o"].at[0].set(0.0)
    others = [gate * 6 + unit for gate in range(4) for unit in range(1, 6)]
    params["wh"] = params["wh"].at[0, jnp.array(others)].set(0.0)
    small = compacted(model.apply, params, *model.inputs)
    assert small.kept["o"][0] == [1, 2, 3, 4, 5]


def test_layers_keep_different_units_of_one_number() -> None:
    model = ZOO["scan_stack"]()
    params, dead = dict(model.params), [(0, 1, 2, 3), (5, 6, 7, 8), (2, 4, 6)]
    for layer, units in enumerate(dead):
        params["d"] = params["d"].at[layer, jnp.array(units)].set(0.0)
    small = compacted(model.apply, params, *model.inputs)
    kept = small.kept["u"][2]
    assert kept == [[0, 4, 5, 6, 7, 8], [0, 1, 2, 3, 4, 5], [0, 1, 3, 5, 7, 8]]
    assert small.params["d"].shape == (3, 6, 6)
    assert small.gap < 1e-6


def test_multiple_of_brings_back_the_first_dead_units() -> None:
    params = two_layer_params()
    params["c"] = params["c"].at[jnp.array([0, 3, 6])].set(0.0)
    assert compacted(two_layers, params, X).kept["b"] == [[1, 2, 4, 5, 7]]
    small = compacted(two_layers, params, X, multiple_of=3)
    assert small.kept["b"] == [[0, 1, 2, 4, 5, 7]]
    assert compacted(two_layers, params, X, multiple_of=16).kept["b"] == [None]


def test_only_leaves_other_dimensions_whole() -> None:
    model = ZOO["mlp_relu"]()
    params, _ = killed(model.couplings, model.params, "readers")
    small = compacted(model.apply, params, *model.inputs, only="w3")
    assert small.kept["w1"] == [None, None]
    assert small.kept["w3"][0] is not None
    assert len(small.rows) == 1


@pytest.mark.slow
def test_kept_indices_survive_json_and_cut_the_dense_model() -> None:
    model = ZOO["scan_stack"]()
    params, _ = killed(model.couplings, model.params, "readers")
    small = compacted(model.apply, params, *model.inputs)
    kept = json.loads(json.dumps(small.kept))
    assert kept == small.kept
    for path, leaf in params.items():
        array = np.asarray(leaf)
        for axis, indices in enumerate(kept[path]):
            if indices is not None and isinstance(indices[0], int):
                array = array.take(indices, axis)
            elif indices is not None:
                layers = zip(array, indices, strict=True)
                array = np.stack([x.take(i, axis - 1) for x, i in layers])
        np.testing.assert_array_equal(array, small.params[path])


def test_cut_takes_the_same_entries_of_other_trees() -> None:
    model = ZOO["mlp_relu"]()
    params, _ = killed(model.couplings, model.params, "readers")
    nested = {"params": params}
    small = compacted(lambda p, x: model.apply(p["params"], x), nested, *model.inputs)
    average = jax.tree.map(lambda leaf: 2 * leaf, params)
    halves = jax.tree.map(lambda leaf: leaf / 2, small.cut(average, under="params"))
    for half, leaf in zip(*map(jax.tree.leaves, (halves, small.params)), strict=True):
        np.testing.assert_array_equal(half, leaf)
    with pytest.raises(ValueError, match=r"cut: leaf 'b1' has shape \(8,\); allowed"):
        small.cut(average)


def test_sizes_of_groups_survive_in_the_couplings() -> None:
    model = ZOO["mlp_relu"]()
    units = model.couplings
    params, _ = killed(units, model.params, "readers")
    small = compacted(model.apply, params, *model.inputs).couplings
    for old, new in zip(units.dimensions, small.dimensions, strict=True):
        assert [m.entries for m in old.members] == [m.entries for m in new.members]
        assert all(set(m.units) <= set(range(new.size)) for m in new.members)
    assert small.removable[0].size < units.removable[0].size
    assert small.shapes != units.shapes


def test_a_rebuilt_model_passes_and_a_tampered_one_raises() -> None:
    params = two_layer_params()
    params["c"] = params["c"].at[:3].set(0.0)
    small = compacted(two_layers, params, X)
    assert small.check(two_layers, X) < 1e-6

    def tampered(params: Any, x: Any) -> Any:
        return two_layers(params | {"b": params["b"] + 0.01}, x)

    with pytest.raises(
        ValueError, match=r"check: 'output' differs by .*allowed: 1e-05"
    ):
        small.check(tampered, X)


def test_check_sees_a_divisor_that_follows_the_width() -> None:
    def apply(params: Any, x: Any) -> Any:
        return jnp.tanh(x @ params["a"]) @ params["c"] / params["c"].shape[0]

    params = {"a": DRAW(5, 8), "c": DRAW(8, 3).at[:4].set(0.0)}
    small = compacted(apply, params, X)
    assert after(small) == [4] and small.gap < 1e-6
    with pytest.raises(ValueError, match="it may divide by a width"):
        small.check(apply, X)


def test_a_model_that_returns_nan_raises() -> None:
    def apply(params: Any, x: Any) -> Any:
        return jnp.tanh(x @ params["a"] / jnp.sqrt(params["s"])) @ params["c"]

    params = {"a": DRAW(5, 8), "s": -jnp.ones(8), "c": DRAW(8, 3)}
    with pytest.raises(ValueError, match="apply returns NaN on these inputs"):
        compacted(apply, params, X)


def test_an_output_of_zeros_is_no_gap() -> None:
    params = two_layer_params()
    params |= {"c": jnp.zeros((8, 3)), "d": jnp.zeros(3)}
    small = compacted(two_layers, params, X)
    assert small.gap == 0.0
    assert after(small) == [1]


def test_a_gap_is_relative_and_a_nan_is_no_pass() -> None:
    old = {"logits": jnp.array([100.0, -jnp.inf]), "flag": jnp.array([True])}
    near = old | {"logits": jnp.array([100.5, -jnp.inf])}
    assert _verify.gap_of("compact", old, near, 1e-2, "") == pytest.approx(5e-3)
    with pytest.raises(ValueError, match=r"'logits' differs by 0\.005 of its largest"):
        _verify.gap_of("compact", old, near, 1e-3, "")
    for wrong in (jnp.array([jnp.nan, -jnp.inf]), jnp.array([100.0, 0.0])):
        with pytest.raises(ValueError, match=r"'logits' differs by (nan|inf)"):
            _verify.gap_of("compact", old, old | {"logits": wrong}, 1e-3, "")


def test_the_apply_of_a_compact_model_is_for_inference() -> None:
    params = two_layer_params()
    small = compacted(two_layers, params, X)
    with pytest.raises(TypeError, match="Rebuild the module at its new sizes to train"):
        jax.grad(lambda params: small.apply(params, X).sum())(small.params)
    rows = small.apply(small.params, DRAW.x(9, 5))
    assert rows.shape == (9, 3)
    with pytest.raises(ValueError, match=r"leaf 'a' has shape \(5, 9\); allowed: "):
        small.apply(params | {"a": DRAW(5, 9)}, X)


@pytest.mark.slow
def test_compact_and_rebuilt_models_are_exported() -> None:
    params = two_layer_params()
    params["c"] = params["c"].at[:3].set(0.0)
    small = compacted(two_layers, params, X)
    expected = two_layers(params, X)
    for apply in (small.apply, two_layers):
        exported = export.export(jax.jit(apply))(small.params, X)
        again = export.deserialize(exported.serialize())
        output = again.call(small.params, X)
        np.testing.assert_allclose(output, expected, atol=1e-5)


def test_the_decision_does_not_read_the_examples() -> None:
    """No unit fires on these inputs, and all stay."""
    params = two_layer_params()
    params["a"] = jnp.abs(params["a"]) + 0.1
    params["b"] = jnp.full(8, -1.0)
    small = compacted(two_layers, params, -jnp.abs(X))
    assert after(small) == [8]


def test_a_table_shows_sizes_and_gap() -> None:
    params = two_layer_params()
    params["c"] = params["c"].at[:3].set(0.0)
    lines = str(compacted(two_layers, params, X)).splitlines()
    assert lines[2].split() == ["a[1]", "8", "5"]
    assert ["parameters", "75", "48", "1.562"] in [line.split() for line in lines]
    assert lines[-1].startswith("gap ")


def test_bad_calls_say_what_to_write() -> None:
    params = two_layer_params()
    units = jaxreg.couplings(two_layers, params, X)
    with pytest.raises(ValueError, match=r"only='z' matches no leaf .* are a.1."):
        jaxreg.compact(units, params, X, only="z")
    with pytest.raises(ValueError, match="params has 3 leaves; couplings is that of"):
        jaxreg.compact(units, {k: params[k] for k in "abc"}, X)
    with pytest.raises(ValueError, match=r"leaf 'c' of shape .7, 3.; couplings is"):
        jaxreg.compact(units, params | {"c": jnp.ones((7, 3))}, X)
    with pytest.raises(TypeError, match="takes the parameters first"):
        jaxreg.couplings(lambda x, params: two_layers(params, x), params, X)
    with pytest.raises(TypeError, match=r"apply is .*; the function comes first"):
        jaxreg.couplings(params, two_layers, X)


def test_leaves_that_are_no_weights_pass_through() -> None:
    def apply(params: Any, x: Any) -> Any:
        return two_layers(params["net"], x) + params["count"]

    net = two_layer_params()
    net["c"] = net["c"].at[:3].set(0.0)
    params = {"net": net, "count": jnp.asarray(2), "none": None}
    small = compacted(apply, params, X)
    assert small.params["count"] is params["count"]
    assert small.params["none"] is None
    assert small.params["net"]["a"].shape == (5, 5)


def test_integer_inputs_are_redrawn_in_their_range() -> None:
    ids = jnp.array([[0, 3], [7, 3]])
    (fresh,) = _verify.fresh_inputs((ids,))
    assert set(np.ravel(fresh).tolist()) <= {0, 3, 7}
    floats = redraw((X,), 3)[0]
    assert not np.array_equal(_verify.fresh_inputs((floats,))[0], floats)


def loop_over_layers(params: Any, x: Any) -> Any:
    """Layers of a stack, each with a random key that it does not use."""

    def layer(h: Any, own: Any) -> Any:
        return h + jax.nn.relu(h @ own["up"]) @ own["down"], None

    stack = {name: params[name] for name in ("up", "down", "key")}
    return jax.lax.scan(layer, x @ params["in"], stack)[0] @ params["out"]


def loop_while(params: Any, x: Any) -> Any:
    """One layer three times, with a random key in the carry."""

    def body(carry: Any) -> Any:
        count, key, h = carry
        return count + 1, key, h + jax.nn.relu(h @ params["up"]) @ params["down"]

    start = 0, params["key"][0], x @ params["in"]
    return jax.lax.while_loop(lambda c: c[0] < 3, body, start)[2] @ params["out"]


@pytest.mark.parametrize("apply", [loop_over_layers, loop_while])
def test_random_keys_in_a_loop_leave_the_live_units(apply: Any) -> None:
    stack = (3,) if apply is loop_over_layers else ()
    params = {
        "in": DRAW(5, 6),
        "up": DRAW(*stack, 6, 9),
        "down": DRAW(*stack, 9, 6).at[..., :3, :].set(0.0),
        "out": DRAW(6, 4),
        "key": jax.random.split(jax.random.key(0), 3),
    }
    small = compacted(apply, params, X)
    assert small.params["up"].shape == (*stack, 6, 6)
    assert small.gap < 1e-6


def test_a_random_key_among_the_outputs_is_compared() -> None:
    params = {**two_layer_params(), "key": jax.random.key(0)}

    def apply(params: Any, x: Any) -> Any:
        return two_layers(params, x), params["key"]

    small = compacted(apply, params, X)
    assert small.gap < 1e-6
    with pytest.raises(ValueError, match="check: '1' differs by"):
        small.check(lambda p, x: (two_layers(p, x), jax.random.key(1)), X)


@pytest.mark.parametrize(
    ("fill", "wanted"), [({}, 4), ({"fill_value": 0.0}, 6), ({"fill_value": 2.0}, 4)]
)
def test_rows_are_alike_where_their_padding_is(fill: Any, wanted: int) -> None:
    """Two features are 2 in all rows: a constant, unless padding is another number."""

    def apply(params: Any, tokens: Any) -> Any:
        rows = jnp.take(params["rows"], tokens, axis=0, mode="fill", **fill)
        return rows @ params["out"] + params["bias"]

    params = {
        "rows": DRAW(7, 9).at[:, :2].set(2.0),
        "out": DRAW(9, 4).at[-3:].set(0.0),
        "bias": DRAW(4),
    }
    tokens = jnp.array([[1, 2, 0], [3, 6, 0]])
    small = compacted(apply, params, tokens)
    assert after(small) == [wanted]
    if fill:
        padded = tokens.at[0, 1].set(7)
        output = small.apply(small.params, padded)
        np.testing.assert_allclose(output, apply(params, padded), atol=1e-6)


def in_tens(params: Any, x: Any) -> Any:
    """Sums are rounded before the bias is added."""
    h = jax.nn.relu(x @ params["a"] + params["b"]) @ (10 * params["c"])
    return h.astype("int32").astype("float32") + params["d"]


@pytest.mark.parametrize(
    ("apply", "dtype"),
    [(two_layers, "int32"), (two_layers, "bfloat16"), (in_tens, "float32")],
)
def test_a_constant_stays_where_its_bias_would_round_it(apply: Any, dtype: Any) -> None:
    params = two_layer_params()
    params["a"] = params["a"].at[:, :2].set(0.0)
    params["b"] = params["b"].at[:2].set(0.3)
    params["d"] = (10 * params["d"]).astype(dtype)
    small = compacted(apply, params, X)
    assert after(small) == [8]
    assert "2 constant" in small.rows[0]["stayed"]


def test_a_constant_is_added_in_float64() -> None:
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x.astype("float64"), two_layer_params())
        params["a"] = params["a"].at[:, :3].set(0.0)
        small = compacted(two_layers, params, X.astype("float64"))
        assert after(small)[0] < 8
        assert small.gap < 1e-14


def test_computation_in_bfloat16_is_compared_by_its_rounding() -> None:
    def apply(params: Any, x: Any) -> Any:
        half = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), (params, x))
        return two_layers(*half).astype("float32")

    params = two_layer_params()
    params["a"] = params["a"].at[:, :3].set(0.0)
    params["b"] = params["b"].at[:3].set(0.3)
    small = compacted(apply, params, X)
    assert after(small) == [5]
    assert 1e-5 < small.gap < 16 * jnp.finfo("bfloat16").eps == small.tolerance
