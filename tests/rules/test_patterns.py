"""Rules named after parts of a network: their groups, and their errors."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg

L1 = jaxreg.L1(0.5)


def kernel(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


PARAMS = {
    "first": {"kernel": kernel(5, 4), "bias": kernel(4)},
    "conv": {"kernel": kernel(3, 3, 2, 6), "bias": kernel(6)},
    "line": {"kernel": kernel(3, 2, 6)},
    "norm": {"scale": kernel(4), "bias": kernel(4)},
    "embed": {"embedding": kernel(9, 4)},
    "attention": {
        "query": {"kernel": kernel(4, 2, 3), "bias": kernel(2, 3)},
        "key": {"kernel": kernel(4, 2, 3)},
        "value": {"kernel": kernel(4, 2, 3)},
        "out": {"kernel": kernel(2, 3, 4), "bias": kernel(4)},
        "query_ln": {"scale": kernel(3)},
    },
    "stack": {
        "up": {"kernel": kernel(7, 5, 4), "bias": kernel(7, 4)},
        "attention": {
            "query": {"kernel": kernel(7, 4, 2, 3)},
            "key": {"kernel": kernel(7, 4, 2, 3)},
            "value": {"kernel": kernel(7, 4, 2, 3)},
            "out": {"kernel": kernel(7, 2, 3, 4)},
        },
    },
}


def groups_of(penalty: jaxreg.Penalty, params: Any = PARAMS) -> dict[str, int | None]:
    """The number of groups of each leaf that is not free."""
    rows = jaxreg.describe(penalty, params).rows
    return {row["leaf"]: row["groups"] for row in rows if row["penalty"] != "free"}


def attention(prefix: str, count: int) -> dict[str, int]:
    names = ("key", "out", "query", "value")
    return {f"{prefix}attention/{name}/kernel": count for name in names}


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (jaxreg.neurons(L1, layers="^first$"), {"first/kernel": 4}),
        (jaxreg.neurons(L1, "/up$", stacked=1), {"stack/up/kernel": 28}),
        (jaxreg.input_features(L1, layers="first"), {"first/kernel": 5}),
        (jaxreg.input_features(L1, "conv", spatial=2), {"conv/kernel": 2}),
        (jaxreg.input_features(L1, "/up$", stacked=1), {"stack/up/kernel": 35}),
        (jaxreg.filters(L1, layers="conv"), {"conv/kernel": 6}),
        (jaxreg.filters(L1, layers="line", spatial=1), {"line/kernel": 6}),
        (jaxreg.heads(L1, layers="^attention$"), attention("", 2)),
        (jaxreg.heads(L1, "^stack/", stacked=1), attention("stack/", 14)),
    ],
)
def test_a_preset_matches_its_kernels_and_counts_their_groups(
    penalty: jaxreg.Penalty, expected: dict[str, int]
) -> None:
    assert groups_of(penalty) == expected


def test_channel_scales_catches_scales_of_the_layers_alone() -> None:
    penalty = jaxreg.channel_scales(L1, layers="norm")
    rows = jaxreg.describe(penalty, PARAMS).rows
    caught = [row["leaf"] for row in rows if row["penalty"] != "free"]
    assert caught == ["norm/scale"]
    stack = {"stack": {"norm": {"scale": jnp.full((3, 4), 0.25)}}}
    with pytest.raises(ValueError, match=r"have 1, \(channels\)\. .*stacked="):
        penalty.prox(stack, 1.0)
    found = jaxreg.channel_scales(L1, "norm", stacked=1).prox(stack, 1.0)
    assert not found["stack"]["norm"]["scale"].any()


def test_channel_scales_raises_on_a_penalty_of_groups() -> None:
    with pytest.raises(TypeError, match=r"channel_scales.*an elementwise penalty"):
        jaxreg.channel_scales(jaxreg.GroupLasso(0.1, group_axis=0))


@pytest.mark.parametrize(
    ("penalty", "shape", "group"),
    [
        (jaxreg.neurons(L1, ""), (5, 4), np.s_[:, 1]),
        (jaxreg.neurons(L1, "", stacked=1), (3, 5, 4), np.s_[2, :, 1]),
        (jaxreg.input_features(L1, ""), (5, 4), np.s_[1]),
        (jaxreg.input_features(L1, "", spatial=2), (3, 3, 2, 6), np.s_[:, :, 1]),
        (jaxreg.filters(L1, ""), (3, 3, 2, 6), np.s_[..., 5]),
    ],
)
def test_the_prox_zeroes_the_whole_group_and_no_other(
    penalty: jaxreg.Penalty, shape: tuple[int, ...], group: Any
) -> None:
    start = np.full(shape, 2.0, "f4")
    start[group] = 0.25
    found = penalty.prox({"kernel": jnp.asarray(start)}, 1.0)["kernel"]
    assert np.all(found[group] == 0)
    assert np.sum(found == 0) == start[group].size


def rows_of_the_page() -> list[list[str]]:
    """The rows of the table in docs/groups.md: leaf, axes, groups and call."""
    page = Path(__file__).parents[2] / "docs" / "groups.md"
    lines = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    found = [[re.findall("`(.*?)`", cell) for cell in ln.split(" | ")] for ln in lines]
    return [[cell[0] for cell in row[-4:]] for row in found if all(row[-4:])]


def test_the_calls_of_the_page_make_the_groups_it_names() -> None:
    rows = rows_of_the_page()
    assert len(rows) == 12
    names = "inputs outputs height width length heads head_dim layers words features"
    lengths = (32, 48, 3, 5, 7, 4, 8, 6, 50, 16)
    sizes = dict(zip(names.split(), lengths, strict=True))
    for leaf, _, groups, call in rows:
        # `heads` catches the leaves of two rows.
        together = {path: text for path, text, _, other in rows if other == call}
        params = {path: kernel(*eval(text, sizes)) for path, text in together.items()}
        found = groups_of(eval(call, vars(jaxreg).copy()), params)
        assert found[leaf] == eval(groups, sizes), call


def test_a_head_is_zeroed_whole_in_its_four_kernels() -> None:
    params = jax.tree.map(lambda s: jnp.full(s.shape, 2.0), PARAMS["attention"])
    for name in ("query", "key", "value"):
        params[name]["kernel"] = params[name]["kernel"].at[:, 1].set(0.25)
    params["out"]["kernel"] = params["out"]["kernel"].at[1].set(0.25)
    found = jaxreg.heads(L1).prox(params, 1.0)
    for name in ("query", "key", "value"):
        np.testing.assert_array_equal(found[name]["kernel"][:, 1], 0.0)
        np.testing.assert_array_equal(found[name]["kernel"][:, 0], 1.5)
    np.testing.assert_array_equal(found["out"]["kernel"][1], 0.0)
    np.testing.assert_array_equal(found["out"]["kernel"][0], 1.5)
    np.testing.assert_array_equal(found["query"]["bias"], params["query"]["bias"])


def test_a_preset_of_l1_is_the_group_lasso() -> None:
    params = {"out": {"kernel": jax.random.normal(jax.random.key(0), (5, 4))}}
    ours = jaxreg.neurons(jaxreg.L1(0.3), layers="out")
    theirs = jaxreg.by_path([("kernel$", jaxreg.GroupLasso(0.3, group_axis=1))])
    assert ours.value(params) == theirs.value(params)
    one, other = ours.prox(params, 0.5), theirs.prox(params, 0.5)
    np.testing.assert_array_equal(one["out"]["kernel"], other["out"]["kernel"])


def test_layers_are_searched_in_the_path_of_the_layer_alone() -> None:
    params = {
        "fc1": {"kernel": kernel(3, 2)},
        "fc10": {"kernel": kernel(3, 2)},
        "kernel": {"kernel": kernel(3, 2), "my_kernel": kernel(3, 2)},
    }
    assert set(groups_of(jaxreg.neurons(L1, "1$"), params)) == {"fc1/kernel"}
    assert set(groups_of(jaxreg.neurons(L1, "kernel"), params)) == {"kernel/kernel"}
    assert set(groups_of(jaxreg.neurons(L1, ""), params)) == {
        "fc1/kernel",
        "fc10/kernel",
        "kernel/kernel",
    }


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (
            jaxreg.neurons(L1, "first|conv"),
            r"neurons\(layers='first\|conv'\) on leaf 'conv/kernel' of shape "
            r"\(3, 3, 2, 6\): the leaf has 4 axes, .* have 2, \(inputs, outputs\)",
        ),
        (
            jaxreg.neurons(L1, "/up$"),
            r"leaf 'stack/up/kernel' of .*set stacked= to the number",
        ),
        (
            jaxreg.neurons(L1, "first", stacked=1),
            r"neurons\(layers='first', stacked=1\) .*have 3, \(layers, inputs, outputs",
        ),
        (jaxreg.input_features(L1, "conv"), r"leaf 'conv/kernel' of .* has 4 axes"),
        (
            jaxreg.filters(L1, "line"),
            r"filters\(layers='line', spatial=2\) on leaf 'line/kernel'.* have 4, "
            r"\(spatial, spatial, inputs, outputs\)",
        ),
        (jaxreg.heads(L1), r"on leaf 'stack/attention/.*/kernel'.*Narrow layers="),
    ],
)
def test_a_kernel_with_other_axes_raises_by_name(
    penalty: jaxreg.Penalty, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        jaxreg.describe(penalty, PARAMS)


def test_a_leaf_that_does_not_fit_raises_at_the_first_update() -> None:
    params = {"conv": {"kernel": jnp.ones((3, 3, 2, 6))}}
    tx = jaxreg.regularize(optax.sgd(0.1), jaxreg.neurons(L1, layers="conv"))
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"on leaf 'conv/kernel'.* has 4 axes"):
        tx.update(params, state, params)


def test_layers_without_a_kernel_raise_with_the_paths() -> None:
    message = r"the rule neurons\(layers='nowhere'\).* matches no leaf.*'first/kernel'"
    with pytest.raises(ValueError, match=message):
        jaxreg.describe(jaxreg.neurons(L1, layers="nowhere"), PARAMS)


def test_presets_are_items_of_a_list_and_keep_their_order() -> None:
    penalty = jaxreg.by_path(
        [
            jaxreg.heads(L1, layers="^attention$"),
            jaxreg.neurons(L1, layers="first"),
            ("^(first|line)/kernel$", jaxreg.L2(1.0)),
            jaxreg.on_kernels(jaxreg.L1(0.1)),
        ]
    )
    rows = {r["leaf"]: r["penalty"] for r in jaxreg.describe(penalty, PARAMS).rows}
    assert rows["first/kernel"] == jaxreg.grouped(L1, group_axis=1)
    assert rows["attention/out/kernel"] == jaxreg.grouped(L1, group_axis=0)
    assert rows["line/kernel"] == jaxreg.L2(1.0)
    assert rows["conv/kernel"] == jaxreg.L1(0.1)
    assert rows["norm/scale"] == rows["embed/embedding"] == rows["first/bias"] == "free"


def test_a_presets_strength_is_a_leaf_its_layers_are_static() -> None:
    one, other = (jaxreg.neurons(jaxreg.L1(s), "hidden") for s in (0.1, 0.2))
    assert jax.tree.leaves(one) == [0.1]
    assert jax.tree.structure(one) == jax.tree.structure(other)
    elsewhere = jaxreg.neurons(jaxreg.L1(0.1), "other")
    assert jax.tree.structure(one) != jax.tree.structure(elsewhere)


def test_arguments_of_presets_are_checked_at_the_call() -> None:
    with pytest.raises(ValueError, match=r"neurons: layers: '\(' is no regular"):
        jaxreg.neurons(L1, layers="(")
    with pytest.raises(ValueError, match="stacked is -1; allowed: an int >= 0"):
        jaxreg.heads(L1, stacked=-1)
    with pytest.raises(TypeError, match="filters: spatial is True; allowed"):
        jaxreg.filters(L1, "conv", spatial=True)
    with pytest.raises(TypeError, match="an elementwise penalty, such as L1"):
        jaxreg.neurons(jaxreg.GroupLasso(1.0, 0), layers="hidden")
    with pytest.raises(ValueError, match=r"strength of .* is -1"):
        jaxreg.neurons(jaxreg.L1(-1.0), layers="hidden")
