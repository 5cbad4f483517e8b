"""Advice for users that follows from the results: questions, answers, evidence.

An answer names the experiments it rests on, with the first words of their verdicts. If
a run comes out otherwise, the report marks the answer and a test of the committed
results fails. The numbers are on the pages of the experiments.
"""

import dataclasses
from collections.abc import Mapping

SECTIONS = {
    "What L1 and L2 do": (
        "exact_zeros",
        "normalization",
        "keras_regularizer",
        "feature_selection",
        "neural_feature_selection",
        "gene_expression",
        "feature_noise",
        "outliers",
        "stability",
        "generalization",
        "decay",
    ),
    "Size, cost and strength": (
        "smaller_models",
        "language_model",
        "sparsity_targets",
        "base_strengths",
        "choosing_strength",
        "warm_starts",
        "cost",
        "step_cost",
        "step_bandwidth",
        "leaves",
        "prox_cost",
        "scale",
    ),
    "Does it solve what it says?": (
        "lasso",
        "ways",
        "support_recovery",
        "blind_spots",
        "gallery",
    ),
}
OTHERS = "Further experiments"


@dataclasses.dataclass(frozen=True)
class Answer:
    """`rests_on` maps experiments to how their verdicts begin; Markdown's backticks."""

    question: str
    text: str
    rests_on: Mapping[str, str]


CONDITIONS = "holds with conditions"

ANSWERS = (
    Answer(
        "When should I use L1?",
        """
        When weights are to be exactly zero: to keep few features of a linear
        model, or few weights of a network, and when you believe that few of
        them matter. Apply it with `jaxreg.regularize`: the same L1 in the loss,
        as in Keras, leaves no zero. Zeros may cost more than a point of test
        accuracy: choose the strength on validation data. Do not use
        it to keep the chosen set steady among features that resemble each
        other (take `ElasticNet`), nor against wrong answers in the data: it is
        a Huber or absolute loss that helps there.
        """,
        {
            "exact_zeros": "false",
            "keras_regularizer": CONDITIONS,
            "feature_selection": CONDITIONS,
            "feature_noise": CONDITIONS,
            "stability": CONDITIONS,
            "outliers": "false",
        },
    ),
    Answer(
        "When should I use L2?",
        """
        When every feature matters a little, when features resemble each other,
        when there are few samples or wrong labels, and when a fit must not
        depend on single samples. It makes no zeros. Under Adam, L2 in the loss
        and decoupled decay are different problems with different best
        strengths: choose one, tune that one.
        """,
        {"generalization": CONDITIONS, "stability": CONDITIONS, "decay": CONDITIONS},
    ),
    Answer(
        "When should I use group penalties?",
        """
        When what you want to be rid of is a unit: an input feature, a neuron,
        a filter, a head. Dead units can be cut out, and the smaller network
        runs in the same dense code, faster where the cut layers took the time.
        Scattered zeros save more bytes at the same accuracy; they save time
        only with sparse kernels and very few weights left. Penalise the other
        kernels as well, or they grow. MCP on groups (`input_features(MCP(...))`)
        does not shrink what stays, and chose better than `GroupLasso` on the
        data sets measured here.
        """,
        {
            "neural_feature_selection": "holds",
            "smaller_models": CONDITIONS,
            "exact_zeros": "false",
        },
    ),
    Answer(
        "Which way of applying a penalty?",
        """
        `regularize(optimizer, penalty)` unless you have a reason: any
        optimizer, exact zeros that stay, one copy of the weights in memory.
        `prox_sgd` and `prox_adam` solve the same problem without the copy, but
        their zeros come and go with noisy gradients. `shrink` is the sparse
        sibling of AdamW's decay and solves another problem. Know how many
        weights or neurons may stay? `target_sparsity`, then train on under
        `hold_support`, which removes the bias.
        """,
        {
            "lasso": "holds",
            "ways": CONDITIONS,
            "support_recovery": CONDITIONS,
            "sparsity_targets": CONDITIONS,
            "smaller_models": CONDITIONS,
        },
    ),
    Answer(
        "How do I pick the strength?",
        """
        Begin at `max_strength`, where all is zero, and go down a grid
        (`strength_grid`, `sweep`), judged on validation data; take the best, or
        the strongest within one standard error of it. The best for prediction
        keeps too many features: where the set matters take EBIC of refits, or
        `stability_selection`, which keeps hardly any wrongly and misses more.
        Where a size is given, `target_sparsity` finds the strength in one run.
        """,
        {
            "choosing_strength": CONDITIONS,
            "sparsity_targets": CONDITIONS,
            "generalization": CONDITIONS,
        },
    ),
    Answer(
        "What does it cost?",
        """
        A prox of single weights costs no more than weight decay, on a CPU and
        on a GPU, where it runs at the speed of memory; groups cost up to a few
        times the update, which is itself a small part of a training step. What
        is slow is the subgradient of L1, which needs a thousand times the
        iterations. Tracing and compiling take up to a few times as long as for
        the optimizer alone, with a sparsity target many times, and grow with
        the number of leaves as the optimizer's do.
        """,
        {
            "cost": CONDITIONS,
            "step_cost": "measured",
            "step_bandwidth": "holds",
            "leaves": CONDITIONS,
            "scale": "measured",
        },
    ),
    Answer(
        "What can go wrong without a message?",
        """
        Decay, clipping or averages outside the transformation, which it cannot
        see.
        """,
        {"blind_spots": "measured"},
    ),
)
