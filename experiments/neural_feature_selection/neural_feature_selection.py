"""Which inputs does a network need? Group penalties against LassoNet and baselines.

Question: A network is to use k of its inputs: 50 pixels of MNIST and Fashion-MNIST, 10
pixels of scikit-learn's digits, 10 proteins of Mice Protein on mice it has not seen.
They are chosen by a group penalty on the rows of the first kernel (group lasso and
group MCP, with `jaxreg.target_sparsity`), by the hierarchy of LassoNet
(`jaxreg.Hierarchical`), by the importance of a forest, by variance or at random. How
well do a new network and a forest do on them, without a penalty? Mice Protein is also
run as it is published, 50 proteins and the rows of a mouse on both sides.

Claim: L1 does feature selection (in networks: the group lasso on their inputs).

Expected: group MCP at least .92 on MNIST with both learners and .82 on Fashion-MNIST,
the group lasso about .895 on MNIST, as the importance of a forest. LassoNet's published
figures are .873 and .892 on MNIST, .800 and .794 on Fashion-MNIST (network, forest),
with another split and another network. 50 of 77 proteins do not discriminate.

Cost: about 12 minutes on 2 cores; needs mnist/, fashion-mnist/ and mice-protein/ in
JAXREG_DATA.

Command: python -m experiments neural_feature_selection
"""

from __future__ import annotations

import dataclasses

import matplotlib.axes
import matplotlib.figure
import numpy as np

from experiments.harness.contract import Row
from experiments.kit import stats
from experiments.neural_feature_selection import _features
from experiments.neural_feature_selection import _input_selection as selection

PUBLISHED = {
    _features.MNIST: {"network": 0.873, "forest": 0.892},
    _features.FASHION: {"network": 0.800, "forest": 0.794},
    _features.MICE_ROWS: {"network": 0.958, "forest": 0.997},
}
_SIDES = {_features.MNIST: 28, _features.FASHION: 28, _features.DIGITS: 8}


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of the networks that choose and of the one that is fitted anew.

    `strength` of both group penalties is steered by `target_sparsity` until `landing`
    of the steps, with Adam to `peak`; `knot` is in units of a weight at the start. The
    hierarchy follows a path of strengths with SGD and momentum. A split of the mice has
    15 for testing, so there are `mice_seeds` of them. With `tune` a fifth of
    the training part takes the place of the test part: so the settings were chosen.
    """

    datasets: tuple[str, ...] = tuple(_features.KEPT)
    methods: tuple[str, ...] = selection.METHODS
    seeds: int = 5
    mice_seeds: int = 20
    tune: bool = False
    hidden: int = 100
    steps: int = 3000
    batch: int = 128
    warmup: int = 100
    peak: float = 1e-2
    strength: float = 3e-3
    knot: float = 3.0
    landing: float = 0.8
    bound: float = 10.0
    path: tuple[float, float] = (0.03, 30.0)
    path_rate: float = 0.03


QUICK = Config(
    datasets=(_features.DIGITS,),
    methods=selection.METHODS[1:],
    seeds=1,
    steps=200,
    warmup=20,
)


def folders(config: Config) -> tuple[str, ...]:
    """What `REQUIRES` is: digits come with scikit-learn."""
    return _features.folders(config.datasets)


REQUIRES = folders


def cells(config: Config) -> list[Row]:
    """One cell per data set, seed and method."""
    return [
        {"data": name, "method": method, "seed": seed}
        for name in config.datasets
        for seed in range(config.mice_seeds if name == _features.MICE else config.seeds)
        for method in config.methods
    ]


def measure(config: Config, data: str, method: str, seed: int) -> Row:
    """Chooses inputs on the training part, fits both learners, tests each once."""
    x, y, test_x, test_y = _features.draw(data, seed, config.tune)
    kept = _features.KEPT[data]
    chosen = selection.chosen(settings_of(config), method, x, y, kept, seed)
    x, test_x = x[:, chosen], test_x[:, chosen]
    sizes = (len(chosen), config.hidden, int(y.max()) + 1)
    network = selection.refitted(
        sizes, config.steps, config.batch, config.warmup, x, y, test_x, test_y, seed
    )
    return {
        "network": float(network),
        "forest": float(selection.trees(seed).fit(x, y).score(test_x, test_y)),
        "inputs": len(chosen),
        "chosen": [] if method == selection.ALL else chosen.tolist(),
    }


def settings_of(config: Config) -> selection.Settings:
    """The part of the config that the networks that choose need."""
    fields = selection.Settings._fields
    return selection.Settings(*(getattr(config, name) for name in fields))


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Mean and standard error over seeds; LassoNet's published figures beside ours."""
    table = stats.over_seeds(rows, ("data", "method", "inputs"), ("network", "forest"))
    for row in table:
        is_lassonet = row["method"] == selection.HIERARCHY
        published = PUBLISHED.get(row["data"], {}) if is_lassonet else {}
        for learner in ("network", "forest"):
            row[f"published_{learner}"] = published.get(learner)
    return table


def verdict(config: Config, rows: list[Row]) -> str:
    """Where the group penalties beat every baseline, and the mean accuracies.

    A gain counts from twice its standard error over the seeds on.
    """
    table = {(row["data"], row["method"]): row for row in summarise(config, rows)}
    names = [name for name in config.datasets if name != _features.MICE_ROWS]

    def both(name: str, method: str) -> float:
        return (table[name, method]["network"] + table[name, method]["forest"]) / 2

    groups, baselines = (selection.MCP, selection.LASSO), selection.BASELINES
    wins = {
        method: [
            name
            for name in names
            if all(_is_better(rows, name, method, other) for other in baselines)
        ]
        for method in groups
    }
    count = sum(map(len, wins.values()))
    is_whole = count == len(groups) * len(names)
    word = "holds" if is_whole else "holds with conditions" if count else "false"
    lines = []
    for name in names:
        best = max(baselines, key=lambda other: both(name, other))
        methods = (*groups, selection.HIERARCHY, best)
        shares = ", ".join(f"{100 * both(name, method):.1f}" for method in methods)
        lines.append(f"{name} {shares}")
    told = "; ".join(
        f"{way} on {'all' if won == names else ', '.join(won) or 'none'}"
        for way, won in wins.items()
    )
    return (
        f"{word}: test accuracy in % on the chosen inputs (mean of two learners; group "
        f"MCP, group lasso, LassoNet's hierarchy, best baseline): {'; '.join(lines)}. "
        f"Clearly better than every baseline: {told}."
    )


def _is_better(rows: list[Row], name: str, method: str, other: str) -> bool:
    """Whether the mean gain over the seeds is above twice its standard error."""
    one, two = (
        {
            row["seed"]: (row["network"] + row["forest"]) / 2
            for row in rows
            if (row["data"], row["method"]) == (name, way)
        }
        for way in (method, other)
    )
    gains = [one[seed] - two[seed] for seed in one]
    error = stats.standard_error(gains) if len(gains) > 1 else 0.0
    return sum(gains) / len(gains) > 2 * error


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """How often each pixel is chosen, and the accuracies."""
    pictured = [name for name in config.datasets if name in _SIDES]
    figure = matplotlib.figure.Figure(
        figsize=(9, 3.2 + 2 * len(pictured)), layout="constrained"
    )
    heights = [2.0 * len(pictured), 3.2] if pictured else [1.0]
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
    if pictured:
        _show_pixels(parts[0, 0], pictured, rows)
    panels = parts[-1, 0].subplots(1, len(config.datasets), sharey=True, squeeze=False)
    for axes, name in zip(panels[0], config.datasets, strict=True):
        _show_accuracies(axes, config, [row for row in rows if row["data"] == name])
        axes.set_title(f"{name}, k = {_features.KEPT[name]}", fontsize=8)
    panels[0, 0].set_yticks(range(len(config.methods)), config.methods)
    panels[0, 0].invert_yaxis()
    title = "dotted: LassoNet\nas published"
    panels[0, -1].legend(title=title, title_fontsize=7, fontsize=7, loc="lower left")
    return figure


def _show_pixels(
    figure: matplotlib.figure.SubFigure, pictured: list[str], rows: list[Row]
) -> None:
    methods = (selection.TREES, selection.LASSO, selection.HIERARCHY, selection.MCP)
    grid = figure.subplots(len(pictured), len(methods), squeeze=False)
    for line, name in zip(grid, pictured, strict=True):
        for axes, method in zip(line, methods, strict=True):
            mine = [r for r in rows if (r["data"], r["method"]) == (name, method)]
            shares = np.zeros(_SIDES[name] ** 2)
            for row in mine:
                shares[row["chosen"]] += 1 / len(mine)
            square = shares.reshape(_SIDES[name], -1)
            image = axes.imshow(square, cmap="magma", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            if name == pictured[0]:
                axes.set_title(method, fontsize=9)
        line[0].set_ylabel(name, fontsize=9)
    figure.colorbar(image, ax=grid, label="share of seeds that choose the pixel")


def _show_accuracies(
    axes: matplotlib.axes.Axes, config: Config, rows: list[Row]
) -> None:
    """A point per seed, a bar at the mean, a dotted line at the published LassoNet."""
    means = stats.over_seeds(rows, ("data", "method"), ("network", "forest"))
    for shift, (learner, marker) in enumerate((("network", "o"), ("forest", "D"))):
        colour = f"C{shift}"
        for group, mark, size in ((rows, marker, 3), (means, "|", 12)):
            axes.plot(
                [100 * row[learner] for row in group],
                [config.methods.index(row["method"]) + 0.3 * shift for row in group],
                mark,
                color=colour,
                markersize=size,
                label=learner if group is rows else None,
            )
        if published := PUBLISHED.get(rows[0]["data"]):
            line = 100 * published[learner]
            axes.axvline(line, color=colour, linestyle=":", linewidth=1)
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("test accuracy, %", fontsize=8)
    axes.grid(axis="x", alpha=0.3)
