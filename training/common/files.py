"""Files that are whole or as they were, whenever a program ends.

`hrnn_opt.weights` does the same in its own words, since it imports nothing of
this package.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path) -> Iterator[BinaryIO]:
    """A file to write into, which takes the place of `path` at the end.

    It is written beside its place, brought to the disk and moved. After an
    error nothing has changed. Folders above it are made.

    Args:
        path: the file that is replaced, or made.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write(path, content: bytes | str):
    """Replaces the content of a file; text is written as UTF-8."""
    if isinstance(content, str):
        content = content.encode()
    with replacing(path) as file:
        file.write(content)
