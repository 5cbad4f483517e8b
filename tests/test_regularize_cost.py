"""What a step of `regularize` costs, as XLA counts it on a CPU."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxreg

SHAPE, LEAVES = (250, 1000), 4
PARAMS = 4 * 250 * 1000


def cost(tx: Any) -> tuple[float, float]:
    """Words moved, and words of temporary memory, per parameter."""
    params = {f"kernel{i}": jax.ShapeDtypeStruct(SHAPE, "f4") for i in range(LEAVES)}

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    # Donated, as a training loop does: the branches of a cond then copy nothing.
    donating = jax.jit(step, donate_argnums=(0, 1))
    compiled = donating.lower(params, state, params).compile()
    moved = compiled.cost_analysis()["bytes accessed"]
    held = compiled.memory_analysis().temp_size_in_bytes
    word = jnp.dtype("f4").itemsize
    return moved / (word * PARAMS), held / (word * PARAMS)


def adam_with(penalty: Any) -> Any:
    return jaxreg.regularize(optax.adam(1e-3), penalty)


def test_adamw_moves_ten_words_per_parameter() -> None:
    # Three fusions per leaf that read and write: the measure the others are held to.
    assert cost(optax.adamw(1e-3))[0] == pytest.approx(10, abs=0.01)


# The design's words per step, 15 and 17, plus three or five of the branch that restarts
# a latent: XLA counts both branches of a cond, and this one runs after an edit only.
# The sample of 8 slices out of 250 rows or 1,000 columns comes on top, copied once
# (temporaries) and read and written in four places (words).
ROWS, COLUMNS = 8 / 250, 8 / 1000


def test_l1_moves_18_words_per_parameter_and_holds_a_hundredth() -> None:
    moved, held = cost(adam_with(jaxreg.L1(1e-4)))
    assert moved <= 18.1
    assert held <= 0.01


@pytest.mark.parametrize(("axis", "sample"), [(0, ROWS), (1, COLUMNS)])
def test_groups_move_22_words_per_parameter_and_hold_a_sample(
    axis: int, sample: float
) -> None:
    moved, held = cost(adam_with(jaxreg.GroupLasso(1e-4, group_axis=axis)))
    assert moved <= 22.25 + 4 * sample
    # Some numbers per group on top, here one group per 1,000 or per 250 entries.
    assert held <= 0.01 + sample
