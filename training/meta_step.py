"""One meta-iteration: the meta-gradient of one unroll of one family."""

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from problems import draws
from problems.family import Family
from training import lengths
from training.compiled import Compiled
from training.config import MetaConfig
from training.meta_objective import average_log_loss
from training.trajectories import Nursery, Trajectories
from training.unroll import Unroll

STORED_BYTES = 300e6
"""States of an unroll that are kept; segments beyond are computed again."""

DIVERGED = 3.0
"""An instance is given up once its log loss is so far above the start's: what
led there has been seen, and from there on there is little to learn."""


class Statistics(NamedTuple):
    """What one meta-iteration was like; means over instances unless said."""

    meta_loss: Any  # Equation 14 over this unroll
    final: Any  # log loss at the end, relative to the start's
    segments: Any  # of the unroll
    between: Any  # segments without derivatives that followed
    age: Any  # unrolls before this one
    norm: Any  # of the meta-gradient, before it is clipped
    sensitivity: Any  # median of the largest of each instance
    clipped: Any  # share of steps and instances that were clipped
    dropped: Any  # instances whose derivatives were not finite
    diverged: Any  # instances given up
    step_length: Any  # mean log step length, relative to the learning rate


class MetaStep:
    """The meta-gradient of a rule on a family.

    It holds compiled functions and no state: the same arguments give the same
    results.

    Args:
        rule: see `training.rules`.
        family: the problems.
        count: B, instances side by side.
        config: the settings.
    """

    def __init__(self, rule, family: Family, count: int, config: MetaConfig):
        self.rule, self.family, self.count = rule, family, count
        self.config = config
        self.nursery = Nursery(rule, family, count, config)
        self.unroll = Unroll(
            rule,
            family,
            config.segment,
            config.epsilon,
            config.log_objective,
            config.second_derivatives,
            config.clip_step,
            config.revival,
        )
        self._plan_traced = Compiled(self._plan)
        self._finish_traced = Compiled(self._finish)

    def __call__(self, vector, trajectories: Trajectories, seed, mean_unrolls):
        """Unrolls the instances further, and differentiates.

        Args:
            vector: meta-parameters [M].
            trajectories: of this family. Finished ones are replaced first.
            seed: of this meta-iteration.
            mean_unrolls: of the new trajectories.

        Returns:
            The meta-gradient [M], the trajectories afterwards, `Statistics`.
        """
        number, between, renewing, disturbing, seed = self._plan_traced(
            draws.as_seed(seed)
        )
        old = self.nursery.renew(trajectories, vector, renewing, mean_unrolls)
        old = self.nursery.disturb(old, disturbing)
        firsts = [
            tf.constant(self.config.segment * k) for k in range(int(number))
        ]

        def forward(state, first):
            return self.unroll.forward(
                vector, old.data, state, old.lr, seed, first
            )

        state, starts, kept, values, stored = old.state, [], [], [], 0
        for first in firsts:
            segment = forward(state, first)
            stored += sum(
                x.dtype.size * x.shape.num_elements() for x in segment.states
            )
            starts.append(state)
            kept.append(segment.states if stored <= STORED_BYTES else None)
            values.append(segment.values)
            state = segment.state

        def states(k):
            return kept[k] or forward(starts[k], firsts[k]).states

        # Of each instance's log loss at every step, in their average.
        share = 1.0 / (self.config.segment * len(firsts))
        everyone = tf.fill((self.count,), share)
        back = self._back(vector, old, states, seed, firsts, state, everyone)
        dropped = 0
        if not np.isfinite(back[0]).all():
            # Instances whose derivatives are not finite are taken out. Zero
            # weights do not do it alone, since zero times infinity is NaN:
            # they also stand still where they once started.
            keep = np.isfinite(back[2])
            benign = tf.nest.flatten(self.nursery.begin(vector, old.data))
            dropped = int((~keep).sum())
            back = self._back(
                vector,
                old,
                lambda k: [
                    tf.where(keep, x, start[None])
                    for x, start in zip(states(k), benign, strict=True)
                ],
                seed,
                firsts,
                state,
                share * tf.cast(keep, tf.float32),
            )
        log_losses = tf.concat(values, axis=0)
        last = log_losses[-1]
        for k in range(int(between)):
            first = tf.constant(self.config.segment * (len(firsts) + k))
            later = forward(state, first)
            state, last = later.state, later.values[-1]
        return self._finish_traced(
            vector,
            old,
            state,
            average_log_loss(log_losses, old.first),
            last,
            number,
            between,
            *back,
            tf.constant(dropped),
        )

    def warm_up(self, vector, trajectories: Trajectories):
        """Compiles everything, on one segment, without any result."""
        self._plan_traced(draws.as_seed(0))
        first, seed = tf.constant(0), draws.as_seed(0)
        segment = self.unroll.forward(
            vector, trajectories.data, trajectories.state, trajectories.lr,
            seed, first,
        )  # fmt: skip
        weight = tf.ones((self.count,))
        back = self._back(
            vector, trajectories, lambda k: segment.states, seed, [first],
            segment.state, weight,
        )  # fmt: skip
        self._finish_traced(
            vector, trajectories, segment.state, weight, weight,
            tf.constant(1), tf.constant(0), *back, tf.constant(0),
        )  # fmt: skip
        done = trajectories._replace(left=tf.zeros_like(trajectories.left))
        self.nursery.renew(done, vector, seed, 1.0)

    def _plan(self, seed):
        """Numbers of segments; seeds of renewal, disturbance and steps."""
        first, second, *others = draws.split(seed, 5)
        return (
            lengths.segments(first, self.config),
            lengths.segments_between(second, self.config),
            *others,
        )

    def _back(self, vector, old, states, seed, firsts, last, weight):
        """All segments, from the last to the first."""
        gradient = tf.zeros_like(vector)
        cotangent = tf.nest.map_structure(tf.zeros_like, last)
        largest = tf.zeros((self.count,))
        clipped = tf.zeros((self.count,), tf.int32)
        steps = (len(firsts), self.config.segment)
        shares = lengths.shares(math.prod(steps), self.config.foresight)
        shares = tf.constant(np.reshape(shares, steps))
        for k in reversed(range(len(firsts))):
            extra, cotangent, norm, number = self.unroll.backward(
                vector,
                old.data,
                states(k),
                old.lr,
                seed,
                firsts[k],
                cotangent,
                weight,
                shares[k],
            )
            gradient += extra
            largest = tf.maximum(largest, norm)
            clipped += number
        return gradient, cotangent, largest, clipped

    def _finish(
        self, vector, old, state, meta_losses, last, number, between,
        gradient, cotangent, largest, clipped, dropped,
    ):  # fmt: skip
        """The mean meta-gradient, the new trajectories and the statistics."""
        gradient += self._start_product(vector, old, cotangent)
        steps = tf.cast(self.count * self.config.segment * number, tf.float32)
        finite = tf.reduce_all(tf.math.is_finite(gradient))
        gradient /= self.count
        gradient = tf.where(finite, gradient, tf.zeros_like(gradient))
        final = last - old.first
        lost = ~(final < DIVERGED)
        new = old._replace(
            state=state,
            age=old.age + 1,
            left=tf.where(lost, 0, old.left - 1),
        )
        statistics = Statistics(
            meta_loss=tf.reduce_mean(meta_losses),
            final=tf.reduce_mean(final),
            segments=number,
            between=between,
            age=tf.reduce_mean(tf.cast(old.age, tf.float32)),
            norm=tf.norm(gradient),
            sensitivity=tf.sort(largest)[self.count // 2],
            clipped=tf.cast(tf.reduce_sum(clipped), tf.float32) / steps,
            dropped=tf.where(finite, dropped, self.count),
            diverged=tf.reduce_sum(tf.cast(lost, tf.int32)),
            step_length=tf.reduce_mean(self.rule.step_length(state)),
        )
        return gradient, new, statistics

    def _start_product(self, vector, old, cotangent):
        """Meta-gradient through the initial state of fresh instances."""
        with tf.GradientTape() as tape:
            tape.watch(vector)
            state = self.nursery.begin(vector, old.data)
        fresh = old.age == 0
        pairs = [
            (x, tf.where(fresh, bar, tf.zeros_like(bar)))
            for x, bar in zip(
                tf.nest.flatten(state), tf.nest.flatten(cotangent), strict=True
            )
            if x.dtype.is_floating
        ]
        return tape.gradient(
            [x for x, _ in pairs],
            vector,
            output_gradients=[bar for _, bar in pairs],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
