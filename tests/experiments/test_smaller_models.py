"""The experiment on smaller models: what it cuts out, counts and times."""

import io
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from experiments.harness.runner import run
from experiments.smaller_models import _inference, _lenet, smaller_models
from tests.support.figures import assert_figure_shows_its_rows

HAS_MNIST = os.path.isdir(os.path.join(os.environ.get("JAXREG_DATA", ""), "mnist"))


def sparse_network(model: str) -> _lenet.Params:
    """Fresh weights and biases, of which each unit has about 2 % and some have none."""
    generator = np.random.default_rng(0)
    params = jax.tree.map(np.array, _lenet.init(model, jax.random.key(0)))
    for layer in params.values():
        layer["kernel"] *= generator.random(layer["kernel"].shape) < 0.02
        layer["bias"] += generator.normal(size=layer["bias"].shape).astype("f4")
    return params


IMAGES = np.random.default_rng(1).random((20, 784), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("model", [_lenet.LENET_300, _lenet.LENET_5])
def test_a_network_without_what_is_dead_computes_the_same(model) -> None:
    params = sparse_network(model)
    first, second, third, *_ = params.values()
    # Without weights from below, on and off; without a reader; with a dead reader.
    first["kernel"][..., 3:5], first["bias"][3:5] = 0, (2.0, -2.0)
    second["kernel"][:, 5:7] = 0
    second["kernel"][:, 6, 7] = 1.0
    third["kernel"][:, 7] = 0
    small, read = _lenet.compact(params)
    assert len(first["bias"]) - len(small["layer_0"]["bias"]) >= 4
    assert len(second["bias"]) - len(small["layer_1"]["bias"]) >= 1
    # Sums of float32 in another order.
    assert _lenet.gap(params, small, read, IMAGES) < 1e-5


@pytest.mark.slow
def test_constant_units_reach_the_output_through_the_biases() -> None:
    params = sparse_network(_lenet.LENET_300)
    params["layer_0"]["kernel"][:] = 0
    small, read = _lenet.compact(params)
    assert not read.any()
    assert [layer["kernel"].size for layer in small.values()] == [0, 0, 0]
    expected = _lenet.logits(params, IMAGES)
    np.testing.assert_allclose(
        np.broadcast_to(small["layer_2"]["bias"], (20, 10)), expected, rtol=1e-5
    )


@pytest.mark.slow
def test_the_bytes_are_those_of_the_arrays_of_scipy() -> None:
    params = sparse_network(_lenet.LENET_5)
    found = _lenet.stored_bytes(params)
    expected = {"bytes_dense": 0, "bytes_csr32": 0, "bytes_csr16": 0, "bytes_mask": 0}
    for layer in params.values():
        matrix = layer["kernel"].reshape(-1, layer["kernel"].shape[-1])
        rows = scipy.sparse.csr_array(matrix.T)
        values, columns = rows.data.nbytes, rows.indices.astype(np.int32)
        shared = layer["bias"].nbytes
        expected["bytes_dense"] += matrix.nbytes + shared
        shared += values
        expected["bytes_mask"] += shared + np.packbits(matrix != 0).nbytes
        shared += rows.indptr.astype(np.int32).nbytes
        expected["bytes_csr32"] += shared + columns.nbytes
        expected["bytes_csr16"] += shared + columns.astype(np.uint16).nbytes
        assert columns.max() < 2**16
    assert found == expected


@pytest.mark.slow
def test_the_convolutions_are_those_of_xla() -> None:
    params = sparse_network(_lenet.LENET_5)
    x = IMAGES.reshape(-1, 28, 28, 1)
    *convolutions, third, last = params.values()
    for layer in convolutions:
        kernel = layer["kernel"].reshape(5, 5, *layer["kernel"].shape[1:])
        axes = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=axes
        )
        window = (1, 2, 2, 1)
        x = jax.lax.reduce_window(
            x + layer["bias"], -jnp.inf, jax.lax.max, window, window, "VALID"
        )
        x = jax.nn.relu(x)
    flat = third["kernel"].reshape(800, 500)
    hidden = jax.nn.relu(x.reshape(20, 800) @ flat + third["bias"])
    expected = hidden @ last["kernel"][0] + last["bias"]
    np.testing.assert_allclose(_lenet.logits(params, IMAGES), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 20])
def test_all_that_is_timed_computes_the_same(batch) -> None:
    params = sparse_network(_lenet.LENET_300)
    calls = _inference.calls(params, IMAGES[:batch])
    assert set(calls) == {*_inference.AGAINST, *_inference.AGAINST.values()}
    expected = _lenet.logits(params, IMAGES[:batch])
    for name, call in calls.items():
        np.testing.assert_allclose(call(), expected, atol=1e-4, err_msg=name)


@pytest.mark.release
@pytest.mark.skipif(not HAS_MNIST, reason="JAXREG_DATA holds no mnist/")
def test_a_short_run_gets_smaller_and_keeps_what_it_computes(tmp_path) -> None:
    quick = smaller_models.QUICK
    record = run(smaller_models, quick, tmp_path, quick=True, stream=io.StringIO())
    assert_figure_shows_its_rows(smaller_models, quick, tmp_path)
    trained = [row for row in record["table"] if row["part"] == smaller_models.TEST]
    (long,) = (row for row in trained if row["recipe"] == "long")
    assert long["times_fewer"] >= 53.9
    assert long["bytes_csr16"] < long["bytes_csr32"] < long["bytes_mask"]
    assert long["refit_accuracy"] > 0.8
    assert all(row["smaller_gap"] < 1e-5 for row in trained)
