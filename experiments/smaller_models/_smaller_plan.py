"""What `smaller_models` trains and times."""

from __future__ import annotations

import dataclasses

from experiments.smaller_models._lenet import FIXED, LENET_5, LENET_300, TARGET

TEST, VALIDATION, INFERENCE = "test", "validation", "inference"


@dataclasses.dataclass(frozen=True)
class Config:
    """Runs of three lengths, the long one with its settings from the validation.

    `times_fewer` are the targets of the long run in weights; `neuron_targets` those of
    short runs in dead neurons or filters. A short run has one seed.
    """

    data: tuple[str, ...] = ("mnist", "fashion-mnist")
    times_fewer: tuple[float, ...] = (54.0, 100.0)
    seeds: int = 5
    first_seed: int = 10
    validation_seeds: int = 2
    steps: int = 22_000
    refit_steps: int = 6000
    peak: float = 3e-3
    landing: float = 0.85
    other_peaks: tuple[float, ...] = (1e-2,)
    other_landings: tuple[float, ...] = (1.0,)
    begin: float = 0.2
    refit_decay: float = 0.1
    base: float = 3e-5
    neuron_base: float = 1e-5
    dense_steps: int = 12_000
    dense_peak: float = 1e-3
    short_steps: int = 9000
    short_refit_steps: int = 2000
    short_peak: float = 1e-2
    l1_strengths: tuple[float, ...] = (3e-5, 1e-4, 4e-4)
    mcp_strengths: tuple[float, ...] = (1e-4, 3e-4)
    mcp_targets: bool = True
    mcp_knot: float = 1.0
    neuron_strengths: tuple[float, ...] = (3e-5, 1e-4)
    neuron_targets: tuple[float, ...] = (0.8, 0.9)
    lenet_5_steps: int = 1500
    lenet_5_refit_steps: int = 500
    lenet_5_peak: float = 3e-3
    batches: tuple[int, ...] = (1, 256)
    rounds: int = 41


@dataclasses.dataclass(frozen=True)
class Plan:
    """A cell: one network; with `batch` it is timed, else its accuracy is measured."""

    recipe: str
    way: str
    by: str
    setting: float
    peak: float
    landing: float
    part: str = TEST
    data: str = "mnist"
    model: str = LENET_300
    seed: int = 0
    batch: int = 0


def plans(config: Config) -> list[Plan]:
    """The networks to train, then those to time."""
    trained = [*_long(config), *_validation(config), *_short(config)]
    if config.lenet_5_steps:
        trained += _lenet_5(config)
    timed = [
        dataclasses.replace(plan, part=INFERENCE, batch=batch)
        for plan in trained
        for batch in config.batches
        if (plan.recipe, plan.by) == ("short", TARGET)
        and plan.setting in (*_targets(config)[:1], *config.neuron_targets[:1])
        and plan.way != "MCP"
    ]
    return trained + timed


def _targets(config: Config) -> list[float]:
    return [1 - 1 / times for times in config.times_fewer]


def _validation(config: Config) -> list[Plan]:
    pairs = [
        (config.peak, config.landing),
        *((peak, config.landing) for peak in config.other_peaks),
        *((config.peak, landing) for landing in config.other_landings),
    ]
    target = _targets(config)[0]
    return [
        Plan("long", "L1", TARGET, target, peak, landing, part=VALIDATION, seed=seed)
        for peak, landing in pairs
        for seed in range(config.validation_seeds)
    ]


def _long(config: Config) -> list[Plan]:
    plans = [("long", TARGET, target, config.peak) for target in _targets(config)]
    plans.append(("dense", FIXED, 0.0, config.dense_peak))
    return [
        Plan(recipe, "L1", by, setting, peak, config.landing, data=data, seed=seed)
        for data in config.data
        for recipe, by, setting, peak in plans
        for seed in range(config.first_seed, config.first_seed + config.seeds)
    ]


def _short(config: Config) -> list[Plan]:
    plans = [
        ("L1", FIXED, config.l1_strengths),
        ("MCP", FIXED, config.mcp_strengths),
        ("neurons", FIXED, config.neuron_strengths),
        ("L1", TARGET, _targets(config)),
        ("MCP", TARGET, _targets(config) if config.mcp_targets else ()),
        ("neurons", TARGET, config.neuron_targets),
    ]
    return [
        Plan("short", way, by, setting, config.short_peak, config.landing)
        for way, by, settings in plans
        for setting in settings
    ]


def _lenet_5(config: Config) -> list[Plan]:
    plans = [("dense", "L1", FIXED, 0.0)]
    plans += [("short", "L1", TARGET, target) for target in _targets(config)]
    plans += [("short", "neurons", TARGET, to) for to in config.neuron_targets[:1]]
    last = config.lenet_5_peak, config.landing
    return [Plan(*plan, *last, model=LENET_5) for plan in plans]
