"""A model's tensors, cut and packed into chunks of parameters.

The rule costs one compiled program per array shape, so a network of hundreds of
tensors is cut into few shapes: tensors above `PIECE` parameters are cut into
pieces of exactly that size (each piece has its own slot, so a step's
temporaries are bounded by a piece, not by the largest tensor), and everything
smaller is packed side by side. Inside a chunk each tensor starts a new row of
`width` parameters; the rest of its last row is padding. A small model is cut
again, into blocks whose size hardly depends on the model: the next small model
finds their program compiled.
"""

import functools
from typing import NamedTuple

import numpy as np
from keras import ops

PIECE = 2**17
"""Parameters of the largest piece. Part of the saved state's layout."""

BLOCK = 2**12
"""Parameters of the smallest block into which a small model is cut."""

UNROLLED = 8
"""Chunks compiled one by one inside one program, about a second each."""

WIDTHS = tuple(2**k for k in range(4, 12))

FEW_WIDTHS = (16, 128, 1024)
"""Widths for small models, of which a process may have many."""


class Piece(NamedTuple):
    """Elements [start, stop) of the flattened tensor number `tensor`."""

    tensor: int
    number: int  # of the slot that holds them: 0, 1, ... within the tensor
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.stop - self.start

    def of_slot(self, slot):
        """These elements of a slot [..., n] of the tensor, which may be all."""
        if slot.shape[-1] == self.size:
            return slot
        start = self.start - self.number * PIECE
        return slot[..., start : start + self.size]


class Chunk(NamedTuple):
    """Pieces that are updated together, as rows of equal width."""

    pieces: tuple[Piece, ...]
    padding: tuple[int, ...]  # parameters missing after each piece
    owner: np.ndarray  # [R] number of the row's tensor
    first: np.ndarray  # [R] number of the row's first element in its tensor
    filled: np.ndarray | None  # [R] parameters that are not padding

    @property
    def alone(self) -> bool:
        """Whether it is a single piece without padding."""
        return len(self.pieces) == 1 and not self.padding[0]


def cut(tensor: int, size: int) -> list[Piece]:
    """The pieces of one tensor."""
    return [
        Piece(tensor, number, start, min(start + PIECE, size))
        for number, start in enumerate(range(0, size, PIECE))
    ]


class Plan(NamedTuple):
    """All chunks of a step."""

    chunks: tuple[Chunk, ...]
    mapped: bool  # one program maps over them, so they have the same shape


def plan(
    sizes: tuple[int, ...], one_program: bool, blocks: bool = False
) -> Plan:
    """Packs tensors into chunks.

    Args:
        sizes: number of parameters of each tensor.
        one_program: whether the chunks end up in one compiled program, where
            compiling each alone would take too long.
        blocks: whether a small model may be cut into blocks, so that other
            small models share its program.
    """
    chunks = _pack(sizes, uniform=False, blocks=blocks)
    if one_program and len(chunks) > UNROLLED:
        return Plan(_pack(sizes, uniform=True), mapped=True)
    return Plan(chunks, mapped=False)


@functools.lru_cache(maxsize=64)
def _pack(
    sizes: tuple[int, ...], uniform: bool, blocks: bool = False
) -> tuple[Chunk, ...]:
    pieces = [p for t, size in enumerate(sizes) for p in cut(t, size)]
    small = [p.size for p in pieces if p.size < PIECE]
    width = _best_width(small, WIDTHS)
    full = [[p] for p in pieces if p.size == PIECE]
    packed, room = [], 0
    for piece in (p for p in pieces if p.size < PIECE):
        padded = -(-piece.size // width) * width
        if padded > room:
            packed.append([])
            room = PIECE
        packed[-1].append(piece)
        room -= padded
    groups = full + packed
    # Chunks of few sizes: each size is a program to compile, and to keep.
    step = PIECE if uniform else PIECE // 8
    shared = len(groups) == 1 and len(pieces) > 1
    if len(pieces) == 1:
        width, step = pieces[0].size, 1
    elif shared and not uniform:
        few = _best_width(small, FEW_WIDTHS)
        size = sum(-(-n // few) * few for n in small)
        if size <= PIECE:
            width, step = few, max(few, _size_step(size))
            if blocks:
                groups = _blocks(pieces, width, step)
    planned = tuple(_chunk(group, width, step) for group in groups)
    if uniform or shared:
        return planned
    return tuple(
        chunk if any(chunk.padding) else chunk._replace(filled=None)
        for chunk in planned
    )


def _size_step(size: int) -> int:
    """The size of a single chunk is rounded up to a multiple of this.

    This is the size of a block, too. Up to `BLOCK` parameters it is the next
    power of two, which costs next to nothing; above, the rounded size is at
    most an eighth more, or a block.
    """
    power = 2 ** (size - 1).bit_length()
    return power if power <= BLOCK else max(BLOCK, power // 16)


def _blocks(pieces: list[Piece], width: int, size: int) -> list[list[Piece]]:
    """Cuts a sequence of pieces after every `size` parameters and padding."""
    blocks, room = [], 0
    for piece in pieces:
        start = piece.start
        while start < piece.stop:
            if not room:
                blocks.append([])
                room = size
            stop = min(piece.stop, start + room)
            blocks[-1].append(piece._replace(start=start, stop=stop))
            room -= -(-(stop - start) // width) * width
            start = stop
    return blocks


def _best_width(sizes: list[int], widths) -> int:
    """The width that wastes least; a row costs about as much as 16 elements."""

    def cost(width):
        return sum(-(-n // width) * (width + 16) for n in sizes)

    return min(widths, key=cost) if sizes else widths[-1]


def _chunk(pieces: list[Piece], width: int, step: int) -> Chunk:
    padding, owner, first, filled = [], [], [], []
    for piece in pieces:
        rows = -(-piece.size // width)
        padding.append(rows * width - piece.size)
        owner += [piece.tensor] * rows
        first += range(piece.start, piece.start + rows * width, width)
        filled += [width] * (rows - 1) + [width - padding[-1]]
    missing = -width * len(owner) % step
    padding[-1] += missing
    owner += [pieces[-1].tensor] * (missing // width)
    first += [0] * (missing // width)
    filled += [0] * (missing // width)
    return Chunk(
        tuple(pieces),
        tuple(padding),
        np.asarray(owner, "int32"),
        np.asarray(first, "int64").astype("int32"),
        np.asarray(filled, "int32"),
    )


def join(chunk: Chunk, parts: list):
    """The pieces' arrays [..., n] side by side, with the padding (zeros)."""
    padded = []
    for part, missing in zip(parts, chunk.padding, strict=True):
        padded.append(part)
        if missing:
            padded.append(ops.zeros((*part.shape[:-1], missing), part.dtype))
    return padded[0] if len(padded) == 1 else ops.concatenate(padded, axis=-1)


def split(chunk: Chunk, x) -> list:
    """The inverse of `join`: one array [..., n] a piece."""
    if chunk.alone:
        return [x]
    parts, begin = [], 0
    for piece, missing in zip(chunk.pieces, chunk.padding, strict=True):
        parts.append(x[..., begin : begin + piece.size])
        begin += piece.size + missing
    return parts
