"""Step times of a model's optimizer, from short runs on parts of the model.

The rule costs about the same for every chunk of one shape (see `chunks`), so a
few chunks are timed, and the times extrapolated. A small model is timed as a
whole.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from hrnn_opt import backend
from hrnn_opt.model import bases, chunks

MORE = 4
"""Pieces by which the larger part exceeds the smaller one."""


class Parts(NamedTuple):
    """What is timed, and what the whole model consists of."""

    smaller: list[int]  # sizes of tensors
    larger: list[int]  # with MORE additional pieces, or the same
    pieces: int  # full pieces in `smaller`
    all_pieces: int
    packed: int  # parameters of small tensors in `smaller`, with padding
    all_packed: int


def parts(sizes: Sequence[int], jit_compile: bool) -> Parts:
    """Chooses parts of a model that represent the whole.

    Args:
        sizes: number of parameters of each tensor.
        jit_compile: whether the training step is one compiled program.
    """
    plan = chunks.plan(tuple(sizes), jit_compile)
    whole, packed = [], []
    for chunk in plan.chunks:
        own = [piece.size for piece in chunk.pieces]
        if own == [chunks.PIECE]:
            whole += own
        else:
            packed.append((sum(own) + sum(chunk.padding), own))
    packed.sort(key=lambda pair: pair[0])
    size, rest = packed[len(packed) // 2] if packed else (0, [])
    # Compiled as a whole, a model of many chunks is a different program.
    few = chunks.UNROLLED + 1 if plan.mapped else 1
    smaller = min(few, len(whole))
    larger = min(few + MORE, len(whole))
    if larger == len(whole) and len(packed) <= 1:
        smaller = larger
    return Parts(
        [chunks.PIECE] * smaller + rest,
        [chunks.PIECE] * larger + rest,
        smaller,
        len(whole),
        size,
        sum(pair[0] for pair in packed),
    )


def count_up(part: Parts, smaller: float, larger: float) -> float:
    """Extrapolates the times of the two parts to the whole model."""
    more = len(part.larger) - len(part.smaller)
    if more:
        piece = max(larger - smaller, 0.0) / more
    else:
        own = part.pieces * chunks.PIECE
        piece = smaller * chunks.PIECE / (own + part.packed)
    time_packed = max(smaller - part.pieces * piece, 0.0)
    share = part.all_packed / part.packed - 1 if part.packed else 0.0
    more = part.all_pieces - part.pieces
    return smaller + more * piece + share * time_packed


def update_seconds(
    makers: Sequence[Callable],
    sizes: Sequence[int],
    dtype: str,
    jit_compile: bool,
    seconds: float,
) -> list[float]:
    """Forecasts how long an update of a model takes.

    Args:
        makers: functions that create a new optimizer each; these are timed in
            turn, so that noise of the machine affects all alike.
        sizes: number of parameters of each tensor of the model.
        dtype: dtype of the parameters.
        jit_compile: whether the training step is one compiled program.
        seconds: approximate measuring time of each figure.

    Returns:
        Seconds of an update, for each maker.
    """
    part = parts(sizes, jit_compile)
    runs = [part.smaller]
    if part.larger != part.smaller:
        runs.append(part.larger)
    steps = [
        _step(make(), run, dtype, jit_compile)
        for make in makers
        for run in runs
    ]
    times = medians(steps, seconds)
    return [
        count_up(part, times[k], times[k + len(runs) - 1])
        for k in range(0, len(times), len(runs))
    ]


def medians(calls: Sequence[Callable], seconds: float) -> list[float]:
    """Median times of functions, called in turn; the first call is not
    counted."""
    times = [[] for _ in calls]
    for call in calls:
        call()
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end or len(times[0]) < 5:
        for call, kept in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            kept.append(time.perf_counter() - start)
    return [statistics.median(kept) for kept in times]


def basis_seconds(sides: Sequence, dtype: str, seconds: float) -> float:
    """How much longer an update takes because matrices have eigenbases.

    Args:
        sides: `eigenbasis.Sides` of each matrix that has one.
        dtype: dtype of the parameters.
        seconds: approximate measuring time.
    """
    kinds = Counter(sides)
    calls = [
        _waiting(function)
        for kind in kinds
        for function in bases.additional(kind, dtype)
    ]
    if not calls:
        return 0.0
    times = medians(calls, seconds / len(calls))
    steps, turns = times[::2], times[1::2]
    return sum(
        count * (step + turn / bases.PERIOD)
        for count, step, turn in zip(kinds.values(), steps, turns, strict=True)
    )


def _waiting(function) -> Callable:
    """A traced function of nothing, which waits for its results."""
    run = backend.trace_function(function)

    def call():
        for value in run():
            if value is not None:
                ops.convert_to_numpy(value[:1])

    return call


def _step(optimizer, sizes, dtype, jit_compile) -> Callable:
    """A function that makes one step on tensors of these sizes."""
    variables = [keras.Variable(ops.zeros((size,), dtype)) for size in sizes]
    gradients = [ops.full((size,), 1e-3, dtype) for size in sizes]
    # Nothing is evaluated here: no warning of a missing callback is due.
    optimizer.swapped_by_callback = optimizer.guarded_by_callback = True
    optimizer.build(variables)
    step = backend.compile_step(lambda: optimizer.apply(gradients), jit_compile)

    def run():
        step()
        ops.convert_to_numpy(variables[-1][:1])

    return run


def gradient_seconds(model, batch, jit_compile, seconds) -> float:
    """Median time of a gradient; leaves the model's state as it was."""
    if isinstance(batch, int):
        batch = keras.tree.map_structure(
            lambda tensor: _random_inputs(tensor, batch), symbolic_inputs(model)
        )
    variables = [v.value for v in model.trainable_variables]

    def loss():
        outputs = keras.tree.flatten(model(batch, training=True))
        return sum(ops.mean(ops.square(ops.cast(o, "float32")))
                   for o in outputs)  # fmt: skip

    step = backend.compile_step(
        lambda: backend.gradient(loss, variables), jit_compile
    )
    state = [
        (v, ops.convert_to_numpy(v)) for v in model.non_trainable_variables
    ]
    try:
        return medians([step], seconds)[0]
    finally:
        for variable, value in state:
            variable.assign(value)


def _random_inputs(tensor, count: int):
    """Random floats; zeros for integers, an index in every vocabulary."""
    shape = (count, *tensor.shape[1:])
    if "float" not in keras.backend.standardize_dtype(tensor.dtype):
        return np.zeros(shape, tensor.dtype)
    return np.random.default_rng(0).normal(size=shape).astype(tensor.dtype)


def symbolic_inputs(model):
    """The model's symbolic inputs, or None for a model made by subclassing."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0] if model.inputs else None
    return getattr(model, "input", None)
