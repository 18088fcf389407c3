"""XLA's programs are kept for the next start, once this module is imported.

TensorFlow reads where from the environment, as soon as it computes anything,
which Keras does when it is imported. So programs that want this import it
before both. Graphs are kept beside (`kept_graphs`).

`HRNN_OPT_CACHE` names the folder; empty, nothing is kept.
"""

import os
import pathlib


def _keep():
    folder = os.environ.get("HRNN_OPT_CACHE", "~/.cache/hrnn_opt/xla")
    given = os.environ.get("TF_XLA_FLAGS", "")
    if not folder or "tf_xla_persistent_cache_directory" in given:
        return
    folder = pathlib.Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    flag = f"--tf_xla_persistent_cache_directory={folder}"
    os.environ["TF_XLA_FLAGS"] = f"{given} {flag}".strip()


_keep()
