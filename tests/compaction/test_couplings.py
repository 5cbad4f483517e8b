"""Couplings: which axes belong together, and what freezes them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxreg
from jaxreg.compaction import _rules
from jaxreg.compaction._dimensions import Dimension
from jaxreg.states import Couplings
from tests.compaction.zoo import ZOO


def of(units: Couplings, path: str, axis: int) -> list[Dimension]:
    """The dimensions that an axis of a leaf belongs to."""
    return [
        dimension
        for dimension in units.dimensions
        if any((m.path, m.axis) == (path, axis) for m in dimension.members)
    ]


def places(dimension: Dimension) -> set[str]:
    return {f"{m.path}[{m.axis}]" for m in dimension.members}


def test_a_unit_of_a_dense_layer_is_column_bias_and_row() -> None:
    units = ZOO["mlp_relu"]().couplings
    first, second = units.removable
    assert places(first) == {"w1[1]", "b1[0]", "w2[0]"}
    assert places(second) == {"w2[1]", "b2[0]", "w3[0]"}
    entries = {m.path: m.entries for m in first.members}
    assert entries == {"w1": 5, "b1": 1, "w2": 6}
    assert {m.path for m in first.members if m.is_contracted} == {"w2"}


def test_a_channel_is_every_row_of_its_pixels() -> None:
    units = ZOO["resnet"]().couplings
    (last,) = of(units, "point", 3)
    (reader,) = [m for m in last.members if m.path == "out"]
    assert reader.units == tuple(range(7)) * 4
    assert reader.entries == 16


def test_heads_and_width_of_values_are_dimensions_of_their_own() -> None:
    units = ZOO["fused_qkv_split"]().couplings
    heads, width = units.removable
    (out,) = [m for m in heads.members if m.path == "o"]
    assert out.units == (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3)
    (fused,) = [m for m in width.members if m.path == "qkv"]
    assert fused.units == (-1,) * 24 + (0, 1, 2) * 4


def test_a_recurrent_kernel_makes_and_reads_its_units() -> None:
    (cells,) = ZOO["lstm"]().couplings.removable
    sides = {(m.path, m.axis): m.is_contracted for m in cells.members}
    assert sides["wh", 0] and not sides["wh", 1] and sides["o", 0]
    (gates,) = [m for m in cells.members if m.path == "wx"]
    assert gates.units == tuple(range(6)) * 4
    assert gates.entries == 16


def test_layers_of_a_stack_have_units_of_their_own() -> None:
    units = ZOO["scan_stack"]().couplings
    (hidden,) = of(units, "u", 2)
    assert hidden.layers == 3
    assert {m.path: m.entries for m in hidden.members} == {"u": 6, "b": 1, "d": 6}
    (stream,) = of(units, "i", 1)
    assert stream.layers is None


def test_a_stack_read_outside_its_scan_shares_its_units() -> None:
    def apply(params: Any, x: Any) -> Any:
        def layer(x: Any, w: Any) -> Any:
            return x + jax.nn.relu(x @ w["u"]) @ w["d"], None

        joint = jnp.einsum("lih,lhj->ij", params["u"], params["d"])
        return jax.lax.scan(layer, x, params)[0] @ joint

    params = {"u": jnp.ones((3, 5, 4)), "d": jnp.ones((3, 4, 5))}
    (hidden,) = jaxreg.couplings(apply, params, jnp.ones((2, 5))).removable
    assert hidden.layers is None


def test_a_stack_in_half_precision_keeps_its_layers_apart() -> None:
    model = ZOO["scan_stack"]()

    def apply(params: Any, x: Any) -> Any:
        half = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), params)
        return model.apply(half, x)

    units = jaxreg.couplings(apply, model.params, *model.inputs)
    assert {each.layers for each in units.removable} == {3, None}


FROZEN = {
    "softmax, norm": ("layernorm_block", "s", 0, "input"),
    "embedding": ("rope_llama", "e", 0, "gather at zoo.py:"),
    "normalised stream": ("rope_llama", "n1", 0, "reduce_sum at zoo.py:.* over it"),
    "rotary pairs": ("rope_llama", "q", 2, "iota at zoo.py:.* counts its positions"),
    "query width": ("gqa_repeat", "q", 2, "dot_general at .* two activations"),
    "no rule": ("fft_unknown", "a", 1, "no rule for fft"),
    "sorted": ("sorted_gather", "a", 1, "sort.* runs along it"),
    "picked": ("sorted_gather", "b", 1, "gather at zoo.py:.* indexes it"),
    "space": ("resnet", "c1", 0, "space of conv_general_dilated at zoo.py:"),
    "experts": ("mixture_of_experts", "w1", 0, "reduce_.*|dot_general .* activations"),
}


@pytest.mark.parametrize(
    ("name", "path", "axis", "reason"), FROZEN.values(), ids=FROZEN
)
def test_a_frozen_dimension_names_its_reason(
    name: str, path: str, axis: int, reason: str
) -> None:
    (dimension, *_) = of(ZOO[name]().couplings, path, axis)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(dimension.frozen)


def test_captured_weights_freeze_what_they_meet() -> None:
    weights = jnp.ones((5, 6))

    def apply(params: Any, x: Any) -> Any:
        return jax.nn.relu(x @ weights) @ params["b"] @ params["c"]

    params = {"b": jnp.ones((6, 4)), "c": jnp.ones((4, 3))}
    units = jaxreg.couplings(apply, params, jnp.ones((2, 5)))
    (met,) = of(units, "b", 0)
    assert met.frozen == "captured constant (5, 6); pass it as a parameter"


def test_dropout_freezes_with_the_advice_to_trace_evaluation() -> None:
    def apply(params: Any, x: Any, key: Any) -> Any:
        h = jax.nn.relu(x @ params["a"])
        return jnp.where(jax.random.bernoulli(key, 0.5, h.shape), h, 0) @ params["b"]

    params = {"a": jnp.ones((5, 4)), "b": jnp.ones((4, 3))}
    with pytest.raises(ValueError, match="random numbers; trace in evaluation mode"):
        jaxreg.couplings(apply, params, jnp.ones((2, 5)), jax.random.key(0))


def test_statistics_that_a_batch_updates_freeze_all() -> None:
    def apply(params: Any, x: Any) -> Any:
        h = x @ params["a"]
        mean = h.mean(0)
        return jax.nn.relu(h - mean) @ params["b"], 0.9 * params["mean"] + 0.1 * mean

    params = {"a": jnp.ones((5, 4)), "mean": jnp.ones(4), "b": jnp.ones((4, 3))}
    with pytest.raises(ValueError, match=r"output \(4 units\).*in evaluation mode"):
        jaxreg.couplings(apply, params, jnp.ones((2, 5)))


def test_shapes_are_enough_and_give_the_same_couplings() -> None:
    model = ZOO["glu_gate"]()
    shapes = jax.eval_shape(lambda tree: tree, (model.params, model.inputs))
    units = jaxreg.couplings(model.apply, shapes[0], *shapes[1])
    assert units == model.couplings
    assert hash(units) == hash(model.couplings)


def test_a_leaf_that_nothing_reads_is_frozen() -> None:
    model = ZOO["mlp_relu"]()
    params = model.params | {"spare": jnp.ones(4)}
    units = jaxreg.couplings(model.apply, params, *model.inputs)
    (spare,) = of(units, "spare", 0)
    assert spare.frozen == "nothing sums over it; does apply use this leaf?"


def test_a_flat_square_is_frozen() -> None:
    def apply(params: Any, x: Any) -> Any:
        h = jax.nn.relu(x @ params["a"])
        square = jnp.einsum("bi,bj->bij", h, h).reshape(len(x), -1)
        return square @ params["b"] + x @ params["c"] @ params["d"]

    shapes = {"a": (5, 4), "b": (16, 3), "c": (5, 4), "d": (4, 3)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    units = jaxreg.couplings(apply, params, jnp.ones((2, 5)))
    assert of(units, "a", 1)[0].frozen == "twice in one axis"


@pytest.mark.slow
@pytest.mark.parametrize(
    "primitive",
    ["add", *sorted(_rules.RULES.keys() - _rules.ELEMENTWISE)],
)
def test_a_rule_that_is_missing_freezes_units_and_adds_none(
    primitive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each primitive in turn; `compact` decides by the traces that are left."""
    models = zoo()
    with_rule = {name: removable(model) for name, model in models.items()}
    monkeypatch.delitem(_rules.RULES, primitive)
    for name, model in models.items():
        assert removable(model) <= with_rule[name], name


@functools.cache
def zoo() -> dict[str, Any]:
    return {name: build() for name, build in ZOO.items()}


def removable(model: Any) -> set[tuple[str, int, int]]:
    """Path, axis and position of everything that may go."""
    try:
        units = model.couplings
    except ValueError:
        return set()
    return {
        (member.path, member.axis, position)
        for dimension in units.removable
        for member in dimension.members
        for position, unit in enumerate(member.units)
        if unit >= 0
    }
