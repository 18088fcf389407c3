"""All tasks by name, and the parts of the suite."""

import problems.pictures
from training.evaluation.practice import (
    attention,
    convex,
    convolution,
    coordinates,
    dense,
    embeddings,
    recurrent,
    unsupervised,
)
from training.evaluation.practice.task import HALVES, Task

_KINDS = (
    dense,
    convolution,
    attention,
    recurrent,
    unsupervised,
    embeddings,
    convex,
    coordinates,
)

TASKS: dict[str, Task] = {
    task.name: task for kind in _KINDS for task in kind.TASKS
}

QUICK = (
    "tanh_mlp",
    "plain_convnet",
    "resnet_batch",
    "char_transformer",
    "char_lstm",
    "text_embedding",
    "logistic",
    "sine_network",
)
"""Eight of the tasks for decisions, which take minutes on one core."""


def selected(names=None, half: str | None = None, quick: bool = False) -> list:
    """The tasks that are asked for, in the order of the suite.

    Args:
        names: names of tasks; None for all.
        half: one of `HALVES`; None for both.
        quick: whether to keep only those of `QUICK`.

    Raises:
        ValueError: an unknown name or half, or nothing is left.
    """
    unknown = [name for name in names or () if name not in TASKS]
    if unknown:
        raise ValueError(
            f"Argument `names` must be of {', '.join(TASKS)}. "
            f"Received: {', '.join(unknown)}"
        )
    if half is not None and half not in HALVES:
        raise ValueError(
            f"Argument `half` must be one of {', '.join(HALVES)}. "
            f"Received: {half!r}"
        )
    found = [
        task
        for task in TASKS.values()
        if (not names or task.name in names)
        and half in (None, task.half)
        and (not quick or task.name in QUICK)
    ]
    if not found:
        raise ValueError(
            "No task is left of those that are asked for. "
            f"Received: names={names}, half={half}, quick={quick}"
        )
    return found


def check_data(tasks):
    """Reports missing data before anything is run.

    Args:
        tasks: tasks that are to be run.

    Raises:
        FileNotFoundError: a data set is not prepared.
        ImportError: tensorflow-datasets is not installed.
    """
    for name in dict.fromkeys(task.pictures for task in tasks):
        if name:
            problems.pictures.prepared(name)
