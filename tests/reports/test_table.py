"""Tables before training and after."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg

KERNEL = jnp.array([[3.0, -4.0], [0.0, 0.0], [0.0, 1.0]])
PARAMS = {"bias": jnp.array([0.0, 2.0]), "embed": jnp.ones((2, 3)), "kernel": KERNEL}
LASSO, GROUPS = jaxreg.L1(0.5), jaxreg.GroupLasso(0.25, group_axis=0)
PENALTY = jaxreg.by_path([("^embed$", LASSO), ("^kernel$", GROUPS)])


def by_leaf(table: jaxreg.states.Table) -> dict[str, dict]:
    return {row["leaf"]: row for row in table.rows}


def test_describe_has_one_row_per_leaf_and_lists_the_free_ones() -> None:
    rows = by_leaf(jaxreg.describe(PENALTY, PARAMS))
    assert list(rows) == ["bias", "embed", "kernel"]
    found = {name: row["penalty"] for name, row in rows.items()}
    assert found == {"bias": "free", "embed": LASSO, "kernel": GROUPS}
    shapes = {name: row["shape"] for name, row in rows.items()}
    assert shapes == {"bias": (2,), "embed": (2, 3), "kernel": (3, 2)}


def test_describe_counts_groups_and_gives_the_step_of_regularize() -> None:
    rows = by_leaf(jaxreg.describe(PENALTY, PARAMS, width=0.1))
    groups = {name: row["groups"] for name, row in rows.items()}
    assert groups == {"bias": None, "embed": None, "kernel": 3}
    steps = {name: row["prox_step"] for name, row in rows.items()}
    assert steps["bias"] is None
    assert (steps["embed"], steps["kernel"]) == pytest.approx((0.2, 0.4))


def test_describe_counts_groups_over_two_axes() -> None:
    penalty = jaxreg.GroupLasso(0.25, group_axis=(0, -1))
    (row,) = jaxreg.describe(penalty, {"w": jnp.ones((2, 3, 4))}).rows
    assert row["groups"] == 8


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_convex_penalties_zero_nothing_at_the_start(dtype) -> None:
    tiny = jax.tree.map(lambda leaf: (1e-3 * leaf).astype(dtype), PARAMS)
    rows = by_leaf(jaxreg.describe(PENALTY, tiny))
    found = {name: row["zeroed_at_start"] for name, row in rows.items()}
    assert found == {"bias": None, "embed": 0.0, "kernel": 0.0}


def test_describe_takes_shapes_without_values() -> None:
    shapes = jax.eval_shape(lambda: PARAMS)
    rows, full = (by_leaf(jaxreg.describe(PENALTY, p)) for p in (shapes, PARAMS))
    for name, row in rows.items():
        assert row["zeroed_at_start"] is None
        assert row == full[name] | {"zeroed_at_start": None}


@pytest.mark.parametrize("report", [jaxreg.describe, jaxreg.summary])
def test_a_bare_penalty_is_reported_on_every_leaf(report) -> None:
    table = report(jaxreg.L2(0.5), PARAMS)
    rows = [row for row in table.rows if row["leaf"] != "total"]
    assert [row["penalty"] for row in rows] == [jaxreg.L2(0.5)] * 3


def test_summary_counts_zeros_groups_norms_and_values() -> None:
    rows = by_leaf(jaxreg.summary(PENALTY, PARAMS))
    assert list(rows) == ["bias", "embed", "kernel", "total"]
    bias, embed, kernel = rows["bias"], rows["embed"], rows["kernel"]
    assert (bias["zeros"], bias["zero_share"], bias["value"]) == (1, 0.5, None)
    assert (bias["penalty"], bias["dead_groups"], bias["norm"]) == ("free", None, 2.0)
    assert (embed["zeros"], embed["dead_groups"], embed["value"]) == (0, None, 3.0)
    assert (kernel["zeros"], kernel["zero_share"]) == (3, 0.5)
    assert kernel["dead_groups"] == "1 of 3"
    # sqrt(2) (5 + 0 + 1) / 4, rounded to float32.
    assert kernel["value"] == pytest.approx(np.sqrt(2) * 1.5, rel=1e-6)


def test_the_last_row_of_summary_is_over_all_leaves() -> None:
    total = jaxreg.summary(PENALTY, PARAMS).rows[-1]
    assert (total["leaf"], total["shape"], total["penalty"]) == ("total", 14, None)
    assert (total["zeros"], total["zero_share"]) == (4, 4 / 14)
    everything = np.concatenate([np.ravel(leaf) for leaf in PARAMS.values()])
    assert total["norm"] == pytest.approx(np.linalg.norm(everything), rel=1e-6)
    assert total["value"] == pytest.approx(float(PENALTY.value(PARAMS)), rel=1e-6)


def test_summary_of_bfloat16_is_computed_in_float32() -> None:
    params = {"kernel": jnp.ones(10_000, jnp.bfloat16)}
    row, total = jaxreg.summary(jaxreg.on_kernels(jaxreg.L1(1.0)), params).rows
    assert (row["norm"], row["value"]) == (100.0, 10_000.0)
    assert (total["norm"], total["value"]) == (100.0, 10_000.0)


def test_summary_of_leaves_without_entries_is_zero() -> None:
    row, total = jaxreg.summary(LASSO, {"a": jnp.zeros((0, 2))}).rows
    for one in (row, total):
        assert (one["zeros"], one["zero_share"], one["value"]) == (0, 0.0, 0.0)


def test_describe_names_a_scale_that_may_undo_the_penalty() -> None:
    params = {
        "dense": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)},
        "norms": {"0": {"scale": jnp.ones(4)}},
        "out": {"kernel": jnp.ones((4, 2))},
        "block": {
            "Conv_0": {"kernel": jnp.ones((1, 1, 4, 6))},
            "BatchNorm_0": {"scale": jnp.ones(6)},
        },
    }
    kernels = jaxreg.by_path(
        [
            jaxreg.filters(jaxreg.L1(0.5), "Conv"),
            jaxreg.neurons(jaxreg.L1(0.5), "dense|out"),
        ]
    )
    rows = jaxreg.describe(kernels, params).rows
    named = {row["leaf"]: row["scale_beside"] for row in rows if row["scale_beside"]}
    assert named == {
        "dense/kernel": "norms/0/scale",
        "block/Conv_0/kernel": "block/BatchNorm_0/scale",
    }
    # Single entries are no units, and a penalised scale undoes nothing.
    scales = jaxreg.channel_scales(jaxreg.L1(0.5))
    for others in (
        jaxreg.on_kernels(jaxreg.L1(0.5)),
        jaxreg.by_path([kernels, scales]),
    ):
        assert "scale_beside" not in jaxreg.describe(others, params).rows[0]


def test_text_is_aligned_and_names_free_leaves() -> None:
    penalty = jaxreg.by_path([("^embed$", LASSO), ("^kernel$", jaxreg.L2(0.25))])
    assert str(jaxreg.describe(penalty, PARAMS)).splitlines() == [
        "leaf    shape   penalty            groups  prox_step  zeroed_at_start",
        "------  ------  -----------------  ------  ---------  ---------------",
        "bias    (2,)    free",
        "embed   (2, 3)  L1(strength=0.5)           0.1        0",
        "kernel  (3, 2)  L2(strength=0.25)          2          0",
    ]


def test_markdown_is_a_table_with_the_same_cells() -> None:
    lines = jaxreg.summary(LASSO, {"a": jnp.array([3.0, 4.0, 0.0])}).markdown()
    assert lines.splitlines() == [
        "| leaf | shape | penalty | zeros | zero_share | dead_groups | norm | value |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| a | (3,) | L1(strength=0.5) | 1 | 0.3333 |  | 5 | 3.5 |",
        "| total | 3 |  | 1 | 0.3333 |  | 5 | 3.5 |",
    ]


def test_a_bar_in_a_cell_of_markdown_does_not_end_it() -> None:
    table = jaxreg.states.Table(({"value": "sum |w|"},))
    assert table.markdown().splitlines()[-1] == r"| sum \|w\| |"


def test_no_leaves_make_a_table_without_rows() -> None:
    table = jaxreg.describe(LASSO, {})
    assert table.rows == ()
    assert str(table) == "no leaves\n---------"


@pytest.mark.parametrize("report", [jaxreg.describe, jaxreg.summary])
def test_reports_raise_where_regularize_would(report) -> None:
    with pytest.raises(ValueError, match="matches no leaf"):
        report(jaxreg.by_path([("nowhere", LASSO)]), PARAMS)
    with pytest.raises(ValueError, match="fewer than two axes"):
        report(GROUPS, PARAMS)
    with pytest.raises(TypeError, match="allowed are real floating"):
        report(LASSO, {"steps": jnp.ones(3, jnp.int32)})


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan")])
def test_describe_raises_on_the_widths_that_regularize_rejects(width: float) -> None:
    with pytest.raises(ValueError, match=r"width is .*; allowed: a"):
        jaxreg.describe(PENALTY, PARAMS, width=width)


def test_free_leaves_may_be_random_keys_integers_or_complex() -> None:
    params = {
        "kernel": jnp.array([[3.0, 0.0]]),
        "key": jax.random.key(0),
        "count": jnp.array([0, 2]),
        "wave": jnp.array([3j, 4.0]),
    }
    penalty = jaxreg.on_kernels(jaxreg.L1(0.5))
    rows = {row["leaf"]: row for row in jaxreg.summary(penalty, params).rows}
    assert rows["key"]["zeros"] == 0
    assert rows["count"]["zeros"] == 1
    assert rows["wave"]["norm"] == 5
    assert len(jaxreg.describe(penalty, params).rows) == 4
