"""One meta-iteration of the paper, as a worker runs it (section 4.5)."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from problems import draws
from training.distributed.parameters import Outcome, ServedParameters, Work
from training.engine import lengths
from training.engine.meta_step import NO_LIMIT, MetaStatistics, MetaStep


class Unrolls(NamedTuple):
    """The results of one meta-iteration's unrolls; arrays [unrolls]."""

    statistics: MetaStatistics
    outcome: Outcome
    seconds: np.ndarray  # time of computing
    waiting: np.ndarray  # time of reading and writing


class MetaIteration:
    """Draws B instances of a family and runs all their unrolls.

    After each unroll the meta-parameters are updated where they are stored. The
    number of unrolls is that of section 4.4, one number for all instances.

    Args:
        step: meta-step of the family.
        parameters: meta-parameters that are trained.
    """

    def __init__(self, step: MetaStep, parameters: ServedParameters):
        self.step, self.parameters = step, parameters
        self.traced = tf.function(
            self._run,
            input_signature=[
                tf.TensorSpec((2,), tf.int32),
                *[tf.TensorSpec((), tf.int32)] * 3,
            ],
            autograph=False,
        )

    def _run(self, seed, slot, number, limit):
        """The closure that workers run.

        Args:
            seed: seed of everything random in it.
            slot: slot of the meta-iteration, see `ServedParameters`.
            number: number of the meta-iteration.
            limit: the largest number of unrolls; 0 means one of a single
                segment, which updates nothing.

        Returns:
            A number for each unroll and each field of `Unrolls`, [unrolls, K].
        """
        config = self.step.config
        drawing, counting, unrolling = draws.split(seed, 3)
        iteration = self.parameters.state.iteration.read_value()
        mean = lengths.mean_unrolls(config, iteration)
        vector, _ = self.parameters.read()
        dry = tf.equal(limit, 0)
        segments = tf.where(dry, 1, NO_LIMIT)
        count = lengths.unrolls(counting, 1, mean, config)[0]
        count = tf.minimum(count, tf.maximum(limit, 1))
        instances = self.step.sampler.draw(vector, drawing, mean)
        instances = instances._replace(left=tf.fill((self.step.count,), count))

        def unroll(k, instances, rows):
            start = tf.timestamp()
            with tf.control_dependencies([start]):
                vector, version = self.parameters.read()
            with tf.control_dependencies([vector]):
                begun = tf.timestamp()
            # Inlined calls are ordered by the data that they take and return,
            # not by control edges: hence the identities.
            with tf.control_dependencies([begun]):
                vector = tf.identity(vector)
            gradient, instances, statistics = self.step.at_most(
                segments, vector, instances, draws.fold(unrolling, k), mean
            )
            gradient = tf.identity(gradient)
            with tf.control_dependencies([gradient]):
                done = tf.timestamp()
            seconds = done - begun
            steps = statistics.segments * config.segment * self.step.count
            work = Work(version, slot, number, k, steps, seconds, dry)
            outcome = self.parameters.apply(gradient, work)
            with tf.control_dependencies(list(outcome)):
                end = tf.timestamp()
            row = [*statistics, *outcome, seconds, end - start - seconds]
            row = tf.stack([tf.cast(x, tf.float64) for x in row])
            return k + 1, instances, rows.write(k, row)

        width = len(MetaStatistics._fields) + len(Outcome._fields) + 2
        rows = tf.TensorArray(tf.float64, count, element_shape=(width,))
        *_, rows = tf.while_loop(
            lambda k, *_: k < count,
            unroll,
            (tf.constant(0), instances, rows),
            parallel_iterations=1,
        )
        return rows.stack()

    @staticmethod
    def unpack(rows: np.ndarray) -> Unrolls:
        """The closure's result as a record."""
        columns = list(rows.T)
        count = len(MetaStatistics._fields)
        statistics = MetaStatistics(*columns[:count])
        outcome = Outcome(*columns[count:-2])
        return Unrolls(statistics, outcome, *columns[-2:])

    def warm_up(self, device=None):
        """Compiles everything on a device, and updates nothing."""
        # They are on this machine, as a coordinator's arguments are.
        arguments = tf.zeros((2,), tf.int32), *map(tf.constant, (0, 0, 0))
        with tf.device(device):
            self.traced(*arguments)
