"""A persistent cache of XLA's programs, for programs that enable it.

TensorFlow reads the folder from the environment once: when it computes for the
first time, or when `absl.app.run` begins. So a program that wants the cache
calls `enable` before that, and its modules compute nothing while they are
imported.

`HRNN_OPT_CACHE` names the folder; if it is empty, nothing is kept. Entries that
have not been read for a month are removed at the next start, since every edit
of the sources leaves unused ones.
"""

import os
import pathlib
import time

UNUSED = 30 * 24 * 3600
"""Seconds after which an unused entry is removed."""

OURS = "xla_compile_cache__*.pb"
"""Files of the cache; the folder may hold others, too."""


def forget_unused(folder: pathlib.Path):
    """Removes programs that nobody has read or written lately."""
    earliest = time.time() - UNUSED
    for path in list(folder.glob(OURS)):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue  # Another process has just removed it.
        # Some file systems do not record when a file is read.
        if max(found.st_atime, found.st_mtime) < earliest:
            path.unlink(missing_ok=True)


def enable():
    """Keeps what XLA compiles from now on, in this process and its children.

    A folder that `TF_XLA_FLAGS` already names takes precedence. Once TensorFlow
    has read that variable, the call has no effect.
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
