"""`--dry_run`: what a run will cost, reported without any training."""

import keras
import numpy as np

import hrnn_opt
from hrnn_opt import HierarchicalRNN
from training.imagenet.settings import Settings


def state_bytes(optimizer: keras.optimizers.Optimizer, parameters: int) -> int:
    """Bytes of the state of a Keras optimizer that is not built yet.

    These optimizers keep a fixed number of values per parameter, so a tiny
    model is enough. `optimizer` cannot be used afterwards.
    """
    probe = keras.Variable(np.zeros((1000,), "float32"))
    optimizer.build([probe])
    per_parameter = sum(
        int(np.prod(v.shape)) for v in optimizer.variables
    ) // 1000  # fmt: skip
    return 4 * parameters * per_parameter


def report(
    settings: Settings,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    steps: int,
    replicas: int,
) -> str:
    """A readable report of parameters, optimizer memory and time.

    Args:
        settings: settings of the run.
        model: model of the run.
        optimizer: optimizer of the run, not built; it cannot be used again.
        steps: number of steps of the run.
        replicas: number of replicas that share a batch.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    learned = isinstance(inner, HierarchicalRNN)
    told = hrnn_opt.estimate(
        model,
        inner if learned else None,
        batch=settings.batch_size // replicas,
    )
    update = told.update_seconds if learned else told.adam_update_seconds
    state = told.slot_bytes if learned else state_bytes(inner, told.parameters)
    peak = told.peak_bytes if learned else state
    step = told.gradient_seconds + update
    epoch = settings.steps_per_epoch
    lines = [
        f"{settings.model}, pictures of {settings.image_size} x "
        f"{settings.image_size}, {settings.precision}: "
        f"{model.count_params():,} parameters, {told.parameters:,} of them "
        f"trained, in {told.tensors} tensors",
        f"{settings.optimizer}: state {state / 1e6:,.1f} MB"
        + (
            f", with the temporaries of an update {peak / 1e6:,.1f} MB; the "
            f"process holds at most {told.held_bytes / 1e6:,.0f} MB besides"
            if learned
            else ""
        ),
        f"model and gradient: "
        f"{4 * (model.count_params() + told.parameters) / 1e6:,.1f} MB, and "
        "the activations",
        f"a step of {settings.batch_size} pictures on {replicas} replica(s): "
        f"{step:.3f} s, {update:.3f} s of it the update"
        + ("" if learned else " (taken for that of Adam)"),
        f"{steps:,} steps: {_duration(steps * step)}; an epoch of "
        f"{epoch:,} steps: {_duration(epoch * step)}",
        "Times are without input, the sum over replicas and the first step's "
        "compilation.",
    ]
    if learned:
        lines += ["", str(told)]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} seconds"
