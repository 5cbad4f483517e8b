"""Names in other libraries of what jaxreg has.

Keras, scikit-learn, skglm, jaxopt, PyTorch and Optax.
"""

from __future__ import annotations

from typing import NoReturn

_ELASTIC_NET = "jaxreg.ElasticNet(l1, l2)"
_DECAY = "jaxreg.add_penalty_gradient(jaxreg.L2(weight_decay / 2))"
_MINIMISE = "jaxreg.minimise(loss, penalty, params)"
_PATH = "jaxreg.model_selection.path(problem, penalty)"
_PROJECTION = ".prox(params, step=1.0)"

CALLS = {
    "BlockCoordinateDescent": _MINIMISE,
    "L1L2": _ELASTIC_NET,
    "Lasso": "jaxreg.L1.from_sklearn(alpha)",
    "LassoCV": _PATH,
    "ElasticNetCV": _PATH,
    "GroupLassoCV": _PATH,
    "LHalf": "jaxreg.Lp(strength, power=0.5)",
    "L2_3": "jaxreg.Lp(strength, power=2 / 3)",
    "MaxNorm": "jaxreg.L2Ball(radius, group_axis=1)",
    "MultiTaskLasso": "jaxreg.GroupLasso.from_sklearn(alpha, outputs)",
    "NonNeg": "jaxreg.NonNegative()",
    "OrthogonalRegularizer": "jaxreg.Orthogonality(strength, group_axis)",
    "LogisticRegression": "jaxreg.solve.linear(x, y, family='binomial')",
    "LogisticRegressionCV": _PATH,
    "ProjectedGradient": "jaxreg.minimise(loss, constraint, params)",
    "ProximalGradient": _MINIMISE,
    "Ridge": "jaxreg.L2.from_sklearn(alpha, samples)",
    "add_decayed_weights": _DECAY,
    "clip_grad": "optax.clip_by_global_norm(max_norm)",
    "clip_grad_norm": "optax.clip_by_global_norm(max_norm)",
    "elastic_net": _ELASTIC_NET,
    "l1": "jaxreg.L1(strength)",
    "l1_l2": _ELASTIC_NET,
    "l2": "jaxreg.L2(strength)",
    "lasso": "jaxreg.minimise(jaxreg.solve.linear(x, y), jaxreg.L1(strength))",
    "minimize": _MINIMISE,
    "projection_box": f"jaxreg.Box(lower, upper){_PROJECTION}",
    "projection_l1_ball": f"jaxreg.L1Ball(radius){_PROJECTION}",
    "projection_l2_ball": f"jaxreg.L2Ball(radius){_PROJECTION}",
    "projection_non_negative": f"jaxreg.NonNegative(){_PROJECTION}",
    "projection_simplex": f"jaxreg.Simplex(total){_PROJECTION}",
    "prox_elastic_net": f"{_ELASTIC_NET}.prox(params, step)",
    "prox_lasso": "jaxreg.L1(strength).prox(params, step)",
    "prox_non_negative_lasso": (
        "jaxreg.nonnegative(jaxreg.L1(strength)).prox(params, step)"
    ),
    "prox_ridge": "jaxreg.L2(strength / 2).prox(params, step)",
    "ridge": "jaxreg.L2(strength / 2)",
    "weight_decay": _DECAY,
}
"""The call that does what the name of another library does."""


def __getattr__(name: str) -> NoReturn:
    """Raises for a name that jaxreg does not have; for `jaxreg/__init__.py`."""
    if name in CALLS:
        raise AttributeError(f"jaxreg has no {name!r}; {CALLS[name]} does it")
    raise AttributeError(f"module 'jaxreg' has no attribute {name!r}")
