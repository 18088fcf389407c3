"""Atomic writing: a file is replaced as a whole or not at all.

`hrnn_opt.weights` has an implementation of its own, since it imports nothing
from this package.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path) -> Iterator[BinaryIO]:
    """A file to write into, which replaces `path` at the end.

    It is a temporary file beside `path` that is flushed to the disk and then
    renamed. After an error nothing has changed. Parent folders are made.

    Args:
        path: the file to replace or to make.
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
