"""A discrete-event simulation of many workers and one parameter server."""

import heapq
import math
from typing import NamedTuple

import numpy as np

FULL = 0.7
"""Highest share of its time that a server may be busy; queues grow beyond."""


class Load(NamedTuple):
    """The load that a number of workers causes."""

    workers: int
    updates_per_s: float
    megabytes_per_s: float  # meta-parameters read and written
    staleness_mean: float
    staleness_max: int
    waiting: float  # share of the workers' time
    busy: float  # share of the server's time
    servers: int  # servers that must share the meta-parameters


def simulate(
    workers: int,
    unroll_s: np.ndarray,
    update_s: float,
    numbers: int,
    updates: int = 20_000,
    seed: int = 0,
) -> Load:
    """Simulates workers that read, compute, and queue at the server to write.

    Args:
        workers: number of workers.
        unroll_s: computing times to draw from.
        update_s: time that the server needs for one update.
        numbers: number of meta-parameters, of 4 bytes; each update reads and
            writes all.
        updates: number of updates to simulate; the first half is a warm-up and
            not counted.
        seed: seed of the draws.
    """
    random = np.random.default_rng(seed)
    times = random.choice(unroll_s, workers + updates)
    # Heap of (time at which the unroll is done, updates when it began).
    events = [
        (random.uniform(0.0, times[k]), 0, times[k]) for k in range(workers)
    ]
    heapq.heapify(events)
    free, staleness, waited, computed, start = 0.0, [], 0.0, 0.0, 0.0
    for done in range(updates):
        ready, begun, took = heapq.heappop(events)
        end = max(ready, free) + update_s
        if done == updates // 2:
            start = free
        elif done > updates // 2:
            staleness.append(done - begun)
            waited += end - ready
            computed += took
        free = end
        took = times[workers + done]
        heapq.heappush(events, (end + took, done + 1, took))
    count = len(staleness)
    rate = count / (free - start)
    return Load(
        workers,
        rate,
        rate * 8 * numbers / 1e6,
        float(np.mean(staleness)),
        int(np.max(staleness)),
        waited / (waited + computed),
        min(1.0, rate * update_s),
        math.ceil(workers / (np.mean(unroll_s) + update_s) * update_s / FULL),
    )
