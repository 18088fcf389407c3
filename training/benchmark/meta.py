"""Inner steps per second of whole meta-gradients, and compile times."""

import concurrent.futures
import os
import statistics
import time
from typing import NamedTuple

import tensorflow as tf
from tqdm import tqdm

import problems
from training.common.tables import table
from training.engine.compiled import keep_graphs_as_traced
from training.engine.config import MetaConfig
from training.engine.meta_step import MetaStep
from training.rules.hierarchical import Hierarchical

# Required speed: family, instances, steps per second on one core.
TARGETS = (("quadratic_20", 32, 90_000), ("rosenbrock", 128, 400_000))
SEGMENTS = 5  # per measured unroll: the mean of section 4.4


class Speed(NamedTuple):
    """Speed of one family."""

    dimension: int
    instances: int
    compile_s: float
    steps_per_s: float  # instances x steps of an unroll, with its gradient
    unroll_ms: float  # a whole meta-iteration


class Measured:
    """A meta-step and its arguments."""

    def __init__(self, family, count: int, config: MetaConfig):
        rule = Hierarchical()
        self.step = MetaStep(rule, family, count, config)
        self.vector = tf.constant(rule.initial_meta(0))
        start = time.perf_counter()
        self.pool = self.step.sampler.draw(self.vector, 0, 10.0)
        self.step.warm_up(self.vector)
        self.compile_s = time.perf_counter() - start
        self.seed = 0

    def run(self) -> tuple[int, float]:
        """One meta-iteration; returns its inner steps and seconds."""
        self.seed += 1
        start = time.perf_counter()
        gradient, self.pool, statistics_ = self.step(
            self.vector, self.pool, self.seed, 10.0
        )
        gradient.numpy()
        seconds = time.perf_counter() - start
        steps = int(statistics_.segments) * self.step.config.segment
        return steps * self.step.count, seconds

    def measure(self, seconds: float) -> Speed:
        """Medians over about this many seconds."""
        self.run()
        rates, times, end = [], [], time.perf_counter() + seconds
        while not rates or time.perf_counter() < end:
            steps, took = self.run()
            rates.append(steps / took)
            times.append(took)
        return Speed(
            self.step.family.dimension,
            self.step.count,
            self.compile_s,
            statistics.median(rates),
            1e3 * statistics.fmean(times),
        )


def scaling(one: Measured, other: Measured, seconds: float) -> float:
    """Steps per second on two threads, relative to one."""
    if hasattr(os, "sched_setaffinity"):
        # So far the process, and each of its threads by itself, was limited to
        # as many cores as --threads says.
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), range(os.cpu_count()))

    def rate(measured, until):
        total = 0
        while time.perf_counter() < until:
            total += measured.run()[0]
        return total

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        ratios = []
        for _ in range(3):
            until = time.perf_counter() + seconds
            alone = rate(one, until)
            until = time.perf_counter() + seconds
            jobs = [executor.submit(rate, m, until) for m in (one, other)]
            ratios.append(sum(job.result() for job in jobs) / alone)
    return statistics.median(ratios)


def run(seconds: float, ensemble: str, only: str | None) -> dict:
    """Prints the table; returns the figures.

    Args:
        seconds: measuring time for each family.
        ensemble: name of the set.
        only: measure only families whose names contain this; None measures all.
    """
    keep_graphs_as_traced()
    config = MetaConfig(ensemble=ensemble, curriculum=1)
    cases = [
        (name, None, problems.get(name), count) for name, count, _ in TARGETS
    ] + [
        (row.name, row.weight, row.family,
         config.instances(row.family.dimension))
        for row in problems.meta_training_set(ensemble)
    ]  # fmt: skip
    cases = [case for case in cases if only is None or only in case[0]]
    if not cases:
        raise ValueError(
            f"Flag --only must be part of a family's name. Received: {only!r}"
        )
    rows, speeds, set_steps, set_time, set_compile = [], {}, 0.0, 0.0, 0.0
    for name, weight, family, count in tqdm(cases, unit="family"):
        speed = Measured(family, count, config).measure(seconds)
        label = name if weight is None else f"{ensemble}/{name}"
        speeds[label] = speed
        if weight is not None:
            set_time += weight * speed.unroll_ms / 1e3
            set_steps += weight * speed.steps_per_s * speed.unroll_ms / 1e3
            set_compile += speed.compile_s
        rows.append(
            [label, speed.dimension, speed.instances, f"{speed.compile_s:.1f}",
             f"{speed.unroll_ms:.0f}", f"{speed.steps_per_s:,.0f}"]
        )  # fmt: skip
    print(
        table(
            ["family", "parameters", "instances", "compile s", "unroll ms",
             "steps/s"],
            rows,
        )
    )  # fmt: skip
    figures = {
        "steps_per_s": {k: round(v.steps_per_s) for k, v in speeds.items()},
        "compile_s": round(set_compile, 1),
    }
    if set_time:
        figures["ensemble_steps_per_s"] = round(set_steps / set_time)
        print(
            f"\nSet {ensemble!r}: {figures['ensemble_steps_per_s']:,} steps/s, "
            f"compiled in {set_compile:.0f} s"
        )
    for name, _, target in TARGETS:
        if name in speeds:
            print(f"{name}: {speeds[name].steps_per_s:,.0f}, asked {target:,}")
    family, count = problems.get(TARGETS[0][0]), TARGETS[0][1]
    pair = [Measured(family, count, config) for _ in range(2)]
    figures["scaling_2_cores"] = round(scaling(*pair, seconds), 2)
    return figures
