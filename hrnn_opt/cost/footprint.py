"""Bytes that the optimizer needs for a model, without allocating them."""

import math
import re

import keras

from hrnn_opt.model import chunks, tables
from hrnn_opt.model.slots import Slots

WORKING_COPIES = 6.5
"""Memory of the program of one chunk, relative to the chunk's state; measured.
"""

HELD_BASE, HELD_TENSOR, HELD_SHARE, HELD_MOST = 300e6, 3e6, 0.5, 1.6e9
"""Constants of `held_bytes`: bytes, bytes a tensor, share of the peak, bytes.
Measured as how far resident memory rises above that of a process with Adam, on
models of 6 to 364 tensors, 0.3 to 24 million parameters: 0.34, 0.72, 1.3, 1.5
GB.
"""


def item_bytes(dtype) -> int:
    """Bytes of a number of this dtype; NumPy does not know bfloat16."""
    bits = re.search(r"\d+$", keras.backend.standardize_dtype(dtype))
    return int(bits.group()) // 8


def variable_bytes(variable) -> int:
    """Bytes of one variable."""
    return math.prod(variable.shape) * item_bytes(variable.dtype)


def slot_bytes(optimizer, variables) -> int:
    """Bytes of the optimizer's variables, counted without allocating them."""
    total = 12  # iterations and learning rate

    def add_variable(shape, dtype, **unused):
        del unused
        nonlocal total
        total += math.prod(shape) * item_bytes(dtype)

    Slots(
        optimizer.config,
        optimizer._initial_vector,
        variables,
        add_variable,
        optimizer.guard,
        optimizer.state_dtype,
        tables.allowed(optimizer),
    )
    # Keras's own: averages and accumulated gradients.
    copies = bool(optimizer.use_ema) + bool(
        optimizer.gradient_accumulation_steps
    )
    return total + copies * sum(map(variable_bytes, variables))


def temporary_bytes(
    config, sizes, itemsize: int, jit_compile: bool, state_itemsize: int
) -> int:
    """Bytes that an update allocates at its peak, besides the state.

    All directions u are kept until the tensors' sums are known; the program of
    one chunk works on some six copies of its state; small tensors' states are
    joined; the largest tensor is put together from its pieces. In one compiled
    program of many chunks the state exists four times. All this is for a CPU.

    Args:
        config: the features in use.
        sizes: number of parameters of each tensor.
        itemsize: bytes of a number in computations.
        jit_compile: whether the training step is one compiled program.
        state_itemsize: bytes of a number in the state.
    """
    plan = chunks.plan(tuple(sizes), jit_compile)
    if jit_compile:
        return round(3 * sum(sizes) * state_itemsize * (config.state_rows + 1))
    padded = [
        sum(piece.size for piece in chunk.pieces) + sum(chunk.padding)
        for chunk in plan.chunks
    ]
    joined = sum(
        size
        for size, chunk in zip(padded, plan.chunks, strict=True)
        if not chunk.alone
    )
    floats = (
        config.directions * sum(sizes)
        + WORKING_COPIES * config.state_rows * max(padded)
        + max(sizes)
    )
    return round(
        itemsize * floats + state_itemsize * config.state_rows * joined
    )


def basis_bytes(sides, itemsize: int) -> int:
    """Bytes that eigenbases add to the temporaries of an update.

    The gradients of all matrices with a basis exist in it, too, during a step;
    a turn works on four copies of the largest side and, of the largest matrix,
    on averages at all timescales, which are counted as eight copies.

    Args:
        sides: `eigenbasis.Sides` of each matrix that has a basis.
        itemsize: bytes of a number in computations.
    """
    if not sides:
        return 0
    sizes = [s.rows * s.columns for s in sides]
    squares = [
        d * d
        for s in sides
        for d, present in ((s.rows, s.left), (s.columns, s.right))
        if present
    ]
    return itemsize * (sum(sizes) + 8 * max(sizes) + 4 * max(squares))


def held_bytes(peak: float, tensors: int) -> int:
    """An upper bound on what the process holds besides state and temporaries.

    This is the traced graph and compiled programs of the first step, and freed
    memory that allocators keep. The bound comes from measurements on a CPU with
    TensorFlow.

    Args:
        peak: bytes of state and temporaries.
        tensors: number of trainable variables.
    """
    grown = HELD_BASE + HELD_TENSOR * tensors + HELD_SHARE * peak
    return round(min(HELD_MOST, grown))
