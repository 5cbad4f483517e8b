"""The term of every axis of a program, by one rule per primitive.

A rule unifies the axes of operands that must have equal positions, freezes axes along
which positions matter (what reduces, sorts, indexes or mixes them), and returns the
axes of the outputs. A primitive without a rule freezes all of its operands: a missing
rule keeps units that could have gone, and never removes one that may not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jaxreg.compaction._jaxpr import Equation, Literal, Operand, Program, Variable
from jaxreg.compaction._terms import (
    Atom,
    Axes,
    Term,
    freeze,
    product,
    regroup,
    total,
    unify,
)

Rule = Callable[["Walk", Equation], list[Axes]]


class Walk:
    """The axes of all variables of a program; `activations` depend on the inputs.

    `contracted` collects the axes that contractions sum over.
    """

    def __init__(
        self,
        program: Program,
        inputs: Mapping[Variable, Axes],
        activations: set[Variable],
    ) -> None:
        self.axes: dict[Variable, Axes] = dict(inputs)
        self.activations = activations
        self.contracted: list[Term] = []
        self.run(program)

    def run(self, program: Program) -> None:
        for variable in program.constants:
            reason = f"captured constant {variable.shape}; pass it as a parameter"
            self.axes[variable] = fresh(variable, reason)
        for eqn in program.equations:
            outputs = RULES.get(eqn.name, unknown)(self, eqn)
            for variable, axes in zip(eqn.outputs, outputs, strict=True):
                sizes = tuple(term.size for term in axes)
                assert sizes == variable.shape, (eqn.name, sizes, variable.shape)
                self.axes[variable] = axes

    def of(self, operand: Operand) -> Axes:
        if isinstance(operand, Literal):
            return [Atom(size, "literal") for size in operand.shape]
        return self.axes[operand]

    def inputs(self, eqn: Equation) -> list[Axes]:
        return list(map(self.of, eqn.inputs))

    def unify_axes(self, eqn: Equation, first: Axes, second: Axes) -> None:
        for one, other in zip(first, second, strict=True):
            unify(one, other, lambda: f"{eqn.where} joins two ways to count it")


def fresh(variable: Variable, reason: str | None = None) -> Axes:
    """New atoms for the axes of a variable."""
    return [Atom(size, reason) for size in variable.shape]


def unknown(walk: Walk, eqn: Equation) -> list[Axes]:
    reason = f"no rule for {eqn.where}"
    if eqn.name.startswith(("random_", "rng_", "threefry")):
        reason = f"{eqn.where} draws random numbers; trace in evaluation mode"
    for axes in walk.inputs(eqn):
        for term in axes:
            freeze(term, reason)
    return [fresh(variable, reason) for variable in eqn.outputs]


def _elementwise(walk: Walk, eqn: Equation) -> list[Axes]:
    """Unifies axis by axis; an axis of length 1 broadcasts, and so do scalars."""
    ndim = len(eqn.outputs[0].shape)
    operands = [axes for axes in walk.inputs(eqn) if len(axes) == ndim]
    out = list(operands[0]) if operands else []
    for axes in operands[1:]:
        for axis, term in enumerate(axes):
            if out[axis].size == 1:
                out[axis] = term
            elif term.size != 1:
                walk.unify_axes(eqn, [out[axis]], [term])
    return [list(out) for _ in eqn.outputs]


def _bitcast(walk: Walk, eqn: Equation) -> list[Axes]:
    is_same = eqn.inputs[0].shape == eqn.outputs[0].shape
    return (_elementwise if is_same else unknown)(walk, eqn)


def _each_alone(walk: Walk, eqn: Equation) -> list[Axes]:
    """Several operands, each passed on as it is."""
    return [list(axes) for axes in walk.inputs(eqn)]


def _reduce(walk: Walk, eqn: Equation) -> list[Axes]:
    axes, gone = walk.of(eqn.inputs[0]), eqn.params["axes"]
    for axis in gone:
        freeze(axes[axis], lambda: f"{eqn.where} reduces over it")
    rest = [term for axis, term in enumerate(axes) if axis not in gone]
    return [list(rest) for _ in eqn.outputs]


def _along(name: str) -> Rule:
    """The rule of primitives that mix the positions of the axis in a parameter."""

    def rule(walk: Walk, eqn: Equation) -> list[Axes]:
        operands = walk.inputs(eqn)
        freeze(operands[0][eqn.params[name]], lambda: f"{eqn.where} runs along it")
        for axes in operands[1:]:
            walk.unify_axes(eqn, operands[0], axes)
        return [list(operands[0]) for _ in eqn.outputs]

    return rule


def _top_k(walk: Walk, eqn: Equation) -> list[Axes]:
    axes, axis = walk.of(eqn.inputs[0]), eqn.params["axis"]
    size = eqn.outputs[0].shape[axis]
    freeze(axes[axis], lambda: f"{eqn.where} sorts it")
    largest = Atom(size, eqn.where)
    return [[*axes[:axis], largest, *axes[axis + 1 :]] for _ in eqn.outputs]


def _broadcast_in_dim(walk: Walk, eqn: Equation) -> list[Axes]:
    axes, shape = walk.of(eqn.inputs[0]), eqn.params["shape"]
    out: Axes = [Atom(size) for size in shape]
    for term, axis in zip(axes, eqn.params["broadcast_dimensions"], strict=True):
        if term.size == shape[axis]:
            out[axis] = term
    return [out]


def blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[range, range]]:
    """The shortest runs of axes before and after a reshape with equal products."""
    out, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        start, before, after = (i, j), 1, 1
        while (i == start[0] and j == start[1]) or before != after:
            if i < len(old) and (before <= after or j == len(new)):
                before, i = before * old[i], i + 1
            else:
                after, j = after * new[j], j + 1
        out.append((range(start[0], i), range(start[1], j)))
    return out


def _reshape(walk: Walk, eqn: Equation) -> list[Axes]:
    axes, new = walk.of(eqn.inputs[0]), eqn.params["new_sizes"]
    old = [term.size for term in axes]
    if 0 in old:
        return [[Atom(size, "empty") for size in new]]
    out: Axes = []
    for before, after in blocks(old, new):
        terms = [axes[axis] for axis in before]
        sizes = [new[axis] for axis in after]
        parts = regroup(terms, sizes)
        if parts is None:
            reason = f"{eqn.where} makes {tuple(sizes)} of it"
            for term in terms:
                freeze(term, reason)
            parts = [Atom(size, reason) for size in sizes]
        out += parts
    return [out]


def _transpose(walk: Walk, eqn: Equation) -> list[Axes]:
    axes = walk.of(eqn.inputs[0])
    return [[axes[axis] for axis in eqn.params["permutation"]]]


def _squeeze(walk: Walk, eqn: Equation) -> list[Axes]:
    axes, gone = walk.of(eqn.inputs[0]), eqn.params["dimensions"]
    return [[term for axis, term in enumerate(axes) if axis not in gone]]


def _reverse(walk: Walk, eqn: Equation) -> list[Axes]:
    out = list(walk.of(eqn.inputs[0]))
    for axis in eqn.params["dimensions"]:
        out[axis] = _mixed(eqn, out[axis], out[axis].size)
    return [out]


def _mixed(eqn: Equation, term: Term, size: int) -> Atom:
    """A frozen axis of the output whose positions are not those of the input's."""
    if size == term.size == 1:
        return Atom(1)
    freeze(term, lambda: f"{eqn.where} picks positions of it")
    return Atom(size, eqn.where)


def _iota(walk: Walk, eqn: Equation) -> list[Axes]:
    del walk
    counted = eqn.params["dimension"]
    reason = f"{eqn.where} counts its positions"
    shape = enumerate(eqn.params["shape"])
    return [[Atom(size, reason if axis == counted else None) for axis, size in shape]]


def _concatenate(walk: Walk, eqn: Equation) -> list[Axes]:
    operands, along = walk.inputs(eqn), eqn.params["dimension"]
    for axes in operands[1:]:
        for axis, term in enumerate(axes):
            if axis != along:
                walk.unify_axes(eqn, [operands[0][axis]], [term])
    out = list(operands[0])
    out[along] = total(axes[along] for axes in operands)
    return [out]


def _stack(walk: Walk, eqn: Equation) -> list[Axes]:
    operands, axis = walk.inputs(eqn), eqn.params["axis"]
    for axes in operands[1:]:
        walk.unify_axes(eqn, operands[0], axes)
    out = list(operands[0])
    out.insert(axis, total(Atom(1) for _ in operands))
    return [out]


def _unstack(walk: Walk, eqn: Equation) -> list[Axes]:
    axes, axis = list(walk.of(eqn.inputs[0])), eqn.params["axis"]
    freeze(axes.pop(axis), lambda: f"{eqn.where} picks positions of it")
    return [list(axes) for _ in eqn.outputs]


def _tile(walk: Walk, eqn: Equation) -> list[Axes]:
    pairs = zip(walk.of(eqn.inputs[0]), eqn.params["reps"], strict=True)
    return [[product([Atom(count), term]) for term, count in pairs]]


def _split(walk: Walk, eqn: Equation) -> list[Axes]:
    axes, along = walk.of(eqn.inputs[0]), eqn.params["axis"]
    parts = [Atom(int(size)) for size in eqn.params["sizes"]]
    walk.unify_axes(eqn, [axes[along]], [total(parts)])
    return [[*axes[:along], part, *axes[along + 1 :]] for part in parts]


def _slice(walk: Walk, eqn: Equation) -> list[Axes]:
    params, out = eqn.params, Axes()
    strides = params["strides"] or (1,) * len(params["start_indices"])
    windows = zip(
        walk.of(eqn.inputs[0]),
        params["start_indices"],
        params["limit_indices"],
        strides,
        eqn.outputs[0].shape,
        strict=True,
    )
    for term, start, limit, stride, size in windows:
        if (start, limit, stride) == (0, term.size, 1):
            out.append(term)
        elif stride != 1:
            out.append(_mixed(eqn, term, size))
        else:
            parts = Atom(start), Atom(limit - start), Atom(term.size - limit)
            walk.unify_axes(eqn, [term], [total(parts)])
            out.append(parts[1])
    return [out]


def _pad(walk: Walk, eqn: Equation) -> list[Axes]:
    out = Axes()
    for term, (low, high, inner), size in zip(
        walk.of(eqn.inputs[0]),
        eqn.params["padding_config"],
        eqn.outputs[0].shape,
        strict=True,
    ):
        if inner == 0 and low >= 0 and high >= 0:
            out.append(total([Atom(low, "padding"), term, Atom(high, "padding")]))
        else:
            out.append(_mixed(eqn, term, size))
    return [out]


def _dot_general(walk: Walk, eqn: Equation) -> list[Axes]:
    (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    left, right = walk.inputs(eqn)
    for a, b in zip((*left_sum, *left_batch), (*right_sum, *right_batch), strict=True):
        walk.unify_axes(eqn, [left[a]], [right[b]])
    walk.contracted += [left[axis] for axis in left_sum]
    if walk.activations.issuperset(eqn.inputs):
        # The scale of such a sum, 1 / sqrt(width), is a number in the code.
        for axis in left_sum:
            freeze(left[axis], lambda: f"{eqn.where} contracts two activations")
    free = [t for a, t in enumerate(left) if a not in (*left_sum, *left_batch)]
    free += [t for a, t in enumerate(right) if a not in (*right_sum, *right_batch)]
    return [[*(left[axis] for axis in left_batch), *free]]


def _conv(walk: Walk, eqn: Equation) -> list[Axes]:
    """Input features are groups * inner, filters are groups * outer."""
    numbers, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
    if eqn.params["batch_group_count"] != 1:
        return unknown(walk, eqn)
    left, right = walk.inputs(eqn)
    for axes, spec in ((left, numbers.lhs_spec), (right, numbers.rhs_spec)):
        for axis in spec[2:]:
            freeze(axes[axis], lambda: f"space of {eqn.where}")
    group, inner = Atom(groups), right[numbers.rhs_spec[1]]
    filters = right[numbers.rhs_spec[0]]
    outer = Atom(filters.size // groups)
    features = left[numbers.lhs_spec[1]]
    walk.unify_axes(eqn, [features], [product([group, inner])])
    walk.unify_axes(eqn, [filters], [product([group, outer])])
    walk.contracted.append(features)
    if walk.activations.issuperset(eqn.inputs):
        freeze(inner, lambda: f"{eqn.where} contracts two activations")
    out: Axes = fresh(eqn.outputs[0], "space of a convolution")
    out[numbers.out_spec[0]] = left[numbers.lhs_spec[0]]
    out[numbers.out_spec[1]] = filters
    return [out]


def _window(walk: Walk, eqn: Equation) -> list[Axes]:
    params, out = eqn.params, Axes()
    shape = eqn.outputs[0].shape
    for axis, term in enumerate(walk.of(eqn.inputs[0])):
        is_whole = params["window_dimensions"][axis] == params["window_strides"][axis]
        is_whole &= params["window_strides"][axis] == 1
        is_whole &= tuple(params["padding"][axis]) == (0, 0)
        is_whole &= params["base_dilation"][axis] == 1
        out.append(term if is_whole else _mixed(eqn, term, shape[axis]))
    return [out]


def _gather(walk: Walk, eqn: Equation) -> list[Axes]:
    """Axes taken whole pass; indexed axes and those cut to a window are frozen."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    axes, index = walk.inputs(eqn)
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    for axis in gone:
        freeze(axes[axis], lambda: f"{eqn.where} indexes it")
    for axis in numbers.start_indices_batching_dims:
        freeze(index[axis], lambda: f"{eqn.where} indexes by it")
    freeze(index[-1], lambda: f"{eqn.where} indexes by it")
    windows = [axis for axis in range(len(axes)) if axis not in gone]
    out: dict[int, Term] = {}
    for position, axis in zip(numbers.offset_dims, windows, strict=True):
        is_whole = sizes[axis] == axes[axis].size
        if is_whole and axis not in numbers.start_index_map:
            out[position] = axes[axis]
        else:
            out[position] = _mixed(eqn, axes[axis], sizes[axis])
    batch = iter(index[:-1])
    return [[out.get(i) or next(batch) for i in range(len(eqn.outputs[0].shape))]]


def _dynamic_slice(walk: Walk, eqn: Equation) -> list[Axes]:
    axes, sizes = walk.of(eqn.inputs[0]), eqn.params["slice_sizes"]
    pairs = zip(axes, sizes, strict=True)
    return [[t if size == t.size else _mixed(eqn, t, size) for t, size in pairs]]


def _dynamic_update_slice(walk: Walk, eqn: Equation) -> list[Axes]:
    whole, part = map(walk.of, eqn.inputs[:2])
    for one, other in zip(whole, part, strict=True):
        if one.size == other.size:
            walk.unify_axes(eqn, [one], [other])
        else:
            freeze(one, lambda: f"{eqn.where} picks positions of it")
            freeze(other, lambda: f"{eqn.where} picks positions of it")
    return [list(whole)]


def _scan(walk: Walk, eqn: Equation) -> list[Axes]:
    (body,) = eqn.bodies
    constants, carried = eqn.scan_counts
    before = constants + carried
    operands = walk.inputs(eqn)
    length = Atom(eqn.params["length"], f"length of {eqn.where}")
    for axes in operands[before:]:
        walk.unify_axes(eqn, [length], [axes[0]])
    inner = [*operands[:before], *(axes[1:] for axes in operands[before:])]
    outputs = _run_body(walk, body, inner)
    carry = operands[constants:before]
    for first, second in zip(carry, outputs[:carried], strict=True):
        walk.unify_axes(eqn, first, second)
    return [*map(list, carry), *([length, *axes] for axes in outputs[carried:])]


def _while(walk: Walk, eqn: Equation) -> list[Axes]:
    condition, body = eqn.bodies
    operands = walk.inputs(eqn)
    split = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    carry = operands[sum(split) :]
    _run_body(walk, condition, [*operands[: split[0]], *carry])
    outputs = _run_body(walk, body, [*operands[split[0] : sum(split)], *carry])
    for first, second in zip(carry, outputs, strict=True):
        walk.unify_axes(eqn, first, second)
    return [list(axes) for axes in carry]


def _cond(walk: Walk, eqn: Equation) -> list[Axes]:
    operands = walk.inputs(eqn)[1:]
    outputs = [_run_body(walk, body, operands) for body in eqn.bodies]
    for branch in outputs[1:]:
        for first, second in zip(outputs[0], branch, strict=True):
            walk.unify_axes(eqn, first, second)
    return [list(axes) for axes in outputs[0]]


def _run_body(walk: Walk, body: Program, inputs: Sequence[Axes]) -> list[Axes]:
    walk.axes.update(zip(body.inputs, map(list, inputs), strict=True))
    walk.run(body)
    return list(map(walk.of, body.outputs))


ELEMENTWISE = frozenset(
    [
        "abs",
        "acos",
        "acosh",
        "add",
        "add_any",
        "and",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "bessel_i0e",
        "bessel_i1e",
        "cbrt",
        "ceil",
        "clamp",
        "clz",
        "complex",
        "conj",
        "convert_element_type",
        "copy",
        "copy_p",
        "cos",
        "cosh",
        "digamma",
        "div",
        "eq",
        "eq_to",
        "le_to",
        "log2",
        "lt_to",
        "mulhi",
        "one_minus_square",
        "erf",
        "erf_inv",
        "erfc",
        "exp",
        "exp2",
        "expm1",
        "floor",
        "ge",
        "gt",
        "igamma",
        "igammac",
        "imag",
        "integer_pow",
        "is_finite",
        "le",
        "lgamma",
        "log",
        "log1p",
        "logistic",
        "lt",
        "max",
        "min",
        "mul",
        "name",
        "ne",
        "neg",
        "nextafter",
        "not",
        "or",
        "polygamma",
        "population_count",
        "pow",
        "real",
        "reduce_precision",
        "regularized_incomplete_beta",
        "rem",
        "round",
        "rsqrt",
        "select_n",
        "sharding_constraint",
        "shift_left",
        "shift_right_arithmetic",
        "shift_right_logical",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "stop_gradient",
        "sub",
        "tan",
        "tanh",
        "xor",
        "zeta",
    ]
)
REDUCTIONS = frozenset(
    [
        "argmax",
        "argmin",
        "reduce_and",
        "reduce_max",
        "reduce_min",
        "reduce_or",
        "reduce_prod",
        "reduce_sum",
        "reduce_xor",
    ]
)
CUMULATIVE = frozenset(["cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum"])
EACH_ALONE = frozenset({"device_put", "optimization_barrier"})
WINDOWS = frozenset(["reduce_window_max", "reduce_window_min", "reduce_window_sum"])

RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(CUMULATIVE, _along("axis")),
    **dict.fromkeys(WINDOWS, _window),
    **dict.fromkeys(EACH_ALONE, _each_alone),
    "bitcast_convert_type": _bitcast,
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": _concatenate,
    "cond": _cond,
    "conv_general_dilated": _conv,
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "iota": _iota,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _reverse,
    "scan": _scan,
    "slice": _slice,
    "sort": _along("dimension"),
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "top_k": _top_k,
    "transpose": _transpose,
    "unstack": _unstack,
    "while": _while,
}
"""The primitives along which units are followed; any other freezes its operands."""
