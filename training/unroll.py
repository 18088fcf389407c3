"""A fixed segment of steps on B instances, and back through it.

`forward` runs the segment and keeps the state before every step. `backward`
goes through it in reverse, one step at a time: it computes the step again and
its vector-Jacobian product. So two compilations serve unrolls of any length,
and memory holds the states alone.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from problems import draws
from problems.family import Family
from training.compiled import Compiled
from training.meta_objective import log_loss


class Segment(NamedTuple):
    """What `forward` returns."""

    state: Any  # after the last step
    states: list  # leaves of the state before every step, [T, ...], if kept
    values: Any  # of the objective after every step, [T, B]
    losses: Any  # full losses after every step, [T, B]


class Unroll:
    """The two compiled functions of a rule on a family.

    Args:
        rule: see `training.rules`.
        family: the problems.
        steps: T, of the segment.
        epsilon: of Equation 14.
        log_objective: minimise the average log loss rather than the loss.
        second_derivatives: whether gradients depend on the parameters, when
            differentiated (section 4.3).
        clip_step: largest derivative of one instance in the memory; 0 is none.
        keep_states: whether `forward` keeps what `backward` needs.
    """

    def __init__(
        self,
        rule,
        family: Family,
        steps: int,
        epsilon: float = 1e-10,
        log_objective: bool = True,
        second_derivatives: bool = True,
        clip_step: float = 0.0,
        keep_states: bool = True,
    ):
        self.rule, self.family, self.steps = rule, family, steps
        self._epsilon, self._log = epsilon, log_objective
        self._second, self._clip = second_derivatives, clip_step
        self._keep_states = keep_states
        self.forward = Compiled(self._forward, xla=True)
        self.backward = Compiled(self._backward, xla=True)

    def step(self, meta, data, state, lr, seed, number):
        """One step of the problem's training.

        Args:
            meta: meta-parameters, unpacked.
            data: of the instances.
            state: of the rule.
            lr: initial learning rates, [B].
            seed: of the unroll.
            number: of the step within it.

        Returns:
            The new state, the objective's value and the full loss, [B].
        """
        rule, family = self.rule, self.family
        batch = family.batch(data, draws.fold(seed, number))
        attended = family.unflatten(rule.attended(state))
        _, gradient = family.loss_and_gradient(data, attended, batch)
        gradient = family.flatten(gradient)
        if not self._second:
            gradient = tf.stop_gradient(gradient)
        state = rule.step(meta, family.sizes, state, gradient, lr)
        loss = family.full_loss(data, family.unflatten(rule.point(state)))
        value = log_loss(loss, self._epsilon) if self._log else loss
        return state, value, loss

    def _forward(self, vector, data, state, lr, seed, first) -> Segment:
        meta = self.rule.unpack(vector)
        leaves = tf.nest.flatten(state)
        count = lr.shape[0]

        def array(like):
            return tf.TensorArray(
                like.dtype, size=self.steps, element_shape=like.shape
            )

        def body(n, leaves, kept, values, losses):
            pairs = zip(kept, leaves, strict=self._keep_states)
            kept = [one.write(n, leaf) for one, leaf in pairs]
            state_n = tf.nest.pack_sequence_as(state, leaves)
            new, value, loss = self.step(
                meta, data, state_n, lr, seed, first + n
            )
            return (
                n + 1,
                tf.nest.flatten(new),
                kept,
                values.write(n, value),
                losses.write(n, loss),
            )

        number = tf.zeros((count,))
        _, leaves, kept, values, losses = tf.while_loop(
            lambda n, *_: n < self.steps,
            body,
            (
                tf.constant(0),
                leaves,
                [array(leaf) for leaf in leaves if self._keep_states],
                array(number),
                array(number),
            ),
            maximum_iterations=self.steps,
        )
        return Segment(
            tf.nest.pack_sequence_as(state, leaves),
            [one.stack() for one in kept],
            values.stack(),
            losses.stack(),
        )

    def _backward(
        self, vector, data, states, lr, seed, first, cotangent, weight
    ):
        """Vector-Jacobian product of the segment.

        Args:
            vector: meta-parameters [M].
            data: of the instances.
            states: from `forward`.
            lr: initial learning rates, [B].
            seed: that `forward` was given.
            first: that `forward` was given.
            cotangent: of the state after the segment.
            weight: of each instance's sum of values, [B].

        Returns:
            The meta-gradient [M], the cotangent of the state before the
            segment, the largest norm of each instance's cotangent of the
            memory [B] (before clipping), and the number of clipped steps [B].
        """
        meta = self.rule.unpack(vector)
        numbers = tf.nest.flatten(meta)
        arrays = [
            tf.TensorArray(
                x.dtype, size=self.steps, element_shape=x.shape[1:]
            ).unstack(x)
            for x in states
        ]
        floating = [x.dtype.is_floating for x in states]

        def only_floating(leaves):
            pairs = zip(leaves, floating, strict=True)
            return [leaf for leaf, keep in pairs if keep]

        def as_state(leaves):
            """Floating leaves in their places, None for the others."""
            left = iter(leaves)
            full = [next(left) if keep else None for keep in floating]
            return tf.nest.pack_sequence_as(cotangent, full)

        def body(back, bar, gradient, largest, clipped):
            n = self.steps - 1 - back
            leaves = [one.read(n) for one in arrays]
            inputs = only_floating(leaves)
            with tf.GradientTape() as tape:
                tape.watch((inputs, numbers))
                state, value, _ = self.step(
                    tf.nest.pack_sequence_as(meta, numbers),
                    data,
                    tf.nest.pack_sequence_as(cotangent, leaves),
                    lr,
                    seed,
                    first + n,
                )
            outputs = [*only_floating(tf.nest.flatten(state)), value]
            bar, extra = tape.gradient(
                outputs,
                (inputs, numbers),
                output_gradients=[*bar, weight],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            memory = tf.nest.flatten(self.rule.memory(as_state(bar)))
            norm = tf.sqrt(sum(_instance_sum(leaf**2) for leaf in memory))
            if self._clip:
                factor = tf.minimum(1.0, self._clip / (norm + 1e-30))
                bar = [leaf * factor for leaf in bar]
                clipped += tf.cast(factor < 1.0, tf.int32)
            gradient = [a + b for a, b in zip(gradient, extra, strict=True)]
            return back + 1, bar, gradient, tf.maximum(largest, norm), clipped

        _, bar, gradient, largest, clipped = tf.while_loop(
            lambda back, *_: back < self.steps,
            body,
            (
                tf.constant(0),
                only_floating(tf.nest.flatten(cotangent)),
                [tf.zeros_like(leaf) for leaf in numbers],
                tf.zeros_like(weight),
                tf.zeros(weight.shape, tf.int32),
            ),
            maximum_iterations=self.steps,
        )
        left = iter(bar)
        cotangent = tf.nest.map_structure(
            lambda x: next(left) if x.dtype.is_floating else x, cotangent
        )
        vector = tf.concat([tf.reshape(x, [-1]) for x in gradient], axis=0)
        return vector, cotangent, largest, clipped


def _instance_sum(x):
    """Sums over all but the last axis, where the instances are: [B]."""
    return tf.reduce_sum(x, axis=tuple(range(len(x.shape) - 1)))
