"""Meta-training on one machine: a pool of problems, step after step.

Everything random in a meta-iteration is a function of the run's seed and the
iteration's number, and the pool is part of a checkpoint: a resumed run
continues as if it had never stopped.
"""

import collections
import concurrent.futures

import numpy as np
import tensorflow as tf
from absl import logging

from problems import draws
from problems.ensemble import Row
from training.engine import lengths, meta_optimizer
from training.engine.config import MetaConfig
from training.engine.evolution import EvolutionStep
from training.engine.meta_step import MetaStatistics, MetaStep


def meta_step(rule, row: Row, config: MetaConfig) -> MetaStep:
    """The meta-step of a row, with as many instances as the settings say."""
    count = config.instances(row.family.dimension)
    made = EvolutionStep if config.evolved else MetaStep
    return made(rule, row.family, count, config)


def choose(rows: tuple[Row, ...], seed: int, iteration: int) -> Row:
    """The row of a meta-iteration, drawn with the set's weights."""
    random = np.random.default_rng([seed, iteration])
    weights = np.array([row.weight for row in rows])
    return rows[random.choice(len(rows), p=weights)]


def state_arrays(state: meta_optimizer.MetaState, inner_steps: int) -> dict:
    """The state that all kinds of runs have, as named arrays."""
    values = state._asdict() | {"inner_steps": inner_steps}
    return {f"state/{name}": np.asarray(x) for name, x in values.items()}


def state_of(arrays: dict, shape) -> tuple[meta_optimizer.MetaState, int]:
    """The inverse of `state_arrays`.

    Args:
        arrays: arrays of a checkpoint.
        shape: shape that the meta-parameters must have.

    Raises:
        ValueError: they have another one.
    """
    fields = {
        name: arrays[f"state/{name}"]
        for name in meta_optimizer.MetaState._fields
    }
    if fields["vector"].shape != shape:
        raise ValueError(
            "Argument `arrays` must have meta-parameters of this rule, "
            f"{shape}. Received: {fields['vector'].shape}"
        )
    for name in ("iteration", "updates"):
        fields[name] = int(fields[name])
    state = meta_optimizer.MetaState(**fields)
    return state, int(arrays["state/inner_steps"])


class Run:
    """The state of a meta-training run, and its meta-iterations.

    Args:
        rule: see `training.rules.base`.
        rows: the set of problems (`problems.Row`).
        config: the settings.
        vector: meta-parameters to start from; None draws them.
    """

    def __init__(
        self, rule, rows: tuple[Row, ...], config: MetaConfig, vector=None
    ):
        self.rule, self.rows, self.config = rule, rows, config
        if vector is None:
            vector = rule.initial_meta(config.seed)
        self.state = meta_optimizer.initial(np.asarray(vector, np.float32))
        self.inner_steps = 0
        self.pool = {}
        self._update = meta_optimizer.Updater(config)
        self.steps = {row.name: meta_step(rule, row, config) for row in rows}

    def trace(self):
        """Traces every row's functions; yields the name of each when done.

        In the rows' order and before anything is computed, since XLA's cache
        finds a program by a name that depends on both (see `Compiled`).
        Functions that have been traced are not traced again.
        """
        for row in self.rows:
            self.steps[row.name].trace(self.state.vector.size)
            yield row.name

    def compile(self, workers: int = 1):
        """Compiles every row's functions; yields the name of each when done.

        Args:
            workers: number of threads that compile. All rows are traced first,
                in the calling thread, if they have not been (see `trace`).
        """
        collections.deque(self.trace(), maxlen=0)

        def one(row):
            self.steps[row.name].warm_up(tf.constant(self.state.vector))
            return row.name

        executor = concurrent.futures.ThreadPoolExecutor(workers)
        try:
            # The longest go first, so that no thread works alone at the end.
            rows = sorted(self.rows, key=lambda row: -len(row.family.sizes))
            jobs = [executor.submit(one, row) for row in rows]
            for job in concurrent.futures.as_completed(jobs):
                yield job.result()
        finally:
            # A caller that stops iterating does not wait for further rows.
            executor.shutdown(cancel_futures=True)

    def read(self) -> np.ndarray:
        """The meta-parameters at which the next gradient is taken."""
        return self.state.vector

    def iterate(self) -> tuple[Row, MetaStatistics]:
        """One meta-iteration."""
        iteration = self.state.iteration
        row = choose(self.rows, self.config.seed, iteration)
        step = self.steps[row.name]
        vector = tf.constant(self.read())
        mean = lengths.mean_unrolls(self.config, iteration)
        first, second = draws.split(draws.fold(self.config.seed, iteration), 2)
        if row.name not in self.pool:
            self.pool[row.name] = step.sampler.draw(vector, first, mean)
        gradient, self.pool[row.name], statistics = step(
            vector, self.pool[row.name], second, mean
        )
        self.state = self._update(self.state, gradient)
        statistics = MetaStatistics(*(float(value) for value in statistics))
        self.inner_steps += int(
            statistics.segments * self.config.segment * step.count
        )
        return row, statistics

    def arrays(self, pool: bool = True) -> dict:
        """The run's state as named arrays, which is small without the pool."""
        arrays = state_arrays(self.state, self.inner_steps)
        if pool:
            for name, trajectories in self.pool.items():
                for k, leaf in enumerate(tf.nest.flatten(trajectories)):
                    arrays[f"pool/{name}/{k}"] = leaf.numpy()
        return arrays

    def restore(self, arrays: dict):
        """The inverse of `arrays`; a missing pool starts anew.

        So does the pool of a rule with another state (another `negligible`).

        Raises:
            ValueError: meta-parameters of another size.
        """
        self.state, self.inner_steps = state_of(arrays, self.state.vector.shape)
        self.pool = {}
        if any(name.startswith("pool/") for name in arrays):
            # All rows, as in a new run, so that both find the same programs.
            collections.deque(self.trace(), maxlen=0)
        for name, step in self.steps.items():
            if f"pool/{name}/0" not in arrays:
                continue
            like = step.trace(self.state.vector.size)
            leaves = tf.nest.flatten(like)
            if f"pool/{name}/{len(leaves) - 1}" not in arrays or (
                f"pool/{name}/{len(leaves)}" in arrays
            ):
                logging.warning("%s: problems of another rule go.", name)
                continue
            leaves = [
                tf.constant(arrays[f"pool/{name}/{k}"])
                for k in range(len(leaves))
            ]
            self.pool[name] = tf.nest.pack_sequence_as(like, leaves)
