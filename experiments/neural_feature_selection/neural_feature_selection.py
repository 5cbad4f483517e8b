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

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.axes
import matplotlib.figure
import numpy as np
import optax
from sklearn import ensemble, model_selection

import jaxreg
from experiments.harness.contract import Row
from experiments.kit import data_sets, networks, plotting, stats, training

MNIST, FASHION, DIGITS = "mnist", "fashion-mnist", "digits"
MICE, MICE_ROWS = "mice-protein", "mice-protein-rows"
KEPT = {MNIST: 50, FASHION: 50, MICE: 10, MICE_ROWS: 50, DIGITS: 10}
_DRAWN = 10_000
_HELD_OUT = 0.2

ALL, RANDOM, VARIANCE, TREES = "all inputs", "random", "variance", "tree importance"
LASSO, MCP, HIERARCHY = "group lasso", "group MCP", "hierarchy"
BASELINES = (RANDOM, VARIANCE, TREES)
METHODS = (ALL, *BASELINES, LASSO, HIERARCHY, MCP)

PUBLISHED = {
    MNIST: {"network": 0.873, "forest": 0.892},
    FASHION: {"network": 0.800, "forest": 0.794},
    MICE_ROWS: {"network": 0.958, "forest": 0.997},
}
_SIDES = {MNIST: 28, FASHION: 28, DIGITS: 8}


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of the networks that choose inputs, and of the one refitted on them.

    `strength` of both group penalties is steered by `target_sparsity` until `landing`
    of the steps, with Adam to `peak`; `knot` is in units of a weight at the start. The
    hierarchy follows a path of strengths with SGD and momentum. A split of the mice has
    15 for testing, so there are `mice_seeds` of them. The settings were chosen with
    `tune`: a fifth of the training part takes the place of the test part.
    """

    datasets: tuple[str, ...] = tuple(KEPT)
    methods: tuple[str, ...] = METHODS
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


QUICK = Config(datasets=(DIGITS,), methods=METHODS[1:], seeds=1, steps=200, warmup=20)


def folders(config: Config) -> tuple[str, ...]:
    """The folders in JAXREG_DATA that the data sets are read from; digits need none."""
    names = (name.removesuffix("-rows") for name in config.datasets if name != DIGITS)
    return tuple(dict.fromkeys(names))


REQUIRES = folders


def cells(config: Config) -> list[Row]:
    """One cell per data set, seed and method."""
    return [
        {"data": name, "method": method, "seed": seed}
        for name in config.datasets
        for seed in range(config.mice_seeds if name == MICE else config.seeds)
        for method in config.methods
    ]


def measure(config: Config, data: str, method: str, seed: int) -> Row:
    """Chooses inputs on the training part, fits both learners, tests each once."""
    x, y, test_x, test_y = draw(data, seed, config.tune)
    chosen = choose(config, method, x, y, KEPT[data], seed)
    split = data_sets.Split(x[:, chosen], y, test_x[:, chosen], test_y)
    forest = trees(seed).fit(*split[:2])
    return {
        "network": float(_refitted_accuracy(config, int(y.max()) + 1, split, seed)),
        "forest": float(forest.score(*split[2:])),
        "inputs": len(chosen),
        "chosen": [] if method == ALL else chosen.tolist(),
    }


class _Rows(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    # Rows of one group stay on one side.
    group: np.ndarray

    def take(self, chosen: np.ndarray) -> "_Rows":
        return _Rows(*(column[chosen] for column in self))


@functools.lru_cache(maxsize=1)
def draw(name: str, seed: int, tune: bool) -> data_sets.Split:
    """A training and a test part, by seed.

    Images: 10,000 and 10,000 drawn from all 70,000. Mice: a fifth of the mice of each
    class for testing, or of all rows where they are mixed; missing levels get the mean
    of the training part, whose range becomes [0, 1]. With `tune` a fifth of the
    training part takes the place of the test part, which stays unread.
    """
    train, test = _parts(name, seed)
    if tune:
        train, test = _parts_of_groups(train, seed)
    x, test_x = train.x, test.x
    if name in (MICE, MICE_ROWS):
        x, test_x = _filled(x, test_x)
    return data_sets.Split(x, train.y, test_x, test.y)


def _parts(name: str, seed: int) -> tuple[_Rows, _Rows]:
    if name == DIGITS:
        split = data_sets.digits(seed)
        return _ungrouped(split.train_x, split.train_y), _ungrouped(*split[2:])
    if name in (MICE, MICE_ROWS):
        levels, classes, mouse = data_sets.mice_protein()
        whole = _Rows(levels, classes, mouse)
        return _parts_of_groups(
            whole if name == MICE else _ungrouped(levels, classes), seed
        )
    whole = _images(name)
    order = np.random.default_rng(seed).permutation(len(whole.y))
    return whole.take(order[:_DRAWN]), whole.take(order[_DRAWN : 2 * _DRAWN])


@functools.lru_cache(maxsize=1)
def _images(name: str) -> _Rows:
    train_x, train_y, test_x, test_y = data_sets.images(name)
    return _ungrouped(
        np.concatenate([train_x, test_x]), np.concatenate([train_y, test_y])
    )


def _ungrouped(x: np.ndarray, y: np.ndarray) -> _Rows:
    return _Rows(x, y, np.arange(len(y)))


def _parts_of_groups(rows: _Rows, seed: int) -> tuple[_Rows, _Rows]:
    """Parts of whole groups; the second has a fifth of those of each class."""
    groups, first = np.unique(rows.group, return_index=True)
    _, held_out = model_selection.train_test_split(
        groups, test_size=_HELD_OUT, stratify=rows.y[first], random_state=seed
    )
    is_held = np.isin(rows.group, held_out)
    return rows.take(~is_held), rows.take(is_held)


def _filled(x: np.ndarray, test_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both parts with gaps filled and ranges set by `x`."""
    means, low, high = np.nanmean(x, 0), np.nanmin(x, 0), np.nanmax(x, 0)
    x, test_x = (
        (np.where(np.isnan(part), means, part) - low) / (high - low)
        for part in (x, test_x)
    )
    return x, test_x


def choose(
    config: Config, method: str, x: np.ndarray, y: np.ndarray, k: int, seed: int
) -> np.ndarray:
    """The indices of the k inputs that a method chooses, in rising order.

    Equal scores go to the first; these fill up where a group penalty leaves fewer.
    """
    classes = int(y.max()) + 1
    if method == ALL:
        return np.arange(x.shape[1])
    if method == RANDOM:
        scores = np.random.default_rng(seed).permutation(x.shape[1])
    elif method == VARIANCE:
        scores = x.var(axis=0)
    elif method == TREES:
        scores = trees(seed).fit(x, y).feature_importances_
    elif method == HIERARCHY:
        scores = np.asarray(_survival(config, classes, x, y, seed))
    else:
        scores = np.asarray(_row_norms(config, method, k, classes, x, y, seed))
    return np.sort(np.argsort(-scores, kind="stable")[:k])


def trees(seed: int) -> Any:
    """The forest of the LassoNet paper: 50 extremely randomised trees."""
    return ensemble.ExtraTreesClassifier(50, random_state=seed)


@functools.partial(jax.jit, static_argnames=("config", "method", "k", "classes"))
def _row_norms(
    config: Config, method: str, k: int, classes: int, x: Any, y: Any, seed: Any
) -> jax.Array:
    """The norm of the weights of each input; at most k are not 0.

    The dead zone and the knot are in units of the root mean square of the weights at
    the start.
    """
    inputs, unit = x.shape[1], x.shape[1] ** -0.5
    key, batch_key = jax.random.split(jax.random.key(seed))
    params, apply = networks.init_mlp((inputs, config.hidden, classes), key)
    rate = training.warmup_cosine(config.peak, config.steps, config.warmup)
    size = (
        jaxreg.L1(config.strength)
        if method == LASSO
        else jaxreg.MCP(config.strength, config.knot * unit)
    )
    tx = jaxreg.target_sparsity(
        optax.adam(rate),
        jaxreg.input_features(size, "^layers/0$"),
        1 - k / inputs,
        round(config.landing * config.steps),
        width=unit,
    )
    params = training.fit(
        training.cross_entropy(apply), tx, params, (x, y), config, batch_key
    )
    return jnp.linalg.norm(params["layers"][0]["kernel"][...], axis=1)


@functools.partial(jax.jit, static_argnames=("config", "classes"))
def _survival(config: Config, classes: int, x: Any, y: Any, seed: Any) -> jax.Array:
    """The step of LassoNet's path of strengths up to which each input stays.

    Inputs alive at its end are ordered by the norm of their skip weights.
    """
    keys = jax.random.split(jax.random.key(seed), 3)
    inputs = x.shape[1]
    mlp, without = networks.init_mlp((inputs, config.hidden, classes), keys[0])
    skip = jax.random.normal(keys[1], (inputs, classes)) * inputs**-0.5
    params = {"mlp": mlp, "skip": {"kernel": skip}}

    def apply(params: Any, x: Any) -> jax.Array:
        return without(params["mlp"], x) + x @ params["skip"]["kernel"]

    weakest, strongest = config.path
    pair = jaxreg.Hierarchical(weakest, config.bound, skip=1)
    rules = jaxreg.by_path([(r"^(mlp/layers/0|skip)/kernel$", pair)])
    path = optax.exponential_decay(1.0, config.steps, strongest / weakest)
    tx = jaxreg.prox_sgd(config.path_rate, rules, momentum=0.9, schedule=path)
    params, (_, last) = training.fit_with_state(
        training.cross_entropy(apply),
        optax.chain(tx, _last_alive()),
        params,
        (x, y),
        config,
        keys[2],
    )
    norms = _skip_norms(params)
    # Less than one step orders the inputs that are left at the end.
    return last.step + 0.5 * norms / jnp.maximum(jnp.max(norms), 1.0)


class _LastAlive(NamedTuple):
    now: jax.Array
    step: jax.Array


def _last_alive() -> optax.GradientTransformation:
    """Records the last step at which the skip weights of each input were not all 0."""

    def init(params: Any) -> _LastAlive:
        return _LastAlive(jnp.zeros(()), jnp.zeros_like(_skip_norms(params)))

    def update(updates: Any, state: _LastAlive, params: Any) -> tuple[Any, _LastAlive]:
        now = state.now + 1
        is_alive = _skip_norms(optax.apply_updates(params, updates)) > 0
        return updates, _LastAlive(now, jnp.where(is_alive, now, state.step))

    return optax.GradientTransformation(init, update)


def _skip_norms(params: Any) -> jax.Array:
    return jnp.linalg.norm(params["skip"]["kernel"], axis=1)


@functools.partial(jax.jit, static_argnames=("config", "classes"))
def _refitted_accuracy(
    config: Config, classes: int, split: data_sets.Split, seed: Any
) -> jax.Array:
    """The test accuracy of a fresh network on these inputs, without a penalty."""
    key, batch_key = jax.random.split(jax.random.key(seed))
    sizes = (split.train_x.shape[1], config.hidden, classes)
    params, apply = networks.init_mlp(sizes, key)
    rate = training.warmup_cosine(3e-3, config.steps, config.warmup)
    params = training.fit(
        training.cross_entropy(apply),
        optax.adamw(rate, weight_decay=1e-2),
        params,
        split[:2],
        config,
        batch_key,
    )
    return training.accuracy(apply, params, *split[2:])


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Mean and standard error over seeds; LassoNet's published figures beside ours."""
    table = stats.over_seeds(rows, ("data", "method", "inputs"), ("network", "forest"))
    for row in table:
        is_lassonet = row["method"] == HIERARCHY
        published = PUBLISHED.get(row["data"], {}) if is_lassonet else {}
        for learner in ("network", "forest"):
            row[f"published_{learner}"] = published.get(learner)
    return table


def verdict(config: Config, rows: list[Row]) -> str:
    """The data where group penalties beat every baseline, and the mean accuracies.

    A gain counts if it exceeds twice its standard error over the seeds.
    """
    table = {(row["data"], row["method"]): row for row in summarise(config, rows)}
    names = [name for name in config.datasets if name != MICE_ROWS]

    def both(name: str, method: str) -> float:
        return (table[name, method]["network"] + table[name, method]["forest"]) / 2

    groups, baselines = (MCP, LASSO), BASELINES
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
        methods = (*groups, HIERARCHY, best)
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
    """True if the mean gain over the seeds is above twice its standard error."""
    ours, theirs = (
        {
            row["seed"]: (row["network"] + row["forest"]) / 2
            for row in stats.select(rows, data=name, method=way)
        }
        for way in (method, other)
    )
    gains = [ours[seed] - theirs[seed] for seed in ours]
    error = stats.standard_error(gains) if len(gains) > 1 else 0.0
    return sum(gains) / len(gains) > 2 * error


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """The share of seeds that choose each pixel, and the accuracies."""
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
        _show_accuracies(axes, config, stats.select(rows, data=name))
        axes.set_title(f"{name}, k = {KEPT[name]}", fontsize=8)
    plotting.name_lines(panels[0, 0], config.methods)
    title = "dotted: LassoNet\nas published"
    panels[0, -1].legend(title=title, title_fontsize=7, fontsize=7, loc="lower left")
    return figure


def _show_pixels(
    figure: matplotlib.figure.SubFigure, pictured: list[str], rows: list[Row]
) -> None:
    methods = (TREES, LASSO, HIERARCHY, MCP)
    grid = figure.subplots(len(pictured), len(methods), squeeze=False)
    for line, name in zip(grid, pictured, strict=True):
        for axes, method in zip(line, methods, strict=True):
            mine = stats.select(rows, data=name, method=method)
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
    for shift, (learner, marker) in enumerate((("network", "o"), ("forest", "D"))):
        colour = f"C{shift}"
        plotting.seeds_and_means(
            axes,
            config.methods,
            [(row["method"], 100 * row[learner]) for row in rows],
            label=learner,
            color=colour,
            marker=marker,
            shift=-0.3 * shift,
        )
        if published := PUBLISHED.get(rows[0]["data"]):
            line = 100 * published[learner]
            axes.axvline(line, color=colour, linestyle=":", linewidth=1)
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("test accuracy, %", fontsize=8)
    axes.grid(axis="x", alpha=0.3)
