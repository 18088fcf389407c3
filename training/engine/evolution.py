"""Evolution strategies: the meta-gradient of a few numbers, from whole runs.

Derivatives of truncated unrolls prefer steps that are too short: where
gradients are noisy a shorter step pays at once, and what it costs comes after
the end (short-horizon bias; Wu et al., 2018). The horizon of a whole run is its
own length, but derivatives through all of it explode. So the chosen numbers are
moved a little at random, there and back, and the same problems are run with
both: (f(v + s e) - f(v - s e)) / (2 s) e is, but for the clipping below, an
unbiased estimate of the derivatives of the smoothed objective (Salimans et al.,
2017). Its noise grows with how many numbers are moved, so it is meant for few
of them, such as those that step lengths are read out with. Not in the paper.
"""

import math

import numpy as np
import tensorflow as tf

from hrnn_opt.rule import meta_parameters
from problems import draws
from problems.family import Family
from training.engine.config import MetaConfig
from training.engine.meta_step import MetaStep
from training.rules.base import LearnedRule

LARGEST = 1.0
"""Differences between the two runs of an instance are clipped here, in nats:
one that diverges in one of them says little about small changes."""


def mask(config: MetaConfig) -> np.ndarray:
    """1 for the meta-parameters named in the settings, 0 for others, [M].

    Raises:
        ValueError: a name that the rule does not have.
    """
    shapes = meta_parameters.shapes(config.rule_config)
    names = config.evolved.split(",")
    unknown = sorted(set(names) - set(shapes))
    if unknown:
        raise ValueError(
            "Argument `evolved` must be names of meta-parameters, separated by "
            f"commas, of {', '.join(shapes)}. Received: {', '.join(unknown)}"
        )
    parts = [
        np.full(math.prod(shape), name in names, "float32")
        for name, shape in shapes.items()
    ]
    return np.concatenate(parts)


class EvolutionStep(MetaStep):
    """A meta-step whose gradient is an estimate from two whole runs.

    Each meta-iteration draws new instances, and runs them from the start for
    segment + Exp(mean_steps) steps. The objective of an instance is the mean of
    its values (Equation 14) over the second half of the run. Settings of
    derivatives and of the pool (`clip_step`, `horizon_discount`, `mean_unrolls`
    and the like) do not matter. In the statistics, the meta-loss is the mean of
    both runs, and segments are counted in both; the last loss, divergences and
    step lengths are those of the first.

    Args:
        rule: the hierarchical RNN.
        family: the problems.
        count: number of instances side by side, B.
        config: the settings, with `evolved`.

    Raises:
        ValueError: see `mask`.
    """

    keep_states = False

    def __init__(
        self, rule: LearnedRule, family: Family, count: int, config: MetaConfig
    ):
        self._mask = mask(config)
        super().__init__(rule, family, count, config)

    def _unroll(self, vector, old, seed, number, between):
        """Runs `number` segments twice; there are none in `between`."""
        del between
        seed, noise = draws.split(seed, 2)
        scale = self.config.evolution_scale
        change = self._mask * draws.normal(noise, vector.shape)
        runs = [
            self._run(vector + sign * scale * change, old, seed, number)
            for sign in (1.0, -1.0)
        ]
        (there, last, state), (back, *_) = runs
        difference = tf.clip_by_value(there - back, -LARGEST, LARGEST)
        gradient = tf.reduce_mean(difference) / (2 * scale) * change
        statistics = self._statistics(
            old,
            state,
            (there + back) / 2 - old.first,
            last,
            segments=2 * number,
            between=tf.constant(0),
            norm=tf.norm(gradient),
        )
        # Every meta-iteration has instances of its own.
        new = old._replace(
            state=state, age=old.age + 1, left=tf.zeros_like(old.left)
        )
        return gradient, new, statistics

    def _run(self, vector, old, seed, number):
        """A run from the start: objective, last value, [B]; last state."""
        half = number // 2

        def body(k, state, total, last):
            del last
            segment = self._segment(vector, old, seed, k, state)
            mean = tf.reduce_mean(segment.values, axis=0)
            total += tf.where(k < half, tf.zeros_like(mean), mean)
            return k + 1, segment.state, total, segment.values[-1]

        zeros = tf.zeros((self.count,))
        _, state, total, last = tf.while_loop(
            lambda k, *_: k < number,
            body,
            (
                tf.constant(0),
                self.sampler.begin(vector, old.data),
                zeros,
                zeros,
            ),
            parallel_iterations=1,
        )
        return total / tf.cast(number - half, tf.float32), last, state
