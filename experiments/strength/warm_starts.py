"""Is a sweep faster from warm starts than with all fits at once, and as good?

Question: `jaxreg.model_selection.sweep` fits a grid of strengths on every fold: all at
once under `vmap`, or one strength after the other, each from the solution before it.
Which is faster, and is the model that cross-validation chooses as good?

Claim: lambda needs tuning.

Expected: from strong to weak, warm starts save linear models half of the time and give
the same solutions. A network trained for as many steps gains nothing; from strong to
weak it is ruined, since dead units do not return; from weak to strong a third of the
steps is enough.

Cost: about 6 minutes on 2 cores.

Command: python -m experiments warm_starts
"""

import contextlib
import dataclasses
import time

import jax
import matplotlib.figure

import jaxreg
from experiments.harness.contract import Row
from experiments.kit import plotting, stats
from experiments.strength import _sweeps, choosing_strength

SHORT = f"{_sweeps.UP}, a third of the steps"


@dataclasses.dataclass(frozen=True)
class Config(choosing_strength.Config):
    """The problems of choosing_strength; each way is timed several times in turn."""

    seeds: int = 5
    repeats: int = 10
    network_repeats: int = 2
    problems: tuple[str, ...] = _sweeps.PROBLEMS


QUICK = Config(
    **dataclasses.asdict(choosing_strength.QUICK),
    repeats=1,
    problems=(_sweeps.DIABETES,),
)


def cells(config: Config) -> list[Row]:
    """One cell per problem and split."""
    return [
        {"problem": problem, "seed": seed}
        for problem in config.problems
        for seed in range(config.seeds)
    ]


def measure(config: Config, problem: str, seed: int) -> Row:
    """Times each way in turn, and tests the model of the least validation error."""
    is_linear = problem in _sweeps.LINEAR
    short = dataclasses.replace(config, steps=config.steps // 3)
    configs = {way: config for way in (_sweeps.COLD, _sweeps.DOWN, _sweeps.UP)}
    if not is_linear:
        configs[SHORT] = short
    seconds: dict[str, list[float]] = {way: [] for way in configs}
    errors = {}
    with jax.enable_x64(True) if is_linear else contextlib.nullcontext():
        split, _ = _sweeps.load(config, problem, seed)
        masks = _sweeps.folds(config, problem, split, seed)
        strengths = _sweeps.grid(config, problem, split, seed)[:-1]
        repeats = config.repeats if is_linear else config.network_repeats
        # The first round compiles.
        for repeat in range(repeats + 1):
            for way, own in configs.items():
                order = _sweeps.UP if way == SHORT else way
                start = time.perf_counter()
                fits = _sweeps.sweep(own, problem, order, seed, split, strengths, masks)
                jax.block_until_ready(fits)
                if repeat:
                    seconds[way].append(time.perf_counter() - start)
                best = jaxreg.model_selection.validation_curve(
                    fits.validation[:, :-1]
                ).least
                errors[way] = float(fits.test[best, -1])
    # Other work on the machine can only add to a time.
    least = {way: min(taken) for way, taken in seconds.items()}
    return {
        "ways": list(configs),
        "times": [taken / least[_sweeps.COLD] for taken in least.values()],
        "errors": list(errors.values()),
    }


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Means over seeds: the time over that of all at once, and the test error."""
    flat = [
        {"problem": row["problem"], "way": way, "time": taken, "test_error": error}
        for row in rows
        for way, taken, error in zip(
            row["ways"], row["times"], row["errors"], strict=True
        )
    ]
    return stats.over_seeds(flat, ("problem", "way"), ("time", "test_error"))


def verdict(config: Config, rows: list[Row]) -> str:
    """The times of warm starts, and what they do to the network."""
    table = {(row["problem"], row["way"]): row for row in summarise(config, rows)}
    linear = [
        row["time"]
        for (problem, way), row in table.items()
        if problem in _sweeps.LINEAR and way == _sweeps.DOWN
    ]
    text = (
        "measured: from strong to weak, warm starts take linear models "
        f"{min(linear):.2g} to {max(linear):.2g} of the time of all at once"
    )
    network = {way: row for (name, way), row in table.items() if name == _sweeps.DIGITS}
    if not network:
        return f"{text}."
    cold, down, short = (network[way] for way in (_sweeps.COLD, _sweeps.DOWN, SHORT))
    return (
        f"{text}, and the network {down['time']:.2g}, with {down['test_error']:.3f} "
        f"wrong labels in place of {cold['test_error']:.3f}. From weak to strong, with "
        f"a third of the steps, it has {short['test_error']:.3f} in "
        f"{short['time']:.2g} of the time."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """The time of each way and the test error; a point per split, bars are means."""
    figure = matplotlib.figure.Figure(figsize=(10, 4.6), layout="constrained")
    ways = [_sweeps.COLD, _sweeps.DOWN, _sweeps.UP, SHORT]
    for axes, column in zip(
        figure.subplots(1, 2, sharey=True), ("times", "errors"), strict=True
    ):
        for index, problem in enumerate(config.problems):
            plotting.strip(
                axes,
                ways,
                [
                    pair
                    for row in stats.select(rows, problem=problem)
                    for pair in zip(row["ways"], row[column], strict=True)
                ],
                label=problem,
                color=f"C{index}",
                shift=0.16 * (1.5 - index),
            )
        axes.set_xscale("log")
        plotting.name_lines(axes, ways)
        axes.set_ylim(-0.6, len(ways) - 0.4)
    times = figure.axes[0]
    times.set_xlim(0.1, 5)
    times.set_xticks((0.1, 0.2, 0.5, 1, 2, 5), ("0.1", "0.2", "0.5", "1", "2", "5"))
    times.minorticks_off()
    times.set_xlabel("time, over that of all at once")
    figure.axes[1].set_xlabel("test error at the least validation error")
    times.legend(fontsize=8)
    return figure
