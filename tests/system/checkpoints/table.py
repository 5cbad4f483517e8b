"""A row per transformation: a model in training whose whole state is one tree."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from flax.training.train_state import TrainState

import jaxreg
from experiments.kit.transformations import (
    TRANSFORMATIONS,
    Needs,
    Settings,
    Transformation,
)

INPUTS, HIDDEN, BATCH = 8, 8, 16
# Between the first save and the last step that all runs make: the target is reached
# after every restart.
END_STEP = 100

RATE = 1e-2
INPUT_ROWS = jaxreg.GroupLasso(1e-1, group_axis=0)
RULES = jaxreg.by_path([("first/kernel$", INPUT_ROWS), ("kernel$", jaxreg.L1(5e-2))])
GROUPS = jaxreg.by_path([("first/kernel$", INPUT_ROWS)])
SET = jaxreg.by_path(
    [("first/kernel$", jaxreg.L2Ball(0.5, group_axis=0)), ("kernel$", jaxreg.TopK(5))]
)


def warm_up(step: Any) -> Any:
    return jnp.minimum((step + 1) / 60, 1)


def halving(step: Any) -> Any:
    return RATE / (1 + step / 50)


def normal_map(penalty: Any = RULES) -> Any:
    return jaxreg.regularize(optax.adam(RATE), penalty)


# Beside the rate, the settings of a transformation: schedules count on after a restart.
SETTINGS: dict[str, dict[str, Any]] = {
    "add_penalty_gradient": {"schedule": warm_up},
    "dual_average": {
        "rate": 0.05,
        "momentum": lambda step: 0.5 / (1 + step),
        "schedule": warm_up,
    },
    "ftrl": {"rate": 0.1, "schedule": warm_up},
    "prox_adagrad": {"rate": 0.1, "schedule": warm_up},
    "prox_adam": {"rate": halving, "schedule": warm_up},
    "prox_adamw": {"weight_decay": 1e-2},
    "prox_sgd": {"rate": 0.05, "momentum": 0.9},
    "proximal": {
        "rate": halving,
        "inner": lambda rate: optax.scale_by_yogi(),
        "preconditioner": jaxreg.preconditioners.yogi(),
    },
    "regularize": {"schedule": warm_up},
    "reweight": {"every": 7},
    "shrink": {
        "rate": halving,
        "schedule": warm_up,
        "inner": lambda _: optax.adam(RATE),
    },
}
PENALTIES = {Needs.GROUPS: GROUPS, Needs.CONSTRAINT: SET}


def built(row: Transformation) -> Any:
    settings = {"rate": RATE, "end_step": END_STEP, **SETTINGS.get(row.name, {})}
    return row.optimizer(PENALTIES.get(row.needs, RULES), Settings(**settings))


TRANSFORMS: dict[str, Any] = {
    name: built(row) for name, row in TRANSFORMATIONS.items()
} | {
    "regularize, bfloat16": normal_map(),
    "regularize, in wrappers": optax.MultiSteps(
        optax.apply_if_finite(
            optax.inject_hyperparams(
                lambda rate: jaxreg.regularize(optax.adam(rate), RULES)
            )(rate=halving),
            3,
        ),
        2,
    ).gradient_transformation(),
    "reweight, regularize": jaxreg.reweight(normal_map, RULES, 0.1, every=7),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """The start of training, one step of it, and the parameters in its tree."""

    start: Callable[[], Any]
    step: Callable[[Any, Any, Any], Any]
    params: Callable[[Any], Any]


def loss_of(params: Any, x: Any, y: Any) -> Any:
    first, second = params["first"], params["second"]
    hidden = nn.relu(x @ first["kernel"] + first["bias"])
    return jnp.mean((hidden @ second["kernel"] - y) ** 2)


def plain(tx: Any, dtype: str) -> Row:
    """A loop of one's own over a dictionary of arrays."""

    def start() -> Any:
        first, second = jax.random.split(jax.random.key(0))
        kernels = (
            jax.random.normal(first, (INPUTS, HIDDEN), dtype).at[4:6].set(0) / 2,
            jax.random.normal(second, (HIDDEN, 1), dtype) / 2,
        )
        params = {
            "first": {"kernel": kernels[0], "bias": jnp.zeros(HIDDEN, dtype)},
            "second": {"kernel": kernels[1]},
        }
        return {"params": params, "state": tx.init(params)}

    def step(carry: Any, x: Any, y: Any) -> Any:
        params = carry["params"]
        grads = jax.grad(loss_of)(params, x, y)
        updates, state = tx.update(grads, carry["state"], params)
        return {"params": optax.apply_updates(params, updates), "state": state}

    return Row(start, step, lambda carry: carry["params"])


class Linen(nn.Module):
    """Two layers of Linen."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(1)(nn.relu(nn.Dense(HIDDEN)(x)))


def train_state() -> Row:
    """A Linen model in a TrainState, which is the tree."""
    model, tx = Linen(), normal_map(jaxreg.on_kernels(jaxreg.L1(5e-2)))

    def start() -> Any:
        params = model.init(jax.random.key(0), jnp.zeros((1, INPUTS)))["params"]
        return TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    def step(state: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            return jnp.mean((state.apply_fn({"params": params}, x) - y) ** 2)

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    return Row(start, step, lambda state: state.params)


class Nnx(nnx.Module):
    """Two layers of NNX, with running means and a stream of random numbers."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        # A bias before a norm has gradients of rounding errors alone.
        self.first = nnx.Linear(INPUTS, HIDDEN, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(HIDDEN, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.second = nnx.Linear(HIDDEN, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.second(self.dropout(nnx.relu(self.norm(self.first(x)))))


def nnx_optimizer() -> Row:
    """An NNX model and its nnx.Optimizer: the tree is the state of both."""
    tx = normal_map(jaxreg.on_kernels(jaxreg.L1(5e-2)))

    def both() -> Any:
        model = Nnx(nnx.Rngs(0))
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

    graph = nnx.graphdef(nnx.eval_shape(both))

    def step(state: Any, x: Any, y: Any) -> Any:
        model, optimizer = nnx.merge(graph, state)
        grads = nnx.grad(lambda model: jnp.mean((model(x) - y) ** 2))(model)
        optimizer.update(model, grads)
        return nnx.state((model, optimizer))

    return Row(
        lambda: nnx.state(both()),
        step,
        lambda state: nnx.filter_state(state, nnx.Param),
    )


ROWS = {
    name: plain(tx, "bfloat16" if "bfloat16" in name else "float32")
    for name, tx in TRANSFORMS.items()
} | {"Linen TrainState": train_state(), "NNX Optimizer": nnx_optimizer()}
