"""XLA's programs that are kept between starts."""

import os
import time

from training.common import compilation_cache


def test_what_is_unused_is_forgotten(tmp_path):
    now, old = time.time(), time.time() - compilation_cache.UNUSED - 60
    files = {
        "xla_compile_cache__1__2__XLA_CPU_JIT.pb": (old, old),
        "xla_compile_cache__3__4__XLA_CPU_JIT.pb": (now, old),
        "xla_compile_cache__5__6__XLA_CPU_JIT.pb": (old, now),
        "thesis.pb": (old, old),
    }
    for name, times in files.items():
        (tmp_path / name).write_bytes(b"1")
        os.utime(tmp_path / name, times)  # Read, written.
    compilation_cache.forget_unused(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {name for name in files if max(files[name]) == now} | {
        "thesis.pb"
    }
