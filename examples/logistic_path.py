"""A logistic regression with L1, its strength chosen by cross-validation.

scikit-learn's model at the chosen strength has the same zeros: its `C` is one over
samples times strength, on standardised columns.

python examples/logistic_path.py
"""

import jax
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

import jaxreg
from jaxreg import model_selection as ms


def main():
    data = load_breast_cancer()
    x, y = data.data, data.target
    problem = jaxreg.solve.linear(x, y, family="binomial")
    path = ms.path(problem, jaxreg.L1(1.0), count=30, ratio=1e-2)
    print(path)
    folds = ms.fold_masks(jax.random.key(0), 5, len(y), labels=y)
    choice = ms.cross_validate(path, folds)
    print(choice)

    index = int(choice.one_standard_error)
    strength = float(path.strengths[index])
    ours = path.coefficients[index] * x.std(axis=0)
    theirs = LogisticRegression(
        C=1 / (len(y) * strength), l1_ratio=1.0, solver="saga", tol=1e-5, max_iter=5000
    ).fit((x - x.mean(axis=0)) / x.std(axis=0), y)
    for name, mine, other in zip(
        data.feature_names, ours, theirs.coef_[0], strict=True
    ):
        if mine or other:
            print(f"{name:24} {mine:7.3f}  scikit-learn {other:7.3f}")
    return np.asarray(ours), theirs.coef_[0]


if __name__ == "__main__":
    main()
