"""Time to draw problems and to compute their gradients."""

import dataclasses
import statistics
import time
from typing import NamedTuple

import tensorflow as tf
from tqdm import tqdm

import problems
from problems.classic import LogSumExp
from problems.convex import LogisticRegression, SoftmaxRegression
from problems.matrices import MatrixFactorization, MatrixInverse, MatrixProduct
from training.common.tables import table

# Steps in one compiled call. The call itself costs about 0.3 ms, which is
# 0.05 us for each of 64 instances and each step.
STEPS = 100

LIMIT_MS = 50.0  # for drawing 100 parameters, on one core
# Sizes that give families that are not vectors of `dim` about 100 parameters.
AT_100 = {
    LogSumExp: {"dim": 100, "terms": 200},
    LogisticRegression: {"dim": 99},
    SoftmaxRegression: {"dim": 19},
    MatrixFactorization: {"size": 17},
    MatrixProduct: {"size": 6},
    MatrixInverse: {"size": 10},
}


class Speed(NamedTuple):
    """Speed of one family."""

    dimension: int
    tensors: int
    draw_ms: float  # all instances
    compile_s: float  # first draw and first step
    us_per_instance: float  # loss and gradient in one step
    ns_per_param: float  # the same per parameter


def at_100(family: problems.Family) -> problems.Family:
    """The family with about 100 parameters, or as it is if it has no size."""
    if type(family) in AT_100:
        return dataclasses.replace(family, **AT_100[type(family)])
    if isinstance(family, problems.VectorFamily):
        return dataclasses.replace(family, dim=100)
    return family


def stepper(family: problems.Family):
    """A compiled function (data, seed) that takes `STEPS` steps.

    Each step draws its batch and computes loss and gradient. It then moves the
    parameters by a negligible amount; otherwise the compiler would compute all
    steps only once.
    """

    @tf.function(jit_compile=True)
    def steps(data, seed):
        def step(k, total, params):
            batch = family.batch(data, seed, k)
            loss, gradients = family.loss_and_gradient(data, params, batch)
            moved = tuple(
                p - 1e-6 * tf.clip_by_value(g, -1.0, 1.0)
                for p, g in zip(params, gradients, strict=True)
            )
            return k + 1, total + loss, moved

        start = family.start(data)
        zeros = tf.zeros(start[0].shape[:1])
        return tf.while_loop(
            lambda k, *_: k < STEPS, step, (tf.constant(0), zeros, start)
        )[1:]

    return steps


def _median(call, seconds: float) -> tuple:
    """Seconds of the first call, and the median of the later ones."""
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 6:
        start = time.perf_counter()
        call(len(times))
        tf.test.experimental.sync_devices()
        times.append(time.perf_counter() - start)
        if len(times) == 1:
            end = start + times[0] + seconds
    return times[0], statistics.median(times[1:])


def draw_speed(family, instances: int, seconds: float) -> tuple:
    """Milliseconds of the first draw and of later ones."""
    begin = time.perf_counter()
    draw = problems.drawer(family, instances)
    traced = time.perf_counter() - begin
    first, later = _median(draw, seconds)
    return 1e3 * (traced + first), 1e3 * later


def measure(family, instances: int, seconds: float) -> Speed:
    """The speed of one family, each figure measured for this many seconds."""
    first_ms, draw_ms = draw_speed(family, instances, seconds)
    data = problems.drawer(family, instances)(0)
    steps = stepper(family)
    first, later = _median(
        lambda k: steps(data, problems.draws.as_seed(k)), seconds
    )
    us = 1e6 * later / (STEPS * instances)
    return Speed(
        family.dimension,
        len(family.shapes),
        draw_ms,
        1e-3 * first_ms + first,
        us,
        1e3 * us / family.dimension,
    )


def _chosen(only: str | None) -> tuple:
    """Registered families, and rows of the sets, by name."""
    families = {name: problems.get(name) for name in problems.names()}
    rows = {
        row.name: row.family
        for name in problems.set_names()
        for row in problems.meta_training_set(name)
    }
    if only:
        families, rows = (
            {name: f for name, f in group.items() if only in name}
            for group in (families, rows)
        )
    if not families and not rows:
        raise ValueError(
            "Flag --only must be part of the name of a family or of a row. "
            f"Received: --only={only}"
        )
    return families, rows


def _print(title: str, speeds: dict):
    if not speeds:
        return
    print(f"\n{title}")
    print(
        table(
            ["name", "parameters", "tensors", "draw ms", "first calls s",
             "step us/instance", "ns/parameter"],
            [
                [name, s.dimension, s.tensors, f"{s.draw_ms:.2f}",
                 f"{s.compile_s:.1f}", f"{s.us_per_instance:.2f}",
                 f"{s.ns_per_param:.1f}"]
                for name, s in speeds.items()
            ],
        )
    )  # fmt: skip


def run(instances: int, seconds: float, only: str | None = None) -> dict:
    """Measures all families and rows; prints tables.

    Args:
        instances: number of instances drawn and updated at once.
        seconds: measuring time for each figure.
        only: measure only names that contain this.
    """
    families, rows = _chosen(only)
    # Networks, which are larger, are taken as they are; the plane is too small.
    sized = [at_100(family) for family in families.values()]
    large = {
        f"{family.name} at {family.dimension}": family
        for family in sized
        if family.dimension >= 100
    }
    figures = []
    total = len(families) + len(rows) + len(large)
    with tqdm(total=total, unit="family") as bar:
        for group in (families, rows):
            speeds = {}
            for name, family in group.items():
                bar.set_description(name)
                speeds[name] = measure(family, instances, seconds)
                bar.update()
            figures.append(speeds)
        drawn = {}
        for name, family in large.items():
            bar.set_description(f"draw {name}")
            drawn[name] = draw_speed(family, instances, seconds)[1]
            bar.update()
        bar.set_description("done")
    _print(f"Registered families, {instances} instances", figures[0])
    _print(f"Rows of the sets, {instances} instances", figures[1])
    result = {
        "instances": instances,
        "families": {k: _rounded(s) for k, s in figures[0].items()},
        "rows": {k: _rounded(s) for k, s in figures[1].items()},
    }
    return result | _against_limit(drawn, instances)


def _against_limit(drawn: dict, instances: int) -> dict:
    """Prints the slowest draws and the target."""
    if not drawn:
        return {}
    slowest = sorted(drawn, key=drawn.get, reverse=True)
    print("\nDrawing with about 100 parameters, networks as they are: slowest")
    print(
        table(
            ["name", "draw ms"],
            [[name, f"{drawn[name]:.2f}"] for name in slowest[:8]],
        )
    )
    worst = drawn[slowest[0]]
    holds = worst <= LIMIT_MS
    print(
        f"\nTarget, 64 instances in {LIMIT_MS:.0f} ms on one core: "
        f"{'holds' if holds else 'MISSED'} with {instances} instances; slowest "
        f"is {slowest[0]}, {worst:.1f} ms.\n"
    )
    return {
        "draw_ms_dim_100": {k: round(ms, 3) for k, ms in drawn.items()},
        "draw_ms_max_dim_100": round(worst, 3),
        "slowest_draw_dim_100": slowest[0],
        "draws_within_limit": holds,
    }


def _rounded(speed: Speed) -> dict:
    return {k: round(v, 3) for k, v in speed._asdict().items()}
