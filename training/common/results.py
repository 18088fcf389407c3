"""Results of long comparisons, stored as they arrive.

They are kept in a CSV file with a line for each finished job: a comparison that
was interrupted, or one of other weights with the same rivals, only runs what is
missing. A last line that was cut off, by a full disk or a lost machine, is
dropped.
"""

import csv
import pathlib


class Results:
    """Results of jobs, by key.

    Args:
        path: the file, made with the first result; None keeps results in
            memory only.

    Raises:
        ValueError: a line of the file is not a key and numbers.
    """

    def __init__(self, path=None):
        self._path = None if path is None else pathlib.Path(path)
        self._found = {}
        if self._path is None or not self._path.exists():
            return
        self._drop_unfinished()
        with self._path.open(newline="") as file:
            for number, line in enumerate(csv.reader(file), 1):
                try:
                    key, *values = line
                    self._found[key] = [float(value) for value in values]
                except ValueError as error:
                    raise ValueError(
                        f"Line {number} of {self._path} must be a key and "
                        f"numbers. Received: {line}"
                    ) from error

    def _drop_unfinished(self):
        """Drops a last line without an end, where a number may be cut short."""
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self._path.open("r+b") as file:
                file.truncate(whole)

    def __contains__(self, key: str) -> bool:
        """Whether a job is finished."""
        return key in self._found

    def get(self, key: str, job) -> list[float]:
        """The result of a job; `job()` is called if there is none yet."""
        if key not in self._found:
            self._found[key] = [float(value) for value in job()]
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", newline="") as file:
                    csv.writer(file).writerow([key, *self._found[key]])
        return self._found[key]
