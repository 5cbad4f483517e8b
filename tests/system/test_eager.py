"""Outside jit nothing is compiled twice: notebooks and debuggers run eagerly."""

import logging

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxreg

PENALTIES = [jaxreg.L1(1e-4), jaxreg.GroupLasso(1e-4, group_axis=0)]


def compilations(caplog, function, *args) -> list[str]:
    function(*args)
    caplog.clear()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        function(*args)
    return [text for text in caplog.messages if text.startswith("Compiling")]


@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
def test_an_eager_update_compiles_nothing_the_second_time(penalty, caplog):
    tx = jaxreg.regularize(optax.adam(1e-3), penalty)
    params = {"kernel": jnp.ones((30, 20))}
    assert not compilations(caplog, tx.update, params, tx.init(params), params)


@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
def test_a_second_eager_prox_with_varying_steps_compiles_nothing(penalty, caplog):
    leaf = jnp.linspace(-1.0, 1.0, 600).reshape(30, 20)
    assert not compilations(caplog, penalty.prox, leaf, jnp.abs(leaf))
