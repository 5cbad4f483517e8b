"""`minimise`: solutions, warm starts, failures that are seen, and derivatives."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import ElasticNet, Lasso

import jaxreg
from jaxreg.solve import ConvergenceError, ConvergenceWarning

SAMPLES, FEATURES = 60, 20
BLOCKS = jaxreg.Blocks((4,))


def squares(w, x, y):
    """Half a mean square."""
    return jnp.mean((x @ w - y) ** 2) / 2


def logistic(w, x, y):
    return jnp.mean(jax.nn.softplus(x @ w) - (y > 0) * (x @ w))


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(SAMPLES, FEATURES))
    truth = np.r_[2 * generator.normal(size=6), np.zeros(FEATURES - 6)]
    y = x @ truth + generator.normal(size=SAMPLES) / 2
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)


@pytest.fixture
def wide_data(x64, data):
    return tuple(jnp.asarray(part, jnp.float64) for part in data)


def zeros(dtype=jnp.float32):
    return jnp.zeros(FEATURES, dtype)


def fit(penalty, data, start=None, loss=squares, **options):
    start = zeros(data[0].dtype) if start is None else start
    return jaxreg.minimise(loss, penalty, start, data=data, **options)


def test_the_lasso_is_that_of_scikit_learn(wide_data):
    ours = fit(jaxreg.L1(0.1), wide_data, tolerance=1e-9)
    theirs = Lasso(alpha=0.1, fit_intercept=False, tol=1e-12).fit(*wide_data).coef_
    np.testing.assert_allclose(ours.params, theirs, atol=1e-8)
    assert ours.converged and ours.reason == 0 and ours.stationarity <= 1e-9
    # At a solution with an active entry the largest gradient is the strength.
    assert ours.scale == pytest.approx(0.1, rel=1e-8)


def test_new_strengths_data_and_tolerances_compile_nothing(data):
    fit(jaxreg.L1(0.1), data)
    before = jaxreg.solve._minimise._fit._cache_size()
    fit(jaxreg.L1(0.2), tuple(2 * part for part in data), tolerance=1e-3, max_steps=99)
    assert jaxreg.solve._minimise._fit._cache_size() == before


def test_a_solution_and_a_large_strength_take_no_steps(data):
    first = fit(jaxreg.L1(0.1), data)
    assert first.steps > 0
    assert fit(jaxreg.L1(0.1), data, first.params).steps == 0
    largest = jaxreg.max_strength(jaxreg.L1(1.0), jax.grad(squares)(zeros(), *data))
    above = fit(jaxreg.L1(1.001 * largest.overall), data)
    assert above.steps == 0 and above.converged and not above.params.any()
    nothing = fit(jaxreg.L1(0.1), (data[0], 0 * data[1]))
    assert nothing.steps == 0 and nothing.converged and nothing.stationarity == 0


@pytest.mark.slow
def test_strengths_under_vmap_are_those_one_by_one(data):
    strengths = jnp.array([0.05, 0.1, 0.4])
    at_once = jax.vmap(lambda s: fit(jaxreg.L1(s), data))(strengths)
    for index, strength in enumerate(strengths):
        alone = fit(jaxreg.L1(strength), data)
        np.testing.assert_allclose(at_once.params[index], alone.params, atol=1e-4)
        assert at_once.converged[index]


def test_rules_leave_free_leaves_at_their_minimum(data):
    def loss(params, x, y):
        return squares(params["kernel"], x, y - params["bias"] - 3.0)

    rules = jaxreg.by_path([("kernel", jaxreg.ElasticNet(0.1, 0.05))])
    start = {"kernel": zeros(), "bias": jnp.zeros(())}
    ours = jaxreg.minimise(loss, rules, start, data=data, tolerance=1e-5)
    theirs = ElasticNet(alpha=0.2, l1_ratio=0.5, tol=1e-10)
    theirs.fit(*(np.asarray(part, np.float64) for part in (data[0], data[1] - 3.0)))
    np.testing.assert_allclose(ours.params["kernel"], theirs.coef_, atol=1e-4)
    assert float(ours.params["bias"]) == pytest.approx(theirs.intercept_, abs=1e-4)


def test_half_precision_is_solved_in_float32(data):
    start = zeros(jnp.bfloat16)
    half = fit(jaxreg.L1(0.1), data, start)
    full = fit(jaxreg.L1(0.1), data)
    assert half.params.dtype == jnp.bfloat16 and half.converged
    np.testing.assert_array_equal(half.params, full.params.astype(jnp.bfloat16))


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [jaxreg.Simplex(2.0), jaxreg.L2Ball(1.0)], ids=repr)
def test_a_constraint_is_met_from_a_start_outside(penalty, data):
    ours = fit(penalty, data, zeros() + 5, tolerance=1e-5)
    assert ours.converged and penalty.value(ours.params) == 0
    # Projected gradient steps, for long.
    step, w = 0.1, zeros()
    for _ in range(300):
        w = penalty.prox(w - step * jax.grad(squares)(w, *data), step)
    np.testing.assert_allclose(ours.params, w, atol=1e-4)


class TestNotConverged:
    """Every case is seen: a warning or an error outside of traces, a flag inside."""

    def test_too_few_steps_warn(self, data):
        with pytest.warns(ConvergenceWarning, match=r"after 3 steps.*raise max_steps"):
            few = fit(jaxreg.L1(0.1), data, max_steps=3)
        assert not few.converged and few.reason == 1 and few.steps == 3

    def test_too_few_steps_raise_if_told(self, data):
        with pytest.raises(ConvergenceError, match="not converged after 3 steps"):
            fit(jaxreg.L1(0.1), data, max_steps=3, on_failure="raise")

    def test_inside_jit_the_flag_is_what_there_is(self, data):
        few = jax.jit(lambda data: fit(jaxreg.L1(0.1), data, max_steps=3))(data)
        assert not few.converged
        with pytest.raises(ValueError, match="cannot raise inside jit"):
            jax.jit(lambda x: fit(jaxreg.L1(0.1), x, on_failure="raise"))(data)

    def test_float32_at_its_end_says_so(self, data):
        x, y = data
        uneven = x * jnp.logspace(0, -6, FEATURES)
        with pytest.warns(ConvergenceWarning, match="rounding stops it"):
            hard = fit(jaxreg.L1(1e-4), (uneven, y), tolerance=1e-9)
        assert hard.reason == 2

    def test_a_separable_problem_without_a_penalty_never_converges(self, data):
        x = data[0]
        y = jnp.sign(x[:, 0])
        with pytest.warns(ConvergenceWarning, match="after 200 steps"):
            runaway = fit(
                jaxreg.L1(0.0), (x, y), loss=logistic, tolerance=1e-12, max_steps=200
            )
        assert not runaway.converged

    @pytest.mark.parametrize(
        ("place", "text"), [(0, "data at '0'"), (1, "data at '1'"), (2, "params")]
    )
    def test_the_first_array_that_is_not_finite_is_named(self, place, text, data):
        arrays = [*data, zeros()]
        arrays[place] = arrays[place].at[0].set(jnp.nan)
        with pytest.raises(
            ConvergenceError, match=f"{text} holds numbers that are not"
        ):
            fit(jaxreg.L1(0.1), tuple(arrays[:2]), arrays[2])

    def test_a_loss_that_is_not_finite_is_no_solution(self):
        with pytest.raises(ConvergenceError, match="the loss or its gradient"):
            jaxreg.minimise(
                lambda w: jnp.sum(jnp.sqrt(w)), jaxreg.L1(0.1), -jnp.ones(3)
            )
        quiet = jaxreg.minimise(
            lambda w: jnp.sum(jnp.sqrt(w)),
            jaxreg.L1(0.1),
            -jnp.ones(3),
            on_failure="ignore",
        )
        assert not quiet.converged and quiet.reason == 3


DERIVATIVES = {
    "lasso": (squares, jaxreg.L1, 0.3),
    "logistic group lasso": (
        logistic,
        lambda s: jaxreg.GroupLasso(s, group_axis=BLOCKS),
        0.03,
    ),
    "slope": (squares, lambda s: jaxreg.SLOPE(s * jnp.linspace(1, 0.5, FEATURES)), 0.3),
    "total variation": (squares, lambda s: jaxreg.TotalVariation(s, axis=0), 0.3),
    "mcp": (squares, lambda s: jaxreg.MCP(s, 5.0), 0.3),
    "ball": (squares, jaxreg.L2Ball, 1.5),
}


@pytest.mark.parametrize(
    "name",
    [
        "lasso",
        *(pytest.param(n, marks=pytest.mark.slow) for n in DERIVATIVES if n != "lasso"),
    ],
)
def test_derivatives_are_those_of_central_differences(name, wide_data):
    loss, penalty_of, strength = DERIVATIVES[name]
    generator = np.random.default_rng(1)
    x_new, along_x, along_y = (
        jnp.asarray(generator.normal(size=shape))
        for shape in [(30, FEATURES), (SAMPLES, FEATURES), (SAMPLES,)]
    )
    y_new = x_new[:, 0] - x_new[:, 1]

    # By one number along the strength, x and y at once, since each costs a compilation.
    def validation(shift, along):
        x, y = wide_data
        held = (x + along[1] * shift * along_x, y + along[2] * shift * along_y)
        penalty = penalty_of(strength + along[0] * shift)
        w = fit(penalty, held, loss=loss, tolerance=1e-11).params
        return squares(w, x_new, y_new)

    value, step = jax.jit(validation), 1e-6
    backward = jax.jit(jax.grad(validation))
    forward = jax.jit(lambda s, a: jax.jvp(lambda s: validation(s, a), (s,), (1.0,))[1])
    directions = np.eye(3) if loss is squares else np.eye(3)[:2]
    for along in jnp.asarray(directions):
        both = value(step, along) - value(-step, along)
        expected = float(both / (2 * step))
        assert float(backward(0.0, along)) == pytest.approx(
            expected, rel=1e-5, abs=1e-8
        )
        assert float(forward(0.0, along)) == pytest.approx(expected, rel=1e-5, abs=1e-8)


@pytest.mark.slow
def test_the_objective_has_the_derivative_of_the_envelope(wide_data):
    def least(strength):
        return fit(jaxreg.L1(strength), wide_data, tolerance=1e-10).objective

    norm = jnp.sum(jnp.abs(fit(jaxreg.L1(0.3), wide_data, tolerance=1e-10).params))
    assert float(jax.grad(least)(0.3)) == pytest.approx(float(norm), rel=1e-6)


@pytest.mark.slow
def test_what_the_loss_closes_over_has_derivatives_masks_too(wide_data):
    x, y = wide_data

    @jax.jit
    def largest(scale, mask):
        w = jaxreg.minimise(
            lambda w: scale * squares(w, x, jnp.where(mask, y, 0.0)),
            jaxreg.L1(0.3),
            zeros(jnp.float64),
            tolerance=1e-10,
        ).params
        return w[0]

    mask = jnp.arange(SAMPLES) % 5 > 0
    ahead, behind = largest(1.0 + 1e-6, mask), largest(1.0 - 1e-6, mask)
    expected = float(ahead - behind) / 2e-6
    assert float(jax.grad(largest)(1.0, mask)) == pytest.approx(expected, rel=1e-5)


def test_a_second_derivative_raises(data):
    def first(strength):
        return fit(jaxreg.L1(strength), data).params[0]

    with pytest.raises(NotImplementedError, match="first derivatives alone"):
        jax.hessian(first)(0.3)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"loss": 3}, TypeError, "loss is 3; allowed: a function"),
        ({"params": None}, TypeError, "params is None; allowed: a tree"),
        ({"data": [1.0]}, TypeError, "data is .*allowed: a tuple"),
        (
            {"tolerance": 0.0},
            ValueError,
            "tolerance is 0.0; allowed: a finite number > 0",
        ),
        ({"max_steps": 0}, ValueError, "max_steps is 0; allowed: an int >= 1"),
        ({"data": (1.0,)}, TypeError, r"loss\(params, \*data\).*data=\(\(x, y\),\)"),
        ({"data": ({"of": "l1"},)}, TypeError, "data at '0/of' is 'l1'; allowed: arr"),
        ({"on_failure": "stop"}, ValueError, "on_failure is 'stop'; allowed: 'warn'"),
        ({"penalty": 0.1}, TypeError, "penalty is 0.1; allowed: a jaxreg penalty"),
        ({"params": jnp.arange(3)}, TypeError, "allowed are real floating leaves"),
        ({"loss": lambda w: w}, TypeError, r"loss returned .*\(3,\).*a scalar"),
        ({"loss": lambda w: (w.sum(), w)}, TypeError, "Leave auxiliary outputs out"),
        ({"penalty": jaxreg.HoyerSquare(0.1)}, TypeError, "has no prox"),
    ],
)
def test_bad_input_names_the_argument(change, error, text):
    arguments = {
        "loss": lambda w: jnp.sum(w**2),
        "penalty": jaxreg.L1(0.1),
        "params": jnp.ones(3),
    } | change
    with pytest.raises(error, match=text):
        jaxreg.minimise(**arguments)


def test_nothing_warns_where_all_is_well(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(jaxreg.L1(0.1), data).converged


def test_float32_stays_where_float64_is_on(x64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 5)).astype("f4")
    fit = jaxreg.minimise(
        lambda w, x: jnp.mean((x @ w - 3 * x[:, 0]) ** 2),
        jaxreg.L1(0.1),
        jnp.zeros(5, "f4"),
        data=(x,),
    )
    assert fit.converged and fit.params.dtype == fit.objective.dtype == jnp.float32
