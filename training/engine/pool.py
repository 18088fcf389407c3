"""The pool: problems in training, each at its own age."""

from typing import Any, NamedTuple

import tensorflow as tf

from problems import draws
from problems.family import Family
from training.engine import lengths
from training.engine.compiled import Compiled
from training.engine.config import MetaConfig
from training.engine.objective import log_loss
from training.rules.base import LearnedRule, keeps_step_lengths

PERTURBATION = (-6.0, 1.0)
"""Range of changes of the log step lengths. It reaches further down, where
progress merely stops, than up, where small changes already cause divergence."""


class TrajectoryPool(NamedTuple):
    """B instances of a family that are being trained by a rule."""

    data: Any  # data of the family, instances on the first axis
    state: Any  # state of the rule, instances on the last axis
    lr: Any  # initial learning rates, [B]
    first: Any  # log(l(theta^0) + epsilon), [B]
    age: Any  # unrolls so far, [B]
    left: Any  # unrolls to come, [B]; 0 or less: to be replaced


class TrajectorySampler:
    """Draws new trajectories of one family.

    Args:
        rule: see `training.rules.base`.
        family: the problems.
        count: number of instances, B.
        config: the settings, with lengths and learning rates.
    """

    def __init__(
        self, rule: LearnedRule, family: Family, count: int, config: MetaConfig
    ):
        self.rule, self.family, self.count = rule, family, count
        self.config = config
        self._draw_traced = Compiled(self._draw)

    def begin(self, vector, data):
        """The state before the first step, of fresh instances."""
        theta = self.family.flatten(self.family.start(data))
        meta = self.rule.unpack(vector)
        return self.rule.initial_state(meta, self.family.sizes, theta)

    def trace(self, vector, seed, mean_unrolls) -> TrajectoryPool:
        """Specifications of what `draw` returns, from those of its arguments.

        It traces, and computes nothing.
        """
        return self._draw_traced.trace(vector, seed, mean_unrolls)

    def draw(self, vector, seed, mean_unrolls: float) -> TrajectoryPool:
        """B new trajectories."""
        mean = tf.convert_to_tensor(mean_unrolls, tf.float32)
        return self._draw_traced(vector, draws.as_seed(seed), mean)

    def renew(self, old: TrajectoryPool, vector, seed, mean_unrolls: float):
        """Replaces finished trajectories by new ones."""
        return tf.cond(
            tf.reduce_min(old.left) > 0,
            lambda: old,
            lambda: self._replace(old, self.draw(vector, seed, mean_unrolls)),
        )

    def perturb(self, old: TrajectoryPool, seed) -> TrajectoryPool:
        """Changes the step lengths of some trajectories that have begun."""
        share = self.config.step_length_perturbation
        if not share or not keeps_step_lengths(self.rule):
            return old
        first, second = draws.split(seed, 2)
        chosen = draws.uniform(first, (self.count,)) < share
        change = draws.uniform(second, (self.count,), *PERTURBATION)
        change = tf.where(chosen & (old.age > 0), change, 0.0)
        return old._replace(state=self.rule.lengthened(old.state, change))

    def _draw(self, vector, seed, mean_unrolls):
        first, second, third = draws.split(seed, 3)
        data = self.family.draw(first, self.count)
        start = self.family.start(data)
        return TrajectoryPool(
            data,
            self.begin(vector, data),
            lengths.rates(second, self.count, self.config),
            log_loss(self.family.full_loss(data, start), self.config.epsilon),
            tf.zeros((self.count,), tf.int32),
            lengths.unrolls(third, self.count, mean_unrolls, self.config),
        )

    @staticmethod
    def _replace(old: TrajectoryPool, new: TrajectoryPool) -> TrajectoryPool:
        done = old.left <= 0

        def first_axis(fresh, kept):
            shape = (-1,) + (1,) * (len(fresh.shape) - 1)
            return tf.where(tf.reshape(done, shape), fresh, kept)

        def last_axis(fresh, kept):
            return tf.where(done, fresh, kept)

        return TrajectoryPool(
            tf.nest.map_structure(first_axis, new.data, old.data),
            tf.nest.map_structure(last_axis, new.state, old.state),
            *(last_axis(a, b) for a, b in zip(new[2:], old[2:], strict=True)),
        )
