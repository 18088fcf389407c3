"""Text that every machine has: Python's own standard library."""

import functools
import hashlib
import pathlib
import sysconfig
from pydoc_data.topics import topics

import numpy as np

SKIPPED = frozenset(
    {"test", "tests", "site-packages", "encodings", "lib2to3", "distutils",
     "idlelib", "turtledemo", "tkinter", "pydoc_data", "ensurepip"}
)  # fmt: skip
"""Folders that are left out: tables, and what some installations lack."""

_HELD_OUT = 10
"""One block of a text in this many is held out."""


def _folder() -> pathlib.Path:
    return pathlib.Path(sysconfig.get_paths()["stdlib"])


@functools.lru_cache(maxsize=1)
def sources() -> dict[str, str]:
    """The source texts of the standard library, by module or package."""
    found = {}
    for path in sorted(_folder().rglob("*.py")):
        parts = path.relative_to(_folder()).parts
        if SKIPPED.isdisjoint(parts) and not parts[0].startswith("_sysconfig"):
            name = parts[0].removesuffix(".py")
            text = path.read_text(encoding="utf-8", errors="replace")
            found[name] = found.get(name, "") + text
    return found


@functools.lru_cache(maxsize=1)
def documentation() -> str:
    """The reference manual's topics, which `help()` shows."""
    return "\n".join(topics.values())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def digest_of_sources() -> str:
    """A digest that tells the sources of two versions of Python apart."""
    return _digest("".join(sources().values()))


def digest_of_documentation() -> str:
    """A digest that tells the manuals of two versions of Python apart."""
    return _digest(documentation())


PRINTABLE = "".join(map(chr, range(32, 127)))
CHARACTERS = len(PRINTABLE) + 2
"""Size of the vocabulary: printable ASCII, the end of a line, all others."""


def indices(text: str) -> np.ndarray:
    """Every character's index in the vocabulary, [characters]."""
    table = np.full(0x110000, CHARACTERS - 1, np.int32)
    table[[ord(c) for c in PRINTABLE]] = np.arange(len(PRINTABLE))
    table[ord("\n")] = CHARACTERS - 2
    return table[np.frombuffer(text.encode("utf-32-le"), np.uint32)]


def parts(sequence: np.ndarray, block: int = 4096) -> tuple:
    """A sequence without every tenth block, and these blocks, [n]."""
    block = np.arange(len(sequence)) // block
    held = block % _HELD_OUT == _HELD_OUT - 1
    return sequence[~held], sequence[held]


def windows(sequence: np.ndarray, generator, count: int, length: int):
    """Windows at random places, [count, length]."""
    starts = generator.integers(0, len(sequence) - length + 1, count)
    return sequence[starts[:, None] + np.arange(length)]
