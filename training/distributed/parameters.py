"""The meta-parameters on a parameter server, and how they are updated."""

import contextlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from training.engine import meta_optimizer
from training.engine.config import MetaConfig
from training.engine.meta_optimizer import MetaState

DEVICE = "/job:ps/task:0/device:CPU:0"
"""The device that stores them: 8,000 numbers need no second server."""


DIGIT = 2**16
"""Base in which integers of up to 31 bits become two floats of a message."""


class Counters(NamedTuple):
    """Counts of the updates so far; variables or their values."""

    late: Any = 0  # dropped: older than `max_staleness`
    unusable: Any = 0  # dropped: zero or not finite
    repeated: Any = 0  # made again, since the worker that made them died
    staleness: Any = 0  # sum over all
    staleness_max: Any = 0
    inner_steps: Any = 0  # behind the gradients
    seconds: Any = 0.0  # of computing time behind them


KINDS = Counters(*[tf.int64] * 6, tf.float64)


class Work(NamedTuple):
    """The work that an update results from."""

    version: Any  # version that was read with the vector
    slot: Any  # slot of the meta-iteration
    number: Any  # number of the meta-iteration
    unroll: Any  # number of the unroll in it
    inner_steps: Any
    seconds: Any  # of computing, float64
    dry: Any = False  # whether it is a trial, which changes nothing


class Outcome(NamedTuple):
    """The outcome of one update."""

    iteration: Any  # its number
    staleness: Any  # updates between its worker's reading and its writing
    late: Any  # whether it was dropped for its staleness


class ServedParameters:
    """Variables of a `MetaState`, and updates under a lock.

    An update reads and writes ten variables. With one lock around all of it, on
    the server that holds them, no update is lost and each one's staleness is
    known exactly; TensorFlow's own locked optimizers lock each variable by
    itself. Everything that an update needs is on the server before it takes the
    lock, so a worker that dies cannot hold it.

    Args:
        config: config of the run.
        state: state to start from.
        slots: number of meta-iterations that may be under way at a time.
        max_staleness: older updates are dropped; None drops none.
        device: device of the server; None is this machine.
    """

    def __init__(
        self,
        config: MetaConfig,
        state: MetaState,
        slots: int = 1,
        max_staleness: int | None = None,
        device: str | None = None,
    ):
        self.config, self.max_staleness = config, max_staleness
        self._device = device
        with self._place():
            self._lock = tf.CriticalSection(name="meta_parameters")
            self.state = MetaState(
                *(tf.Variable(value, trainable=False) for value in state)
            )
            self.counters = Counters(
                *(
                    tf.Variable(tf.zeros((), kind), trainable=False)
                    for kind in KINDS
                )
            )
            # For each slot: its meta-iteration, and how far that got.
            self._owners = tf.Variable(tf.fill((slots,), -1), trainable=False)
            self._progress = tf.Variable(tf.zeros((slots,), tf.int32),
                                         trainable=False)  # fmt: skip
        self._snapshot = tf.function(self._snapshot_locked)

    def _place(self):
        if self._device is None:
            return contextlib.nullcontext()
        return tf.device(self._device)

    def read(self):
        """The vector, and its version: the number of updates before it.

        The version is read first: staleness is never understated.
        """
        with self._place():
            version = self.state.updates.read_value()
            with tf.control_dependencies([version]):
                vector = self.state.vector.read_value()
            message = tf.concat([vector, _digits([version])], 0)
        return message[:-2], _whole(message[-2:])[0]

    def apply(self, gradient, work: Work) -> Outcome:
        """One update; for use in a graph.

        Args:
            gradient: meta-gradient [M]; zero or not finite moves nothing.
            work: work that it results from.
        """
        # One message each way: every tensor would be one of its own.
        seconds = tf.reshape(tf.cast(work.seconds, tf.float32), (1,))
        whole = [tf.cast(x, tf.int32) for x in work._replace(seconds=0)]
        message = tf.concat([gradient, seconds, _digits(whole)], 0)
        with self._place():
            message = tf.identity(message)
            with tf.control_dependencies([message]):
                outcome = self._lock.execute(lambda: self._apply(message))
        iteration, staleness, late = tf.unstack(outcome)
        return Outcome(iteration, staleness, late > 0)

    def _apply(self, message):
        """The update. Returns an `Outcome` as integers [3]."""
        size = self.state.vector.shape[0]
        gradient, seconds = message[:size], message[size]
        work = Work(*_whole(message[size + 1 :]))
        work = work._replace(seconds=seconds, dry=work.dry > 0)
        old = MetaState(*(v.read_value() for v in self.state))
        staleness = old.updates - work.version
        late = tf.constant(False)
        if self.max_staleness is not None:
            late = staleness > self.max_staleness
        gradient = tf.where(late, tf.zeros_like(gradient), gradient)
        new = meta_optimizer.update(self.config, old, gradient)
        known = self._owners[work.slot] == work.number
        done = tf.where(known, self._progress[work.slot], 0)
        more = Counters(
            late=late,
            unusable=~late & (new.updates == old.updates),
            repeated=work.unroll < done,
            staleness=staleness,
            staleness_max=tf.maximum(
                0, staleness - tf.cast(self.counters.staleness_max, tf.int32)
            ),
            inner_steps=work.inner_steps,
            seconds=work.seconds,
        )
        unless = tf.where(work.dry, 0, 1)
        writes = [
            *(
                v.assign(tf.where(work.dry, a, b))
                for v, a, b in zip(self.state, old, new, strict=True)
            ),
            *(
                v.assign_add(tf.cast(x, v.dtype) * tf.cast(unless, v.dtype))
                for v, x in zip(self.counters, more, strict=True)
            ),
            self._owners.scatter_nd_update(
                [[work.slot]], [tf.where(work.dry, -1, work.number)]
            ),
            self._progress.scatter_nd_update(
                [[work.slot]], [tf.maximum(done, work.unroll + 1) * unless]
            ),
        ]
        with tf.control_dependencies(writes):
            late = tf.cast(late, old.iteration.dtype)
            return tf.stack([old.iteration, staleness, late])

    def _snapshot_locked(self):
        with self._place():
            return self._lock.execute(
                lambda: tuple(
                    tf.identity(v.read_value())
                    for v in (*self.state, *self.counters)
                )
            )

    def snapshot(self) -> tuple[MetaState, Counters]:
        """All values at one moment, between two updates, in NumPy."""
        values = [value.numpy() for value in self._snapshot()]
        count = len(MetaState._fields)
        *vectors, iteration, updates = values[:count]
        state = MetaState(*vectors, int(iteration), int(updates))
        return state, Counters(*(value.item() for value in values[count:]))

    def restore(self, state: MetaState, counters: Counters):
        """The inverse of `snapshot`, before any work begins."""
        variables = (*self.state, *self.counters)
        values = (*state, *counters)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(np.asarray(value, variable.dtype.as_numpy_dtype))


def _digits(numbers):
    """Integers of 0 or more [N] as floats [2 N], which hold them exactly."""
    numbers = tf.stack(numbers)
    digits = tf.concat([numbers // DIGIT, numbers % DIGIT], 0)
    return tf.cast(digits, tf.float32)


def _whole(digits) -> list:
    """The inverse of `_digits`: N integers."""
    high, low = tf.split(tf.cast(digits, tf.int32), 2)
    return tf.unstack(DIGIT * high + low)
