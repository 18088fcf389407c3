"""One meta-iteration: the meta-gradient of one unroll of one family."""

from typing import Any, NamedTuple

import tensorflow as tf

from problems import draws
from problems.family import Family
from training.engine import lengths, penalties
from training.engine.compiled import Compiled
from training.engine.config import MetaConfig
from training.engine.objective import average_log_loss
from training.engine.pool import TrajectoryPool, TrajectorySampler
from training.engine.unroll import Unroll
from training.rules.base import LearnedRule, keeps_step_lengths

STORED_BYTES = 300e6
"""Size of the states of an unroll that are kept; the rest is recomputed."""

NO_LIMIT = 2**31 - 1

DIVERGED = 3.0
"""An instance is given up once its log loss exceeds the start's by this much:
the steps that led there have been seen, and later ones teach little."""


class MetaStatistics(NamedTuple):
    """Statistics of one meta-iteration; means over instances unless noted."""

    meta_loss: Any  # Equation 14 over this unroll
    final: Any  # log loss at the end, relative to the start's
    segments: Any  # segments of the unroll
    between: Any  # segments without derivatives that followed
    age: Any  # unrolls before this one
    norm: Any  # norm of the meta-gradient, before it is clipped
    sensitivity: Any  # median over instances of the largest of each
    clipped: Any  # share of steps and instances that were clipped
    dropped: Any  # instances whose derivatives were not finite
    diverged: Any  # instances given up
    step_length: Any  # mean log step length, relative to the learning rate
    step_length_low: Any  # a tenth of the instances have shorter ones
    step_length_high: Any  # a tenth have longer ones


class Course(NamedTuple):
    """What the forward pass of an unroll returns."""

    state: Any  # state after it
    states: Any  # function of k: states before the k-th segment's steps
    values: Any  # array of the segments' objectives, [T, B] each


class MetaStep:
    """The meta-gradient of a rule on a family.

    It holds compiled functions and no state: the same arguments give the same
    results. It may be called in a graph, which then contains all of it.

    Args:
        rule: see `training.rules.base`.
        family: the problems.
        count: number of instances side by side, B.
        config: the settings.
    """

    keep_states = True
    """Whether forward passes keep what a backward pass needs."""

    def __init__(
        self, rule: LearnedRule, family: Family, count: int, config: MetaConfig
    ):
        self.rule, self.family, self.count = rule, family, count
        self.config = config
        self.sampler = TrajectorySampler(rule, family, count, config)
        self.unroll = Unroll(
            rule,
            family,
            config.segment,
            config.epsilon,
            config.log_objective,
            config.second_derivatives,
            config.clip_step,
            penalties.terms(rule, config),
            self.keep_states,
        )
        self._traced = Compiled(self._step)

    def __call__(
        self, vector, trajectories: TrajectoryPool, seed, mean_unrolls
    ):
        """Unrolls the instances further and differentiates.

        Args:
            vector: meta-parameters [M].
            trajectories: those of this family. Finished ones are replaced
                first.
            seed: seed of this meta-iteration.
            mean_unrolls: mean number of unrolls of the new trajectories.

        Returns:
            The meta-gradient [M], the trajectories afterwards, and
            `MetaStatistics`.
        """
        return self.at_most(NO_LIMIT, vector, trajectories, seed, mean_unrolls)

    def at_most(self, limit, vector, trajectories, seed, mean_unrolls):
        """The same for an unroll of at most `limit` segments."""
        mean = tf.convert_to_tensor(mean_unrolls, tf.float32)
        seed, limit = draws.as_seed(seed), tf.convert_to_tensor(limit)
        return self._traced(limit, vector, trajectories, seed, mean)

    def _step(self, limit, vector, trajectories, seed, mean_unrolls):
        number, between, renewing, perturbing, seed = self._plan(seed)
        old = self.sampler.renew(trajectories, vector, renewing, mean_unrolls)
        old = self.sampler.perturb(old, perturbing)
        number, between = tf.minimum(number, limit), tf.minimum(between, limit)
        return self._unroll(vector, old, seed, number, between)

    def _plan(self, seed):
        """Numbers of segments; seeds of renewal, perturbation and steps."""
        first, second, *others = draws.split(seed, 5)
        return (
            lengths.segments(first, self.config),
            lengths.segments_between(second, self.config),
            *others,
        )

    def trace(self, size: int) -> TrajectoryPool:
        """Traces all functions, in a fixed order, and computes nothing.

        Args:
            size: number of meta-parameters, M.

        Returns:
            The specifications of new trajectories.
        """
        vector = tf.TensorSpec((size,), tf.float32)
        number = tf.TensorSpec((), tf.float32)
        seed = tf.TensorSpec((2,), tf.int32)
        fresh = self.sampler.trace(vector, seed, number)
        limit = tf.TensorSpec((), tf.int32)
        self._traced.trace(limit, vector, fresh, seed, number)
        return fresh

    def warm_up(self, vector):
        """Compiles everything by running one segment; returns nothing."""
        fresh = self.sampler.draw(vector, self.config.seed, 1.0)
        # Through the very function that is called later: any other one would
        # compile anew and hold programs of its own.
        self.at_most(1, vector, fresh, 0, 1.0)

    def _unroll(self, vector, old, seed, number, between):
        """Unrolls `number` segments with derivatives, `between` without."""
        course = self._forward(vector, old, seed, number)
        # Weight of each instance's log loss at every step in their average.
        share = 1.0 / tf.cast(self.config.segment * number, tf.float32)
        everyone = tf.fill((self.count,), share)
        back = self._back(vector, old, course, seed, number, everyone)

        def without(largest):
            # Instances whose derivatives are not finite are taken out. Zero
            # weights alone do not suffice, since zero times infinity is NaN:
            # their states are also replaced by those of the start.
            keep = tf.math.is_finite(largest)
            some = self._back(
                vector, old, course, seed, number,
                tf.where(keep, share, 0.0), keep,
            )  # fmt: skip
            return some, tf.reduce_sum(tf.cast(~keep, tf.int32))

        back, dropped = tf.cond(
            tf.reduce_all(tf.math.is_finite(back[0])),
            lambda: (back, tf.constant(0)),
            lambda: without(back[2]),
        )
        log_losses = course.values.concat()
        log_losses = tf.ensure_shape(log_losses, (None, self.count))

        def later(k, state, last):
            segment = self._segment(vector, old, seed, number + k, state)
            return k + 1, segment.state, segment.values[-1]

        _, state, last = tf.while_loop(
            lambda k, *_: k < between,
            later,
            (tf.constant(0), course.state, log_losses[-1]),
            parallel_iterations=1,
        )
        return self._finish(
            vector,
            old,
            state,
            average_log_loss(log_losses, old.first),
            last,
            number,
            between,
            *back,
            dropped,
        )

    def _segment(self, vector, old, seed, k, state):
        """The k-th segment of the unroll, from the state before it."""
        first = self.config.segment * k
        return self.unroll.forward(vector, old.data, state, old.lr, seed, first)

    def _forward(self, vector, old, seed, number) -> "Course":
        """Runs all segments and keeps what the backward pass needs."""
        leaves = tf.nest.flatten(old.state)
        size = sum(x.dtype.size * x.shape.num_elements() for x in leaves)
        room = max(1, int(STORED_BYTES / (size * self.config.segment)))

        def arrays(size, *before):
            return [
                tf.TensorArray(
                    leaf.dtype, size, clear_after_read=False,
                    element_shape=(*before, *leaf.shape),
                )
                for leaf in leaves
            ]  # fmt: skip

        def write(arrays, k, values):
            pairs = zip(arrays, values, strict=True)
            return [array.write(k, value) for array, value in pairs]

        def body(k, state, starts, kept, values):
            segment = self._segment(vector, old, seed, k, state)
            return (
                k + 1,
                segment.state,
                write(starts, k, tf.nest.flatten(state)),
                # Segments for which there is no room overwrite each other.
                write(kept, tf.minimum(k, room), segment.states),
                values.write(k, segment.values),
            )

        steps = self.config.segment
        _, state, starts, kept, values = tf.while_loop(
            lambda k, *_: k < number,
            body,
            (
                tf.constant(0),
                old.state,
                arrays(number),
                arrays(tf.minimum(number, room) + 1, steps),
                tf.TensorArray(
                    tf.float32, number, element_shape=(steps, self.count)
                ),
            ),
            parallel_iterations=1,
        )

        def states(k):
            """States of the k-th segment before every step, leaf by leaf."""

            def again():
                start = [array.read(k) for array in starts]
                start = tf.nest.pack_sequence_as(old.state, start)
                return self._segment(vector, old, seed, k, start).states

            return tf.cond(
                k < room, lambda: [array.read(k) for array in kept], again
            )

        return Course(state, states, values)

    def _back(self, vector, old, course, seed, number, weight, keep=None):
        """Differentiates all segments, from the last to the first.

        Args:
            vector: meta-parameters.
            old: the trajectories before the unroll.
            course: course that `_forward` returned.
            seed: seed of the unroll.
            number: number of segments.
            weight: weight of each instance's values, [B].
            keep: instances that are not taken out, [B]; None for all.
        """
        total = self.config.segment * number
        benign = tf.nest.flatten(self.sampler.begin(vector, old.data))

        def body(left, gradient, cotangent, largest, clipped):
            k = left - 1
            states = course.states(k)
            if keep is not None:
                states = [
                    tf.where(keep, x, start[None])
                    for x, start in zip(states, benign, strict=True)
                ]
            first = self.config.segment * k
            shares = lengths.shares(
                first + tf.range(self.config.segment),
                total,
                self.config.horizon_discount,
            )
            extra, cotangent, norm, number = self.unroll.backward(
                vector, old.data, states, old.lr, seed, first, cotangent,
                weight, shares,
            )  # fmt: skip
            return (
                k,
                gradient + extra,
                cotangent,
                tf.maximum(largest, norm),
                clipped + number,
            )

        _, *back = tf.while_loop(
            lambda left, *_: left > 0,
            body,
            (
                number,
                tf.zeros_like(vector),
                tf.nest.map_structure(tf.zeros_like, course.state),
                tf.zeros((self.count,)),
                tf.zeros((self.count,), tf.int32),
            ),
            parallel_iterations=1,
        )
        return tuple(back)

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
        statistics = self._statistics(
            old,
            state,
            meta_losses,
            last,
            segments=number,
            between=between,
            norm=tf.norm(gradient),
            sensitivity=tf.sort(largest)[self.count // 2],
            clipped=tf.cast(tf.reduce_sum(clipped), tf.float32) / steps,
            dropped=tf.where(finite, dropped, self.count),
        )
        return gradient, new, statistics

    def _statistics(self, old, state, meta_losses, last, **others):
        """`MetaStatistics` of trajectories; what is not given is 0.

        Args:
            old: the trajectories before the unroll.
            state: state of the rule after it.
            meta_losses: Equation 14 of every instance, [B].
            last: value of the objective at the end, [B].
            others: further fields.
        """
        final = last - old.first
        lengths_now = tf.sort(self._mean_log_step_lengths(state))
        tenth = self.count // 10
        fields = dict.fromkeys(MetaStatistics._fields, tf.constant(0.0))
        return MetaStatistics(**fields | dict(
            meta_loss=tf.reduce_mean(meta_losses),
            final=tf.reduce_mean(final),
            age=tf.reduce_mean(tf.cast(old.age, tf.float32)),
            diverged=tf.reduce_sum(tf.cast(~(final < DIVERGED), tf.int32)),
            step_length=tf.reduce_mean(lengths_now),
            step_length_low=lengths_now[tenth],
            step_length_high=lengths_now[self.count - 1 - tenth],
        ) | others)  # fmt: skip

    def _mean_log_step_lengths(self, state):
        """Means over parameters, [B]; 0 for a rule without step lengths."""
        if not keeps_step_lengths(self.rule):
            return tf.zeros((self.count,))
        return tf.reduce_mean(self.rule.log_step_lengths(state), axis=0)

    def _start_product(self, vector, old, cotangent):
        """Meta-gradient through the initial state of fresh instances."""
        with tf.GradientTape() as tape:
            tape.watch(vector)
            state = self.sampler.begin(vector, old.data)
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
