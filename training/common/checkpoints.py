"""Checkpoints of a run, written atomically.

A checkpoint is an `.npz` of named arrays with a JSON text; it contains no
pickle and can be read everywhere.
"""

import io
import json
import pathlib
import re
import zipfile

import numpy as np
from absl import logging

from training.common import files, old_names

_NAME = re.compile(r"checkpoint-(\d+)\.npz")


def write(path, arrays: dict, info: dict):
    """Writes named arrays and JSON-serializable `info`, atomically."""
    with files.replacing(path) as file:
        np.savez(file, **arrays, info=np.array(json.dumps(info)))


def read(path) -> tuple[dict, dict]:
    """Reads arrays and info, under their present names.

    Raises:
        ValueError: the file is not a checkpoint, or is damaged.
        OSError: the file cannot be read.
    """
    content = io.BytesIO(pathlib.Path(path).read_bytes())
    try:
        with np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        info = json.loads(str(arrays.pop("info")))
    except (
        zipfile.BadZipFile, EOFError, KeyError, RuntimeError, ValueError,
    ) as error:  # fmt: skip
        raise ValueError(
            f"Argument `path` must be a whole checkpoint ({error}). "
            f"Received: path={str(path)!r}"
        ) from error
    return old_names.arrays(arrays), old_names.info(info)


def numbered(folder) -> list[tuple[int, pathlib.Path]]:
    """(meta-iteration, path) of the checkpoints in a folder, oldest first."""
    found = []
    for path in pathlib.Path(folder).glob("checkpoint-*.npz"):
        match = _NAME.fullmatch(path.name)
        if match:
            found.append((int(match.group(1)), path))
    return sorted(found)


def save(folder, iteration: int, arrays: dict, info: dict, keep: int):
    """Writes the checkpoint of a meta-iteration; keeps the newest `keep`."""
    path = pathlib.Path(folder) / f"checkpoint-{iteration:09d}.npz"
    write(path, arrays, info)
    for _, old in numbered(folder)[:-keep]:
        old.unlink()


def newest(folder) -> tuple[dict, dict] | None:
    """The newest whole checkpoint; damaged ones are skipped with a warning."""
    for _, path in reversed(numbered(folder)):
        try:
            return read(path)
        except ValueError as error:
            logging.warning("Skipped a damaged checkpoint. %s", error)
    return None
