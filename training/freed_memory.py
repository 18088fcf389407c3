"""Large blocks of memory go back to the system as soon as they are freed.

glibc's `malloc` does so until the first of them is freed; then it takes blocks
up to that size (32 MB at most) from its heap instead, and between what is still
in use the heap keeps them. TensorFlow on the CPU allocates a step's temporaries
by `malloc`: after some updates of ResNet50V2 gigabytes are resident that nobody
uses.
"""

import ctypes
import os

M_MMAP_THRESHOLD = -3
"""Of `mallopt`, in glibc's malloc.h."""


def give_back(size: int = 2**20) -> bool:
    """From now on blocks of at least `size` bytes are the system's own.

    What the environment says in `MALLOC_MMAP_THRESHOLD_` stays.

    Args:
        size: in bytes; smaller blocks stay with `malloc`.

    Returns:
        Whether it was done: elsewhere than with glibc nothing changes.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return False
    try:
        return bool(ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, size))
    except (OSError, AttributeError):
        return False
