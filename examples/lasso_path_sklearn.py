"""A lasso by jaxreg as a scikit-learn estimator: cross_val_score and GridSearchCV.

python examples/lasso_path_sklearn.py
"""

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.validation import check_is_fitted, validate_data

import jaxreg


class Lasso(RegressorMixin, BaseEstimator):
    """Least squares with `L1(strength)` on standardised columns, and an intercept."""

    def __init__(self, strength=1.0, tolerance=1e-4):
        self.strength = strength
        self.tolerance = tolerance

    def fit(self, X, y, sample_weight=None):
        X, y = validate_data(self, X, y, dtype=float, y_numeric=True)
        problem = jaxreg.solve.linear(X, y, sample_weight=sample_weight)
        penalty = jaxreg.L1(self.strength)
        fit = jaxreg.minimise(problem, penalty, tolerance=self.tolerance)
        self.coef_ = np.asarray(fit.params["coefficients"])
        self.intercept_ = float(fit.params["intercept"])
        self.n_iter_ = int(fit.steps)
        return self

    def predict(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, dtype=float, reset=False)
        return X @ self.coef_ + self.intercept_


def main():
    x, y = load_diabetes(return_X_y=True)
    scores = cross_val_score(Lasso(1.0), x, y)
    print(f"R2 of 5 folds at strength 1: {scores.mean():.3f}")
    search = GridSearchCV(Lasso(), {"strength": np.geomspace(10, 0.1, 5)}).fit(x, y)
    strength, model = search.best_params_["strength"], search.best_estimator_
    print(f"best strength {strength:.3f}, {(model.coef_ != 0).sum()} features")


if __name__ == "__main__":
    main()
