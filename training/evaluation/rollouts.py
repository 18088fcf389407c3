"""Runs of a rule on drawn instances, without derivatives in the rule."""

import numpy as np
import tensorflow as tf

from problems import drawer, draws
from problems.family import Family
from training.engine.compiled import Compiled
from training.engine.unroll import Unroll
from training.rules.base import Rule

SEGMENT = 50


class Runs:
    """Runs a rule on instances of a family, each under several settings.

    Args:
        rule: see `training.rules.base`.
        family: the problems.
        count: number of instances.
        settings: number of settings that each instance is run under.
    """

    def __init__(
        self, rule: Rule, family: Family, count: int, settings: int = 1
    ):
        self.rule, self.family = rule, family
        self.count, self.settings = count, settings
        self._draw = drawer(family, count)
        self._unroll = Unroll(rule, family, SEGMENT, keep_states=False)
        self._begin = Compiled(self._start)

    def _start(self, vector, data):
        theta = self.family.flatten(self.family.start(data))
        meta = self.rule.unpack(vector)
        return self.rule.initial_state(meta, self.family.sizes, theta)

    def __call__(self, vector, rates, steps: int, seed) -> np.ndarray:
        """Full losses after every step, [steps, settings, count].

        Args:
            vector: meta-parameters, [M].
            rates: initial learning rates, one for each setting, or [settings,
                count].
            steps: number of steps, a multiple of `SEGMENT`.
            seed: seed of the instances and of the steps.

        Raises:
            ValueError: `steps` is not a multiple of `SEGMENT`.
        """
        if steps % SEGMENT:
            raise ValueError(
                f"Argument `steps` must be a multiple of {SEGMENT}. "
                f"Received: steps={steps}"
            )
        drawing, stepping = draws.split(seed, 2)
        data = tf.nest.map_structure(
            lambda x: tf.tile(x, [self.settings] + [1] * (len(x.shape) - 1)),
            self._draw(drawing),
        )
        rates = np.reshape(np.asarray(rates, "float32"), (self.settings, -1))
        lr = np.broadcast_to(rates, (self.settings, self.count)).reshape(-1)
        lr = tf.constant(lr)
        state, losses = self._begin(vector, data), []
        for k in range(steps // SEGMENT):
            segment = self._unroll.forward(
                vector, data, state, lr, stepping, tf.constant(k * SEGMENT)
            )
            state = segment.state
            losses.append(segment.losses.numpy())
        losses = np.concatenate(losses)
        return losses.reshape(steps, self.settings, self.count)
