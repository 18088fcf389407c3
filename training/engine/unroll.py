"""A fixed segment of steps on B instances, and back through it.

`forward` runs the segment and keeps the state before every step. `backward`
goes through it in reverse, one step at a time: it recomputes the step and
computes its vector-Jacobian product. Two compilations thus serve unrolls of any
length, and memory holds only the states.
"""

import math
from typing import Any, NamedTuple

import tensorflow as tf

from problems.family import Family
from training.engine.compiled import Compiled
from training.engine.objective import log_loss, unsolved
from training.engine.penalties import ObjectiveTerm
from training.engine.sensitivity import sensitivity
from training.rules.base import Rule


class Segment(NamedTuple):
    """What `forward` returns."""

    state: Any  # state after the last step
    states: list  # leaves of the state before every step, [T, ...], if kept
    values: Any  # objective after every step, [T, B]
    losses: Any  # full losses after every step, [T, B]


class Unroll:
    """The two compiled functions of a rule on a family.

    Args:
        rule: see `training.rules.base`.
        family: the problems.
        steps: number of steps of the segment, T.
        epsilon: epsilon of Equation 14.
        log_objective: whether to minimise the average log loss rather than the
            loss.
        second_derivatives: whether to differentiate through the problems'
            gradients (section 4.3).
        clip_step: largest `sensitivity` of one instance; 0 does not clip.
        terms: further terms of the objective, beside the loss.
        keep_states: whether `forward` keeps what `backward` needs.
    """

    def __init__(
        self,
        rule: Rule,
        family: Family,
        steps: int,
        epsilon: float = 1e-10,
        log_objective: bool = True,
        second_derivatives: bool = True,
        clip_step: float = 0.0,
        terms: tuple[ObjectiveTerm, ...] = (),
        keep_states: bool = True,
    ):
        self.rule, self.family, self.steps = rule, family, steps
        self._epsilon, self._log = epsilon, log_objective
        self._second, self._clip = second_derivatives, clip_step
        self._terms = tuple(terms)
        self._keep_states = keep_states
        self.forward = Compiled(self._forward, xla=True)
        self.backward = Compiled(self._backward, xla=True)

    def step(self, meta, data, state, lr, seed, number):
        """One step of the problem's training.

        Args:
            meta: meta-parameters, unpacked.
            data: data of the instances.
            state: state of the rule.
            lr: initial learning rates, [B].
            seed: seed of the unroll.
            number: number of the step within it.

        Returns:
            The new state.
        """
        rule, family = self.rule, self.family
        batch = family.batch(data, seed, number)
        attended = family.unflatten(rule.attended(state))
        _, gradient = family.loss_and_gradient(data, attended, batch)
        gradient = family.flatten(gradient)
        if not self._second:
            gradient = tf.stop_gradient(gradient)
        return rule.step(meta, family.sizes, state, gradient, lr)

    def value(self, data, state):
        """The objective's value and the full loss at theta, [B] each."""
        theta = self.family.unflatten(self.rule.point(state))
        loss = self.family.full_loss(data, theta)
        value = log_loss(loss, self._epsilon) if self._log else loss
        for term in self._terms:
            penalty = term(self.family.sizes, state, unsolved(loss))
            value += term.weight * penalty
        return value, loss

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
            new = self.step(meta, data, state_n, lr, seed, first + n)
            value, loss = self.value(data, new)
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
        self, vector, data, states, lr, seed, first, cotangent, weight, shares
    ):
        """Vector-Jacobian product of the segment.

        Args:
            vector: meta-parameters [M].
            data: data of the instances.
            states: states that `forward` returned.
            lr: initial learning rates, [B].
            seed: seed that `forward` was given.
            first: first step that `forward` was given.
            cotangent: cotangent of the state after the segment.
            weight: weight of each instance's values, [B].
            shares: shares of every step's own derivative in the meta-gradient,
                [T].

        Returns:
            The meta-gradient [M], the cotangent of the state before the
            segment, each instance's largest `sensitivity` (before clipping),
            and its number of clipped steps [B].
        """
        with tf.GradientTape() as unpacking:
            unpacking.watch(vector)
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
            old = tf.nest.pack_sequence_as(cotangent, leaves)
            inputs = only_floating(leaves)
            with tf.GradientTape() as tape:
                tape.watch((inputs, numbers))
                new = self.step(
                    tf.nest.pack_sequence_as(meta, numbers),
                    data,
                    old,
                    lr,
                    seed,
                    first + n,
                )
            outputs = only_floating(tf.nest.flatten(new))
            with tf.GradientTape() as tape_of_value:
                tape_of_value.watch(outputs)
                value, _ = self.value(data, as_state(outputs))
            own = tape_of_value.gradient(
                value,
                outputs,
                output_gradients=weight,
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            bar = [a + b for a, b in zip(bar, own, strict=True)]
            norm = sensitivity(self.rule, old, new, as_state(bar))
            # Explicit, since the maximum of NaN and a number may be the number.
            norm = tf.where(tf.math.is_finite(norm), norm, math.inf)
            if self._clip:
                factor = tf.minimum(1.0, self._clip / (norm + 1e-30))
                bar = [leaf * factor for leaf in bar]
                clipped += tf.cast(factor < 1.0, tf.int32)
            bar, extra = tape.gradient(
                outputs,
                (inputs, numbers),
                output_gradients=bar,
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            share = shares[n]
            gradient = [
                a + share * b for a, b in zip(gradient, extra, strict=True)
            ]
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
        # The arrays that steps multiply by are unpacked from the vector once,
        # and their derivatives go back to the vector once.
        gradient = unpacking.gradient(
            numbers, vector, output_gradients=gradient
        )
        return gradient, cotangent, largest, clipped
