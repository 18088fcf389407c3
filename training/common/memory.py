"""Peak memory of a piece of work."""

import pathlib
import resource
import sys


class Peak:
    """`with Peak() as peak: work()`, then `peak.megabytes`.

    How far the process's resident memory rose above its value at the start.
    On Linux the high-water mark is reset first; elsewhere it may hide a rise
    that stays below an earlier one.
    """

    def __enter__(self):
        if sys.platform == "linux":
            pathlib.Path("/proc/self/clear_refs").write_text("5")
        self._start = _status("VmRSS:", _highest())
        self.megabytes = 0.0
        return self

    def __exit__(self, *exception):
        peak = _status("VmHWM:", _highest())
        self.megabytes = (peak - self._start) / 1e6


def fill_free_memory() -> list:
    """Arrays that fill the freed memory that TensorFlow keeps.

    While they live, every allocation raises the resident memory. Without
    /proc nothing is filled, and a `Peak` may be too low.
    """
    import tensorflow as tf  # Other backends measure without it.

    kept = []
    for size in (2**24, 2**22, 2**20, 2**18, 2**16):
        fresh = 0
        while fresh < 3 and sys.platform == "linux":
            before = _status("VmRSS:", 0.0)
            kept.append(tf.fill((size // 4,), 1.0))
            grown = _status("VmRSS:", 0.0) - before > 0.9 * size
            fresh = fresh + 1 if grown else 0
    return kept


def _status(key: str, default: float) -> float:
    if sys.platform != "linux":
        return default
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return 1024 * float(line.split()[1])
    return default


def _highest() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
