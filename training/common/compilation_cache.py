"""XLA's programs are kept for the next start, once this module is imported.

TensorFlow reads where from the environment, as soon as it computes anything,
which Keras does when it is imported. So programs that want this import it
before both.

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


def _keep():
    folder = os.environ.get("HRNN_OPT_CACHE", "~/.cache/hrnn_opt/xla")
    given = os.environ.get("TF_XLA_FLAGS", "")
    if not folder or "tf_xla_persistent_cache_directory" in given:
        return
    folder = pathlib.Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    forget_unused(folder)
    flag = f"--tf_xla_persistent_cache_directory={folder}"
    os.environ["TF_XLA_FLAGS"] = f"{given} {flag}".strip()


_keep()
