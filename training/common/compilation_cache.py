"""XLA's programs, kept for the next start of a program that asks for it.

TensorFlow reads the folder from the environment once: when it computes for the
first time, or when `absl.app.run` begins. So a program that wants the cache
calls `enable` before that, and its modules compute nothing while they are
imported.

`HRNN_OPT_CACHE` names the folder; empty, nothing is kept. What has not been
read for a month goes at the next start: every edit of the sources leaves some.
"""

import os
import pathlib
import time

UNUSED = 30 * 24 * 3600
"""Seconds."""

OURS = "xla_compile_cache__*.pb"
"""The folder may hold other things, too."""


def forget_unused(folder: pathlib.Path):
    """Removes programs that nobody has read or written lately."""
    earliest = time.time() - UNUSED
    for path in list(folder.glob(OURS)):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue  # Another process has just done so.
        # Some file systems do not note when a file is read.
        if max(found.st_atime, found.st_mtime) < earliest:
            path.unlink(missing_ok=True)


def enable():
    """Keeps what XLA compiles from now on, in this process and its children.

    A folder that `TF_XLA_FLAGS` names already stays the one. Once TensorFlow
    has read it, the call has no effect.
    """
    folder = os.environ.get("HRNN_OPT_CACHE", "~/.cache/hrnn_opt/xla")
    given = os.environ.get("TF_XLA_FLAGS", "")
    if not folder or "tf_xla_persistent_cache_directory" in given:
        return
    folder = pathlib.Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    forget_unused(folder)
    flag = f"--tf_xla_persistent_cache_directory={folder}"
    os.environ["TF_XLA_FLAGS"] = f"{given} {flag}".strip()
