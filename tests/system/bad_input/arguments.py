"""Bad arguments of every public function and constructor, by the kind of argument.

Each row is a test and a line of docs/bad_input.md. The arguments are found by
introspection; `test_every_argument_has_a_kind` fails on one that no kind names.
"""

import dataclasses
import functools
import inspect
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxreg
from tests.laws.table import ROWS
from tests.system.bad_input.inputs import AT_CALL, Row, pattern_of

NAN, INF = float("nan"), float("inf")
PARAMS = {"kernel": jnp.asarray([[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]])}
L1, SGD = jaxreg.L1(0.1), optax.sgd(0.1)
OWN = jaxreg.preconditioners
ROWS_OF_X = jnp.eye(3)
PROBLEM = jaxreg.solve.linear(ROWS_OF_X, jnp.arange(3.0))
STATE = jaxreg.regularize(SGD, L1).init(PARAMS)
ADAM = {"learning_rate": 0.1, "penalty": L1}


def two_layers(params: dict[str, Any], x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ params["first"]) @ params["second"]


LAYERS = {"first": jnp.ones((3, 4)), "second": jnp.ones((4, 2))}
UNITS = jaxreg.couplings(two_layers, LAYERS, ROWS_OF_X)

# A call that works, of each public function and of classes without a law row.
CALLS: dict[str, dict[str, Any]] = {
    "Blocks": {"shape": (1, 2)},
    "ElasticNet.from_sklearn": {"alpha": 0.1, "l1_ratio": 0.5},
    "GroupLasso.from_sklearn": {"alpha": 0.1, "outputs": 2},
    "L1.from_sklearn": {"alpha": 0.1},
    "L2.from_sklearn": {"alpha": 0.1, "samples": 4},
    "Overlap": {"groups": ((0, 1), (1, 2)), "size": 3},
    "PiecewiseAffine.convex": {"strength": 0.1, "grid": (-1.0, 1.0)},
    "PiecewiseAffine.to_grid": {"strength": 0.1, "grid": (-1.0, 1.0)},
    "SLOPE.benjamini_hochberg": {"strength": 0.1, "level": 0.2, "size": 3},
    "SLOPE.oscar": {"l1": 0.1, "l2": 0.1, "size": 3},
    "add_penalty_gradient": {"penalty": L1},
    "anchored": {"penalty": L1, "reference": 1.0},
    "by_path": {"rules": [("kernel", L1)]},
    "channel_scales": {"penalty": L1, "layers": "norm"},
    "check": {"transformation": jaxreg.regularize(SGD, L1), "penalty": L1},
    "compact": {"couplings": UNITS, "params": LAYERS, "inputs": (ROWS_OF_X,)},
    "conjugate_prox": {"penalty": L1, "params": PARAMS, "step": 0.5},
    "coupled": {"penalty": L1, "couplings": UNITS},
    "couplings": {"apply": two_layers, "params": LAYERS, "inputs": (ROWS_OF_X,)},
    "describe": {"penalty": L1, "params": PARAMS},
    "dual_average": ADAM,
    "envelope": {"penalty": L1, "step": 0.5},
    "filters": {"penalty": L1, "layers": "conv"},
    "ftrl": ADAM,
    "grouped": {"penalty": L1, "group_axis": 0},
    "half_space": {"penalty": jaxreg.GroupLasso(0.1, 0)},
    "heads": {"penalty": L1, "layers": "attention"},
    "hold_support": {"penalty": L1},
    "input_features": {"penalty": L1, "layers": "first"},
    "latent": {"opt_state": STATE},
    "max_strength": {"penalty": L1, "grads": PARAMS},
    "measure": {"penalty": L1, "params": PARAMS},
    "minimise": {
        "loss": lambda params, *data: jnp.sum(params["kernel"] ** 2),
        "penalty": L1,
        "params": PARAMS,
    },
    "model_selection.cross_validate": {
        "path": jaxreg.states.Path(*[jnp.ones(1)] * 7, PROBLEM, L1, 1e-4),
        "folds": jnp.eye(3, dtype=bool),
    },
    "model_selection.fold_masks": {"key": jax.random.key(0), "folds": 2, "samples": 6},
    "model_selection.information_criteria": {
        "negative_log_likelihood": 1.0,
        "nonzeros": 2,
        "samples": 9,
        "candidates": 4,
    },
    "model_selection.pareto_front": {
        "sparsity": jnp.ones(3),
        "accuracy": jnp.ones(3),
    },
    "model_selection.path": {"problem": PROBLEM, "penalty": L1},
    "model_selection.stability_selection": {"units": jnp.ones((2, 3, 4))},
    "model_selection.strength_grid": {"largest": 1.0, "count": 3},
    "model_selection.sweep": {
        "fit": lambda strength, params, *points: (params, strength),
        "strengths": jnp.ones(2),
        "axes": (jnp.ones(2),),
        "start": lambda *points: 0.0,
    },
    "model_selection.validation_curve": {"errors": jnp.ones((2, 3))},
    "neurons": {"penalty": L1, "layers": "first"},
    "nonnegative": {"penalty": L1},
    "on_kernels": {"penalty": L1},
    "orthant": {"penalty": L1},
    "preconditioners.adagrad": {},
    "preconditioners.adam": {},
    "preconditioners.adamax": {},
    "preconditioners.adan": {},
    "preconditioners.amsgrad": {},
    "preconditioners.check": {
        "direction": optax.identity(),
        "preconditioner": OWN.identity(),
        "steps": 1,
    },
    "preconditioners.identity": {},
    "preconditioners.lamb": {},
    "preconditioners.momentum": {"decay": 0.9},
    "preconditioners.rmsprop": {},
    "preconditioners.yogi": {},
    "project": {"constraint": jaxreg.L2Ball(1.0)},
    "prox_adagrad": ADAM,
    "prox_adam": ADAM,
    "prox_adamw": ADAM,
    "prox_rmsprop": ADAM,
    "prox_sgd": ADAM,
    "proximal": {
        "direction": optax.identity(),
        **ADAM,
        "preconditioner": OWN.identity(),
    },
    "pytree_dataclass": {"cls": type("Empty", (), {})},
    "regularize": {"optimizer": SGD, "penalty": L1},
    "reweight": {
        "build": lambda penalty: jaxreg.prox_sgd(0.1, penalty),
        "penalty": L1,
        "eps": 0.1,
        "every": 2,
    },
    "scaled": {"penalty": L1, "factor": 2.0},
    "shrink": ADAM,
    "solve.linear": {"x": ROWS_OF_X, "y": jnp.arange(3.0)},
    "spectral": {"penalty": L1},
    "summary": {"penalty": L1, "params": PARAMS},
    "target_sparsity": {
        "optimizer": SGD,
        "penalty": L1,
        "target": 0.5,
        "end_step": 10,
    },
    "weighted": {"penalty": L1, "weights": 2.0},
}
# Where one call has either of two arguments.
CALLS_WITH = {
    "TopK.count": {"count": 1},
    "TopK.fraction": {"fraction": 0.5},
}
# What transformations return or raise, and what the author of a penalty states of it.
NOT_INPUT = {
    "Facts",
    "solve.ConvergenceError",
    "solve.ConvergenceWarning",
    *(f"states.{name}" for name in jaxreg.states.__all__),
}
# No value of these is bad: a switch is on where Python takes it for true.
SWITCHES = {
    "bias_correction",
    "cautious",
    "centered",
    "eps_in_sqrt",
    "fold",
    "intercept",
    "nesterov",
    "per_leaf",
    "standardise",
    "warm_start",
}
# These go to Optax as they are.
OPTAX = {"accumulator_dtype", "mask", "mu_dtype"}


@dataclasses.dataclass(frozen=True)
class Bad:
    """A bad argument, the error that it raises, and how the page shows it.

    In the message `{argument}` stands for the argument's name and `...` for anything.
    A constructor takes what is no `is_bad_field`, such as a grid for `jax.vmap`.
    """

    content: Any
    error: type[Exception]
    message: str
    words: str = ""
    is_bad_field: bool = True

    @property
    def given(self) -> str:
        return self.words or f"`{self.content!r}`"


@dataclasses.dataclass(frozen=True)
class Kind:
    """Arguments that mean the same: what they are, their names, what they may not be.

    `callable.argument` names that of one callable alone, in place of `argument`.
    """

    words: str
    arguments: tuple[str, ...]
    bads: tuple[Bad, ...]


def range_of(
    words: str,
    outside: Iterable[float],
    names: str,
    may_be_none: bool = False,
    is_finite: bool = True,
) -> Kind:
    """One real number in a range."""
    real = f"{{argument}}...; allowed: a real number {words}"
    noun = "a finite number" if is_finite else "a number"
    inside = f"{{argument}}... is ...; allowed: {noun} {words}"
    numbers = (*outside, NAN, INF) if is_finite else (*outside, NAN)
    bads = [Bad(number, ValueError, inside) for number in numbers]
    bads.append(Bad(jnp.asarray(NAN), ValueError, inside, "`jnp.asarray(nan)`"))
    unreal = ("1", True, 1j) if may_be_none else ("1", True, 1j, None)
    bads += [Bad(content, TypeError, real) for content in unreal]
    shape = "{argument} has shape (2,); allowed: one number. For a grid of numbers use"
    two = jnp.ones(2)
    bads.append(Bad(two, ValueError, shape, "`jnp.ones(2)`", is_bad_field=False))
    return Kind(f"a number {words}", tuple(names.split()), tuple(bads))


def count_from(least: int, names: str) -> Kind:
    allowed = f"{{argument}} is ...; allowed: an int >= {least}"
    bads = [Bad(content, TypeError, allowed) for content in (1.5, "1", True, None)]
    bads.append(Bad(least - 1, ValueError, allowed))
    return Kind(f"an int >= {least}", tuple(names.split()), tuple(bads))


def kind(
    words: str,
    names: str,
    contents: dict[str, Any] | Iterable[Any],
    message: str,
    error: type[Exception] = TypeError,
) -> Kind:
    """A kind all of whose bad contents, with words or shown, raise the same."""
    pairs = (
        contents.items() if isinstance(contents, dict) else (("", x) for x in contents)
    )
    bads = tuple(Bad(content, error, message, given) for given, content in pairs)
    return Kind(words, tuple(names.split()), bads)


def leaf_of(*dtypes: str) -> dict[str, Any]:
    return {f"a leaf of {d}": {"kernel": jnp.ones((3, 2), d)} for d in dtypes}


def on_presets(argument: str) -> str:
    presets = ("channel_scales", "filters", "heads", "input_features", "neurons")
    return " ".join(f"{preset}.{argument}" for preset in presets)


_STEP = range_of(">= 0", [-1.0], "step", may_be_none=True, is_finite=False)
STEPS = Kind(
    "a step",
    ("step",),
    (
        *(bad for bad in _STEP.bads if bad.is_bad_field),
        Bad({"other": 1.0}, ValueError, "step and params differ in structure: step "),
    ),
)
KINDS = [
    range_of(
        ">= 0",
        [-1.0],
        """alpha beta bound eps eps_root factor group initial_accumulator_value
        initial_scale l1 l2 learning_rate MinMaxNorm.lower MinMaxNorm.upper radius
        strength total total_variation weight_decay""",
    ),
    range_of(
        "> 0",
        [0.0, -1.0],
        """knot scale tolerance width LogSum.eps reweight.eps
        SpectralBall.radius L2.from_sklearn.samples envelope.step""",
    ),
    range_of(
        "from 0 to below 1",
        [-1.0, 1.0],
        "b1 b2 b3 margin target",
    ),
    range_of("from 0 to below 1", [-1.0, 1.0], "decay momentum", may_be_none=True),
    range_of("> 1", [1.0, 0.5], "SCAD.ratio"),
    range_of("from 0 to 1", [-1.0, 1.1], "l1_ratio weight fraction", may_be_none=True),
    range_of(
        "between 0 and 1", [0.0, 1.0], "level model_selection.strength_grid.ratio"
    ),
    kind(
        "a number between 0 and 1, part of the structure",
        "power",
        [0.0, 1.0, NAN, "1", None, 1j],
        "power of Lp(... is ...; allowed: a number between 0 and 1",
        ValueError,
    ),
    kind(
        "numbers of any sign",
        "Box.lower Box.upper reference",
        {"": NAN, "`jnp.asarray([nan])`": jnp.asarray([NAN])},
        "{argument} of ... holds ...; allowed: numbers",
        ValueError,
    ),
    kind(
        "numbers, arrays or trees of them",
        "weights SLOPE.strengths",
        {
            "`jnp.asarray([-1.0])`": jnp.asarray([-1.0]),
            "`jnp.asarray([nan])`": jnp.asarray([NAN]),
        },
        "{argument} of ... holds ...; allowed: finite numbers >= 0",
        ValueError,
    ),
    range_of("between 0 and 1", [0.0, 1.0], "path.ratio", may_be_none=True),
    count_from(0, "begin_step keep_at_least spatial stacked"),
    count_from(1, "end_step every max_steps multiple_of outputs rank steps"),
    count_from(
        2, "folds model_selection.fold_masks.samples path.count strength_grid.count"
    ),
    kind(
        "an int",
        "axis split Orthogonality.group_axis",
        [1.5, "1", None, True],
        "{argument} is ...; allowed: an int",
    ),
    kind(
        "an axis, axes or `Blocks` that index groups",
        "group_axis",
        [1.5, "rows", True, ()],
        "group_axis is ...; allowed: an int, or a tuple of ints",
    ),
    kind(
        "an axis of groups that may not be missing",
        "GroupLasso.group_axis SparseGroupLasso.group_axis grouped.group_axis",
        [1.5, "rows", True, (), None],
        "group_axis is ...; allowed: an int, or a tuple of ints",
    ),
    kind(
        "a penalty",
        "penalty constraint",
        {"": 0.1, "`'l1'`": "l1", "`None`": None, "`jaxreg.L1`": jaxreg.L1}
        | {"`[L1(0.1)]`": [L1]},
        "penalty is ...; allowed: a jaxreg penalty, as jaxreg.L1(1e-4) or ",
    ),
    kind(
        "an elementwise penalty",
        f"coupled.penalty grouped.penalty spectral.penalty {on_presets('penalty')}",
        {"": 0.1, "`None`": None, "`jaxreg.L1`": jaxreg.L1, "`[L1(0.1)]`": [L1]}
        | {"`GroupLasso(0.1, 0)`": jaxreg.GroupLasso(0.1, 0)},
        "...: allowed is an elementwise penalty, such as L1(1e-3)",
    ),
    kind(
        "an optimizer or a direction",
        "optimizer direction transformation",
        {"": 0.1, "`'adam'`": "adam", "`None`": None, "`optax.adam`": optax.adam},
        "{argument} is ...; allowed: an Optax ",
    ),
    kind(
        "a preconditioner",
        "preconditioner",
        {"": 0.1, "`'adam'`": "adam", "the function `adam`": OWN.adam},
        "preconditioner is ...; allowed: that of the direction",
    ),
    kind(
        "a function of the step count, or None",
        "schedule",
        {"": 0.1, "`'cosine'`": "cosine", "`jnp.ones(3)`": jnp.ones(3)},
        "schedule is ...; allowed: a function of the step count",
    ),
    kind(
        "a function that builds a transformation",
        "build",
        {"": 0.1, "`None`": None, "an optimizer": SGD},
        "build is ...; allowed: a function that makes an Optax transformation",
    ),
    kind(
        "functions that train and start",
        "fit start",
        [0.1, None],
        "{argument} is ...; allowed: a function",
    ),
    kind(
        "parameters",
        "params max_strength.grads",
        leaf_of("complex64", "int32", "bool", "float8_e4m3fn") | {"a text": "w"},
        "on leaf ... of ...: allowed are real floating leaves of 16 bits or more",
    ),
    kind(
        "a tree with the structure and shapes of `params`",
        "grads previous",
        {
            "a leaf of another name": {"other": PARAMS["kernel"]},
            "a leaf of a shape that broadcasts": {"kernel": jnp.ones((1, 2))},
            "a leaf of another shape": {"kernel": jnp.ones((2, 3))},
            "a number": 1.0,
        },
        "{argument} ...; pass ",
        ValueError,
    ),
    kind(
        "the state of an optimizer with one of these transformations",
        "opt_state",
        {"a number": 1.0, "the state of another": SGD.init(PARAMS)},
        "holds 0 ...; allowed: exactly one",
        ValueError,
    ),
    kind(
        "a regular expression",
        "layers only",
        ["(", 1, ("a", "b")],
        "{argument}: ... is no regular expression",
        ValueError,
    ),
    kind(
        "rules",
        "rules",
        [1.0, None, L1],
        "by_path: rules is ...; allowed: a list of pairs (pattern, penalty)",
    ),
    kind(
        "the index of a leaf, an order",
        "skip order",
        [4, 1.0, True, "1", None],
        "{argument} is ...; allowed: ",
        ValueError,
    ),
    kind(
        "an int of a pattern",
        "n m NM.axis",
        [1.5, True, "1"],
        "NM(...{argument}=...); allowed: ints",
    ),
    kind(
        "an int >= 0, or None",
        "TopK.count",
        [1.5, "1", True],
        "TopK: count is ...; allowed: an int >= 0",
    ),
    kind(
        "the name of a scope",
        "scope",
        ["row", None, 1],
        "TopK(...); allowed scopes: ",
        ValueError,
    ),
    STEPS,
    kind(
        "rising numbers",
        "grid knots",
        [1.0, None, (), (1.0, 0.0), (NAN,), ("1",)],
        "{argument} is ...; allowed: rising numbers, at least one",
        ValueError,
    ),
    kind(
        "one slope more than there are knots",
        "slopes",
        [1.0, (1.0,), (NAN, 1.0, 1.0)],
        "PiecewiseAffine: ...slopes ...; allowed: ",
        ValueError,
    ),
    kind(
        "tuples of ints",
        "Overlap.groups Overlap.size",
        [1.0, None, ((0.5,),)],
        "Overlap...; allowed: ",
    ),
    kind(
        "a number of entries",
        "SLOPE.oscar.size SLOPE.benjamini_hochberg.size",
        [1.5, "1", True, None],
        "size is ...; allowed: an int >= 0",
    ),
    kind(
        "the shape of a block",
        "Blocks.shape",
        [1, (), (0,), (1.0,), "1", None],
        "Blocks(...); allowed: a tuple with the length of a block along each axis",
    ),
    kind(
        "results of fits, or numbers of them",
        """accuracy sparsity errors units labels candidates nonzeros
        information_criteria.samples negative_log_likelihood strengths
        cross_validate.folds linear.x linear.y sample_weight offset
        validation_curve.converged information_criteria.converged
        stability_selection.converged""",
        {"": "1", "`1j`": 1j, "a list of objects": [object()]},
        "{argument} is ...; allowed: real numbers",
    ),
    kind(
        "a number that selects",
        "false_positives largest threshold",
        [0.0, -1.0, NAN, "1", None, 1j],
        "{argument} is ...; allowed: ",
        ValueError,
    ),
    kind(
        "one entry per point along the first axis",
        "axes",
        [1.0, None],
        "axis 0 has leaves of shapes ...; allowed: arrays with one common length",
        ValueError,
    ),
    kind(
        "a pair around 1",
        "factor_range",
        [1.0, (2.0, 3.0)],
        "factor_range is ...; allowed: two numbers around 1",
        ValueError,
    ),
    kind(
        "a loss",
        "loss",
        [0.1, None],
        "loss is ...; allowed: a function loss(params, *data)",
    ),
    kind(
        "the arguments of a loss behind the parameters",
        "data",
        {"": 1.0, "a list": [1.0], "`None`": None},
        "data is ...; allowed: a tuple",
    ),
    kind(
        "what to do without convergence",
        "on_failure",
        ["stop", None, 1],
        "on_failure is ...; allowed: 'warn', 'raise' or 'ignore'",
        ValueError,
    ),
    kind(
        "a family of losses",
        "family",
        ["gamma", None, 1],
        "family is ...; allowed: gaussian, ",
        ValueError,
    ),
    kind(
        "a linear problem",
        "problem",
        {"": 0.1, "`None`": None, "a loss": lambda params: 0.0},
        "problem is ...; allowed: that of jaxreg.solve.linear(x, y)",
    ),
    kind(
        "a path",
        "cross_validate.path",
        {"": 0.1, "`None`": None, "the problem": PROBLEM},
        "path is ...; allowed: that of model_selection.path(problem, penalty)",
    ),
    kind(
        "a metric",
        "metric",
        ["error", None, 1],
        "metric is ...; allowed: 'deviance', or a function",
        ValueError,
    ),
    kind("a key of `jax.random`", "key", [0, 0.5, "1", None], "allowed: a key"),
    # It reads paths and shapes alone; chains.py has the rows.
    Kind("a tree of shapes", ("check.params",), ()),
    kind(
        "a model",
        "couplings.apply",
        {"": 0.1, "`None`": None, "parameters": LAYERS},
        "apply is ...; allowed: a function apply(params, *inputs)",
    ),
    kind(
        "the parameters of a model",
        "couplings.params",
        {"no leaves": {}, "`None`": None},
        "params is ..., without leaves; pass what the model is a function of",
        ValueError,
    ),
    kind(
        "examples of a model's inputs",
        "inputs",
        {"nothing": ()},
        "inputs are missing; pass examples",
        ValueError,
    ),
    kind(
        "couplings",
        "compact.couplings coupled.couplings",
        {"": 0.1, "`None`": None, "the model": two_layers},
        "couplings is ...; allowed: jaxreg.couplings(apply, params, *inputs)",
    ),
    kind(
        "the parameters that couplings were traced with",
        "compact.params",
        {"leaves of other shapes": {**LAYERS, "second": jnp.ones((5, 2))}},
        "params has leaf ...; couplings is that of a model with",
        ValueError,
    ),
    kind(
        "a path of parameters in those of couplings",
        "under",
        [0.1, None],
        "under is ...; allowed: a path, such as 'params', or ''",
    ),
    kind("a class", "cls", [1.0, L1], "cls is ...; allowed: a class"),
]


def function_of(name: str) -> Any:
    return functools.reduce(getattr, name.split("."), jaxreg)


def public_callables() -> list[str]:
    """The names of public functions, classes and constructors, below `jaxreg`."""
    modules = ("", "model_selection.", "preconditioners.", "solve.", "states.")
    out = []
    for prefix in modules:
        module = function_of(prefix[:-1]) if prefix else jaxreg
        for name in module.__all__:
            member = getattr(module, name)
            if inspect.ismodule(member):
                continue
            out.append(prefix + name)
            makers = vars(member) if inspect.isclass(member) else {}
            out += [
                f"{prefix}{name}.{maker}"
                for maker, method in makers.items()
                if isinstance(method, classmethod) and not maker.startswith("_")
            ]
    return [name for name in out if name not in NOT_INPUT]


def arguments_of(name: str) -> list[str]:
    return list(inspect.signature(function_of(name)).parameters)


ARGUMENTS = [
    f"{name}.{each}" for name in public_callables() for each in arguments_of(name)
]


def names_of(label: str) -> list[str]:
    """The names by which a kind may know an argument, the most specific first."""
    parts = label.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def labels_of(kind: Kind) -> list[str]:
    """The arguments of a kind: those that it names most specifically."""
    named = {name for each in KINDS for name in each.arguments}
    out = []
    for label in ARGUMENTS:
        best = next((name for name in names_of(label) if name in named), None)
        if best in kind.arguments:
            out.append(label)
    return out


def a_call(label: str) -> dict[str, Any]:
    """Arguments of a call that works, in which `label` may be replaced."""
    name = label.rpartition(".")[0]
    if label in CALLS_WITH or name in CALLS:
        return CALLS_WITH.get(label) or CALLS[name]
    penalty = next(row.penalty for row in ROWS if type(row.penalty).__name__ == name)
    return {each: getattr(penalty, each) for each in arguments_of(name)}


def called(label: str, content: Any) -> Any:
    """The call with `content` as the argument `label`."""
    name, _, argument = label.rpartition(".")
    function, arguments = function_of(name), a_call(label) | {argument: content}
    positional = []
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.VAR_POSITIONAL:
            given = arguments.pop(each.name)
            positional += given if isinstance(given, tuple) else [given]
        elif each.kind is not each.KEYWORD_ONLY and each.name in arguments:
            positional.append(arguments.pop(each.name))
        else:
            break
    return function(*positional, **arguments)


def takes_grids(label: str) -> bool:
    """True if a number goes to a constructor of a penalty, which takes arrays of it."""
    name = label.rpartition(".")[0]
    owner = function_of(name.partition(".")[0])
    is_constructor = inspect.isclass(owner) and not name.startswith("SLOPE.")
    return is_constructor or label in ("scaled.factor", "envelope.step")


def shown_names(kind: Kind, labels: list[str]) -> str:
    """The arguments of a kind for the page, with the callable where it names that."""
    out = []
    for label in labels:
        name, _, argument = label.rpartition(".")
        is_general = argument in kind.arguments
        out.append(f"`{argument}`" if is_general else f"`{argument}` of `{name}`")
    return ", ".join(dict.fromkeys(out))


def rows_of(kind: Kind) -> Iterable[Row]:
    """One row for all contents that raise the same."""
    alike: dict[tuple[type[Exception], str, bool], list[Bad]] = {}
    for bad in kind.bads:
        alike.setdefault((bad.error, bad.message, bad.is_bad_field), []).append(bad)
    for (error, message, is_bad_field), bads in alike.items():
        labels = [x for x in labels_of(kind) if is_bad_field or not takes_grids(x)]
        if not labels:
            continue

        def check(label: str, bads: list[Bad] = bads) -> None:
            argument = label.rpartition(".")[2]
            for bad in bads:
                pattern = pattern_of(bad.message.replace("{argument}", argument))
                with pytest.raises(bad.error, match=pattern):
                    called(label, bad.content)

        given = ", ".join(bad.given for bad in bads)
        text = message.replace("{argument}...", "...").replace("{argument}", "...")
        happens = f"{error.__name__}: `{text}`"
        of = shown_names(kind, labels)
        words = f"{given} as {kind.words}"
        yield Row(words, tuple(labels), happens, AT_CALL, check, is_slow=True, of=of)


ARGUMENT_ROWS = [row for kind in KINDS for row in rows_of(kind)]
