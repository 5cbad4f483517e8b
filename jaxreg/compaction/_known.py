"""Entries of a program that are one number for every input, and what reads a unit.

One jitted pass over the equations carries for every variable a value and a flag,
`varies`: parameters are known, inputs vary. A known zero times anything is a known
zero, which takes activations to be finite. Values of entries that vary mean nothing, so
no decision rests on the data of the example.

Loops are not unrolled: a carried entry is known if every layer or iteration returns the
number that it started from. Layers of a stack that keep units of their own run side by
side, by `jax.vmap`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxreg.compaction._jaxpr import Equation, Literal, Operand, Program, Variable
from jaxreg.compaction._rules import (
    CUMULATIVE,
    EACH_ALONE,
    ELEMENTWISE,
    REDUCTIONS,
    WINDOWS,
)
from jaxreg.compaction._terms import Term, atoms_of, split_product
from jaxreg.compaction._trace import Traced

Flag = jax.Array | bool
"""True where an entry varies; one bool speaks for all entries."""


class Known(NamedTuple):
    """A value with its flag; the value is None if all of it varies."""

    value: Any
    varies: Flag


VARIES = Known(None, True)


class Side(NamedTuple):
    """An operand of a contraction, reduced to the axes with units.

    Axes: those of the batch, the contracted ones, and free ones with removable units.
    """

    nonzero: jax.Array
    varies: jax.Array


class Reading(NamedTuple):
    """The operands of a contraction, and their known values where they may fold."""

    sides: tuple[Side, Side]
    values: tuple[jax.Array, jax.Array] | None


_Step = tuple[list[Known], list[Reading]]
"""The outputs of a body, and the readings of the contractions in it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Contraction:
    """A sum over units: the terms of its axes, in the order of `Side`."""

    eqn: Equation
    batch: tuple[Term, ...]
    contracted: tuple[Term, ...]
    free: tuple[tuple[Term, ...], tuple[Term, ...]]
    is_per_layer: bool


class Pass:
    """The pass over a trace; `contractions` are in the order of what `run` returns."""

    def __init__(self, traced: Traced, foldable: set[Equation]) -> None:
        self.contractions: list[Contraction] = []
        self.run = jax.jit(self._run)
        self._traced, self._foldable = traced, foldable
        self._removable = set(traced.removable)
        self._known: dict[Operand, Known] = {}
        self._readings: list[Reading] = []
        self._is_recording, self._is_per_layer = True, False

    def _run(self, leaves: Sequence[jax.Array]) -> list[Reading]:
        self.contractions, self._readings = [], []
        program = self._traced.program
        inputs = [*(Known(leaf, False) for leaf in leaves)]
        inputs += [VARIES] * (len(program.inputs) - len(leaves))
        self._walk(program, inputs)
        return self._readings

    def _walk(self, program: Program, inputs: Sequence[Known]) -> list[Known]:
        for variable, constant in program.constants.items():
            self._known[variable] = Known(jnp.asarray(constant), False)
        self._known.update(zip(program.inputs, inputs, strict=True))
        for eqn in program.equations:
            self._known.update(zip(eqn.outputs, self._outputs(eqn), strict=True))
        return list(map(self._of, program.outputs))

    def _of(self, operand: Operand) -> Known:
        if isinstance(operand, Literal):
            return Known(jnp.asarray(operand.value), False)
        return self._known[operand]

    def _outputs(self, eqn: Equation) -> Sequence[Known]:
        operands = list(map(self._of, eqn.inputs))
        if eqn.name in ("dot_general", "conv_general_dilated"):
            return [self._contract(eqn, *operands)]
        if eqn.bodies:
            loops = {"scan": self._scan, "while": self._while, "cond": self._cond}
            return loops[eqn.name](eqn, operands)
        if eqn.name in EACH_ALONE:
            return operands
        if all(operand.varies is False for operand in operands):
            return [Known(value, False) for value in eqn.bind(*_values(operands))]
        if eqn.name in _ABSORBING:
            return [_ABSORBING[eqn.name](eqn, operands)]
        if eqn.name not in _FLAGS or any(each.varies is True for each in operands):
            # What has no rule may call back to Python: it does not run here.
            return [VARIES] * len(eqn.outputs)
        flags = _FLAGS[eqn.name](eqn, [each.varies for each in operands])
        values = eqn.bind(*_values(operands))
        return [Known(value, flag) for value, flag in zip(values, flags, strict=True)]

    def _contract(self, eqn: Equation, left: Known, right: Known) -> Known:
        if self._is_recording:
            self._record(eqn, left, right)
        if left.varies is False and right.varies is False:
            return Known(eqn.bind(left.value, right.value)[0], False)
        pairs = zip((left, right), eqn.inputs, strict=True)
        a, b = (_zeroed(known, operand) for known, operand in pairs)
        changed = {"preferred_element_type": jnp.dtype("float32"), "precision": None}
        live = (
            _number(_or(left.varies, a != 0), a),
            _number(_or(right.varies, b != 0), b),
        )
        count: Any = 0.0
        if left.varies is not False:
            count += eqn.bind(_number(left.varies, a), live[1], **changed)[0]
        if right.varies is not False:
            count += eqn.bind(live[0], _number(right.varies, b), **changed)[0]
        # Sums of zeros and ones: below 1/2 is 0.
        return Known(eqn.bind(a, b)[0], count > 0.5)

    def _record(self, eqn: Equation, left: Known, right: Known) -> None:
        make = _dot_axes if eqn.name == "dot_general" else _conv_axes
        axes = make(self._traced, eqn)
        if axes is None:
            return
        batch, contracted, orders, free, reshape = axes
        if not any(self._has_units(term) for term in contracted):
            return
        sides, kept_free = [], []
        for known, operand, order, terms, shape in zip(
            (left, right), eqn.inputs, orders, free, reshape, strict=True
        ):
            leading = len(order) - len(terms)
            stay = [i for i, term in enumerate(terms) if self._has_units(term)]
            axes_kept = [*range(leading), *(leading + i for i in stay)]
            sides.append(_side(known, operand, order, shape, axes_kept))
            kept_free.append(tuple(terms[i] for i in stay))
        values = None
        if eqn in self._foldable and not self._is_per_layer:
            values = _zeroed(left, eqn.inputs[0]), _zeroed(right, eqn.inputs[1])
        self._readings.append(Reading((sides[0], sides[1]), values))
        self.contractions.append(
            Contraction(
                eqn,
                tuple(batch),
                tuple(contracted),
                (kept_free[0], kept_free[1]),
                self._is_per_layer,
            )
        )

    def _has_units(self, term: Term) -> bool:
        return not self._removable.isdisjoint(atoms_of(term))

    def _scan(self, eqn: Equation, operands: list[Known]) -> Sequence[Known]:
        (body,) = eqn.bodies
        constants, carried = eqn.scan_counts
        start, length = constants + carried, eqn.params["length"]
        if not length:
            return [VARIES] * len(eqn.outputs)
        arrays = [_arrays(x, v) for x, v in zip(operands, eqn.inputs, strict=True)]
        xs = arrays[start:]
        is_stack = not self._is_per_layer and self._is_stack(eqn.inputs[start:])
        if not is_stack:
            xs = [Known(x[0], jnp.any(flag | (x != x[:1]), axis=0)) for x, flag in xs]

        def layer(carry: Sequence[Known], slices: Sequence[Known]) -> _Step:
            return self._layer(body, [*arrays[:constants], *carry, *slices], is_stack)

        def layers(carry: Sequence[Known]) -> _Step:
            """The step of all layers; outputs have a leading axis of layers."""
            if is_stack:
                return jax.vmap(functools.partial(layer, carry))(xs)
            outputs, readings = layer(carry, xs)
            return jax.tree.map(lambda x: x[None], outputs), readings

        carry = self._fixed_point(
            arrays[constants:start], lambda carry: layers(carry)[0][:carried]
        )
        outputs, readings = layers(carry)
        self._readings += readings
        ys = [
            Known(*(jnp.broadcast_to(x, (length, *jnp.shape(x)[1:])) for x in each))
            for each in outputs[carried:]
        ]
        return [*carry, *ys]

    def _is_stack(self, sliced: Sequence[Operand]) -> bool:
        """True if layers keep units of their own along the axis that a scan slices."""
        terms = [term for each in sliced for term in self._traced.axes_of(each)]
        atoms = {atom for term in terms for atom in atoms_of(term)}
        return not atoms.isdisjoint(self._traced.layers)

    def _layer(self, body: Program, inputs: Sequence[Known], is_stack: bool) -> _Step:
        """The outputs of one layer, as arrays, and its readings."""
        before, self._readings = self._readings, []
        outer, self._is_per_layer = self._is_per_layer, self._is_per_layer or is_stack
        outputs = self._walk(body, inputs)
        readings, self._readings = self._readings, before
        self._is_per_layer = outer
        pairs = zip(outputs, body.outputs, strict=True)
        return [_arrays(x, v) for x, v in pairs], readings

    def _fixed_point(
        self, carry: list[Known], step: Callable[[list[Known]], list[Known]]
    ) -> list[Known]:
        """The carry after any number of steps; `step` adds an axis of layers."""
        if not carry:
            return carry
        values = [each.value for each in carry]

        def advance(state: Any) -> Any:
            flags, _ = state
            outputs = step([Known(*x) for x in zip(values, flags, strict=True)])
            new = [
                flag | jnp.any(out.varies | (out.value != value[None]), axis=0)
                for value, flag, out in zip(values, flags, outputs, strict=True)
            ]
            changed = [jnp.any(a != b) for a, b in zip(new, flags, strict=True)]
            return new, functools.reduce(operator.or_, changed)

        with self._not_recording():
            flags, _ = jax.lax.while_loop(
                lambda state: state[1],
                advance,
                ([each.varies for each in carry], jnp.asarray(True)),
            )
        return [Known(*pair) for pair in zip(values, flags, strict=True)]

    @contextlib.contextmanager
    def _not_recording(self) -> Iterator[None]:
        before, self._is_recording = self._is_recording, False
        yield
        self._is_recording = before

    def _while(self, eqn: Equation, operands: list[Known]) -> Sequence[Known]:
        condition, body = eqn.bodies
        first = eqn.params["cond_nconsts"]
        start = first + eqn.params["body_nconsts"]
        arrays = [_arrays(x, v) for x, v in zip(operands, eqn.inputs, strict=True)]

        def step(carry: list[Known]) -> list[Known]:
            outputs = self._walk(body, [*arrays[first:start], *carry])
            pairs = zip(outputs, body.outputs, strict=True)
            stacked = (_arrays(*pair) for pair in pairs)
            return [Known(*(jnp.asarray(x)[None] for x in each)) for each in stacked]

        carry = self._fixed_point(arrays[start:], step)
        step(carry)
        self._walk(condition, [*arrays[:first], *carry])
        return carry

    def _cond(self, eqn: Equation, operands: list[Known]) -> Sequence[Known]:
        which = operands[0]
        branches = [self._walk(body, operands[1:]) for body in eqn.bodies]
        if which.varies is True:
            which = Known(jnp.zeros((), "int32"), True)
        out = []
        for index, variable in enumerate(eqn.outputs):
            arrays = [_arrays(branch[index], variable) for branch in branches]
            values = jnp.stack([each.value for each in arrays])
            flags = jnp.stack([jnp.asarray(each.varies) for each in arrays])
            chosen = jnp.clip(which.value, 0, len(arrays) - 1)
            differs = jnp.any(flags | (values != values[:1]), axis=0)
            varies = jnp.where(jnp.asarray(which.varies), differs, flags[chosen])
            out.append(Known(values[chosen], varies))
        return out


def _or(first: Flag, second: Flag) -> Flag:
    if first is True or second is True:
        return True
    return second if first is False else first if second is False else first | second


def _values(operands: Sequence[Known]) -> list[jax.Array]:
    return [operand.value for operand in operands]


def _number(flag: Flag, like: jax.Array) -> jax.Array:
    return jnp.broadcast_to(flag, like.shape).astype("float32")


def _arrays(known: Known, operand: Operand) -> Known:
    """The same with arrays for value and flag; random keys count as unknown."""
    value = known.value
    if isinstance(operand, Variable):
        if jnp.issubdtype(operand.dtype, jax.dtypes.extended):
            # Keys cannot be compared or zeroed; numbers stand in for them.
            return Known(
                jnp.zeros(operand.shape, "uint32"), jnp.ones(operand.shape, bool)
            )
        if value is None:
            value = jnp.zeros(operand.shape, operand.dtype)
    return Known(value, jnp.broadcast_to(known.varies, jnp.shape(value)))


def _zeroed(known: Known, operand: Operand) -> jax.Array:
    """The value with zeros where it varies: what varies may have become infinite."""
    value, varies = _arrays(known, operand)
    if known.varies is False:
        return value
    return jnp.where(varies, jnp.zeros((), value.dtype), value)


def _side(
    known: Known,
    operand: Operand,
    order: Sequence[int],
    shape: tuple[int, ...],
    axes: Sequence[int],
) -> Side:
    """An operand reshaped, its axes in order, reduced to some of them."""
    kept = tuple(shape[order[axis]] for axis in axes)

    def reduced(flag: Flag) -> jax.Array:
        if isinstance(flag, bool):
            return jnp.full(kept, flag)
        flag = jnp.transpose(flag.reshape(shape), order)
        gone = [axis for axis in range(flag.ndim) if axis not in axes]
        return jnp.any(flag, axis=tuple(gone))

    if known.varies is True:
        return Side(reduced(True), reduced(True))
    nonzero = _or(known.varies, known.value != 0)
    return Side(reduced(nonzero), reduced(known.varies))


_Plan = tuple[
    list[Term],
    list[Term],
    tuple[list[int], list[int]],
    tuple[list[Term], list[Term]],
    tuple[tuple[int, ...], tuple[int, ...]],
]
"""Terms of batch and contracted axes; per operand the order of axes (batch, contracted,
free), the terms of the free ones, and the shape in which the order counts."""


def _dot_axes(traced: Traced, eqn: Equation) -> _Plan:
    contracted, batch = eqn.params["dimension_numbers"]
    terms = [traced.axes_of(operand) for operand in eqn.inputs]
    orders, free = [], []
    for axes, gone, shared in zip(terms, contracted, batch, strict=True):
        rest = [axis for axis in range(len(axes)) if axis not in (*gone, *shared)]
        orders.append([*shared, *gone, *rest])
        free.append([axes[axis] for axis in rest])
    return (
        [terms[0][axis] for axis in batch[0]],
        [terms[0][axis] for axis in contracted[0]],
        (orders[0], orders[1]),
        (free[0], free[1]),
        (eqn.inputs[0].shape, eqn.inputs[1].shape),
    )


def _conv_axes(traced: Traced, eqn: Equation) -> _Plan | None:
    """A convolution as a contraction over input features, with its groups as batch."""
    numbers, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
    terms = [list(traced.axes_of(operand)) for operand in eqn.inputs]
    orders, shapes = [], []
    split_at = numbers.lhs_spec[1], numbers.rhs_spec[0]
    for side, axis in enumerate(split_at):
        cut = split_product(terms[side][axis], groups)
        if cut is None or eqn.params["batch_group_count"] != 1:
            return None
        terms[side][axis : axis + 1] = cut
        shape = list(eqn.inputs[side].shape)
        shape[axis : axis + 1] = [groups, shape[axis] // groups]
        shapes.append(tuple(shape))
    inner = numbers.rhs_spec[1] + (numbers.rhs_spec[1] > split_at[1])
    leading = [split_at[0], split_at[0] + 1], [split_at[1], inner]
    for first, axes in zip(leading, terms, strict=True):
        orders.append([*first, *(a for a in range(len(axes)) if a not in first)])
    free = [[t[a] for a in order[2:]] for t, order in zip(terms, orders, strict=True)]
    group, contracted = (terms[0][axis] for axis in leading[0])
    return (
        [group],
        [contracted],
        (orders[0], orders[1]),
        (free[0], free[1]),
        (shapes[0], shapes[1]),
    )


def _multiply(eqn: Equation, operands: Sequence[Known]) -> Known:
    """A product, or a conjunction: zero where one side is a known zero."""
    if all(operand.varies is True for operand in operands):
        return VARIES
    pairs = list(zip(operands, eqn.inputs, strict=True))
    values = [_zeroed(*pair) for pair in pairs]
    flags = [_arrays(*pair).varies for pair in pairs]
    zero = [~flag & (x == 0) for flag, x in zip(flags, values, strict=True)]
    varies = (flags[0] & ~zero[1]) | (flags[1] & ~zero[0])
    return Known(eqn.bind(*values)[0], varies)


def _divide(eqn: Equation, operands: Sequence[Known]) -> Known:
    """Zero where the numerator is a known zero and the denominator varies."""
    if operands[0].varies is True:
        return VARIES
    top, bottom = (_arrays(*p) for p in zip(operands, eqn.inputs, strict=True))
    value = eqn.bind(
        jnp.where(top.varies, 0, top.value), jnp.where(bottom.varies, 1, bottom.value)
    )[0]
    is_zero = ~jnp.asarray(top.varies) & (top.value == 0)
    return Known(value, top.varies | (bottom.varies & ~is_zero))


def _select(eqn: Equation, operands: Sequence[Known]) -> Known:
    """One of several cases: the flag of the case that a known predicate selects."""
    if all(operand.varies is True for operand in operands[1:]):
        return VARIES
    which, *cases = (_arrays(*p) for p in zip(operands, eqn.inputs, strict=True))
    shape = cases[0].value.shape
    flags = [jnp.broadcast_to(each.varies, shape) for each in cases]
    chosen = eqn.bind(which.value, *flags)[0]
    first = cases[0].value
    alike = [
        (each.value == first) & ~flag for each, flag in zip(cases, flags, strict=True)
    ]
    differs = ~functools.reduce(operator.and_, alike)
    varies = jnp.where(which.varies, differs, chosen)
    return Known(eqn.bind(*_values([which, *cases]))[0], varies)


def _join(eqn: Equation, operands: Sequence[Known]) -> Known:
    """Concatenation and padding, of flags as of values."""
    arrays = [_arrays(*p) for p in zip(operands, eqn.inputs, strict=True)]
    flags = eqn.bind(*(jnp.asarray(each.varies) for each in arrays))[0]
    return Known(eqn.bind(*_values(arrays))[0], flags)


def _gather(eqn: Equation, operands: Sequence[Known]) -> Known:
    """Rows at an index that varies are known where all rows are alike."""
    if operands[0].varies is True:
        return VARIES
    rows, index = (_arrays(*p) for p in zip(operands, eqn.inputs, strict=True))
    axes = tuple(eqn.params["dimension_numbers"].start_index_map)
    first = rows.value
    for axis in axes:
        first = jax.lax.slice_in_dim(first, 0, 1, axis=axis)
    differs = rows.varies | (rows.value != first)
    filled, fill = {}, eqn.params["fill_value"]
    if fill is not None:
        filled = {"fill_value": False}
        # An index past the end that gives NaN is an error; other numbers mean padding.
        differs |= (rows.value != fill) & (fill == fill)
    differs = jnp.any(differs, axis=axes, keepdims=True)
    differs = jnp.broadcast_to(differs, rows.value.shape)
    where = jnp.where(index.varies, 0, index.value)
    own = eqn.bind(rows.varies, where, **filled)[0]
    chosen = eqn.bind(differs, where, **filled)[0]
    varies = jnp.where(jnp.any(index.varies), chosen, own)
    return Known(eqn.bind(rows.value, where)[0], varies)


def _dynamic_slice(eqn: Equation, operands: Sequence[Known]) -> Known:
    """A window at a start that varies is known where all positions are alike."""
    whole, *starts = operands
    if whole.varies is True:
        return VARIES
    value, flag = _arrays(whole, eqn.inputs[0])
    if all(start.varies is False for start in starts):
        at = _values(starts)
        return Known(eqn.bind(value, *at)[0], eqn.bind(flag, *at)[0])
    out = eqn.outputs[0].shape
    axes = [a for a, size in enumerate(out) if size != value.shape[a]]
    first = value
    for axis in axes:
        first = jax.lax.slice_in_dim(first, 0, 1, axis=axis)
    varies = jnp.any(flag | (value != first), axis=tuple(axes), keepdims=True)
    return Known(jnp.broadcast_to(first, out), jnp.broadcast_to(varies, out))


_ABSORBING = {
    "and": _multiply,
    "concatenate": _join,
    "div": _divide,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "mul": _multiply,
    "pad": _join,
    "select_n": _select,
    "stack": _join,
}
"""Primitives whose output may be known although an operand varies."""


def _flags_of_shape(eqn: Equation, flags: Sequence[Flag]) -> list[Flag]:
    varies = functools.reduce(_or, flags)
    return [jnp.broadcast_to(varies, v.shape) for v in eqn.outputs]


def _flags_moved(eqn: Equation, flags: Sequence[Flag]) -> list[Flag]:
    return list(eqn.bind(*flags))


def _flags_reduced(eqn: Equation, flags: Sequence[Any]) -> list[Flag]:
    return [jnp.any(flags[0], axis=eqn.params["axes"])] * len(eqn.outputs)


def _flags_along(eqn: Equation, flags: Sequence[Any]) -> list[Flag]:
    axis = eqn.params["axis" if eqn.name in CUMULATIVE else "dimension"]
    varies = jnp.asarray(functools.reduce(_or, flags))
    varies = jnp.any(varies, axis=axis, keepdims=True)
    return [jnp.broadcast_to(varies, v.shape) for v in eqn.outputs]


def _flags_window(eqn: Equation, flags: Sequence[Any]) -> list[Flag]:
    params = eqn.params
    count = jax.lax.reduce_window(
        flags[0].astype("float32"),
        0.0,
        jax.lax.max,
        params["window_dimensions"],
        params["window_strides"],
        params["padding"],
        params["base_dilation"],
        params["window_dilation"],
    )
    return [count > 0]


_FLAGS: Mapping[str, Any] = {
    **dict.fromkeys(ELEMENTWISE - set(_ABSORBING), _flags_of_shape),
    **dict.fromkeys(REDUCTIONS, _flags_reduced),
    **dict.fromkeys(CUMULATIVE | {"sort"}, _flags_along),
    **dict.fromkeys(WINDOWS, _flags_window),
    **dict.fromkeys(
        [
            "broadcast_in_dim",
            "reshape",
            "rev",
            "slice",
            "split",
            "squeeze",
            "tile",
            "transpose",
            "unstack",
        ],
        _flags_moved,
    ),
}
"""Primitives whose output varies where operands do; static flags are False at most."""
