"""`estimate`: what the optimizer will cost a model, before it trains."""

import dataclasses
import math
import re

import keras
import numpy as np
from keras import ops

from hrnn_opt import backend, calibration, chunks
from hrnn_opt.keras_optimizer import HierarchicalRNN
from hrnn_opt.slots import Slots, float_type
from hrnn_opt.wrapped import learned_optimizers

WORKING_COPIES = 6.5
"""Memory of the program of one chunk, relative to the chunk's state; measured.
"""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A forecast; `str` of it is a table."""

    parameters: int  # trainable ones
    tensors: int
    slot_bytes: int  # the optimizer's state
    temporary_bytes: int  # at the peak of an update, besides the state
    adam_slot_bytes: int
    update_seconds: float
    adam_update_seconds: float
    gradient_seconds: float | None  # None if no batch was given
    assumptions: tuple[str, ...]

    @property
    def peak_bytes(self) -> int:
        """State and temporaries together."""
        return self.slot_bytes + self.temporary_bytes

    @property
    def step_seconds(self) -> float | None:
        """Gradient and update; None if no batch was given."""
        if self.gradient_seconds is None:
            return None
        return self.gradient_seconds + self.update_seconds

    def __str__(self):
        def memory(what, size, note=""):
            each = size / self.parameters
            return f"{what:<34}{size / 1e6:>10,.1f} MB{each:>8.1f} B  {note}"

        def seconds(what, time, note=""):
            each = 1e9 * time / self.parameters
            return f"{what:<34}{1e3 * time:>10,.1f} ms{each:>8.1f} ns  {note}"

        lines = [
            f"{self.parameters:,} parameters in {self.tensors} tensors; "
            "per parameter on the right",
            memory("state of the optimizer", self.slot_bytes),
            memory("temporaries of an update", self.temporary_bytes),
            memory("state of Adam", self.adam_slot_bytes),
            seconds("update", self.update_seconds),
            seconds("update of Adam", self.adam_update_seconds),
        ]
        if self.gradient_seconds is not None:
            share = 100 * self.update_seconds / self.step_seconds
            lines += [
                seconds("gradient", self.gradient_seconds),
                seconds(
                    "step: gradient and update",
                    self.step_seconds,
                    f"{share:.0f} % update",
                ),
            ]
        lines += ["", "Assumed:", *(f"- {text}" for text in self.assumptions)]
        return "\n".join(line.rstrip() for line in lines)


def estimate(
    model: keras.Model, optimizer=None, batch=None, seconds: float = 1.0
) -> Estimate:
    """Forecasts memory and step time of `HierarchicalRNN` on a model.

    The state is counted, not allocated. The update is timed for a few seconds
    on variables like parts of the model. Neither the model nor its optimizer
    changes.

    Args:
        model: built; compiled or not.
        optimizer: a `HierarchicalRNN`, built or not; None is the model's, or a
            new one if the model has another or none.
        batch: to time the gradient, too: inputs of the model, or their number,
            which takes random ones of the model's input shape.
        seconds: measuring time of each figure.

    Raises:
        ValueError: an argument that makes no sense; a model that is not built
            or has no trainable weights.

    Example:
        ```python
        print(hrnn_opt.estimate(model, batch=32))
        ```
    """
    _check(model, optimizer, batch, seconds)
    assumptions = []
    if optimizer is None:
        optimizer = next(iter(learned_optimizers(model)), None)
        if optimizer is None:
            optimizer = HierarchicalRNN()
            assumptions.append(
                "the model's optimizer is no HierarchicalRNN: the default one"
            )
    variables = [v for v in model.trainable_variables if math.prod(v.shape)]
    sizes = [math.prod(v.shape) for v in variables]
    jit_compile = getattr(model, "jit_compile", False) is True
    dtype = float_type(variables)
    per_float = _itemsize(dtype)
    slot_bytes = _slot_bytes(optimizer, model.trainable_variables)
    adam_bytes = 2 * sum(map(_bytes, variables))
    update, adam = calibration.update_seconds(
        [lambda: _like(optimizer), keras.optimizers.Adam],
        sizes,
        dtype,
        jit_compile,
        seconds,
    )
    gradient = None
    if batch is not None:
        gradient = _gradient_seconds(model, batch, jit_compile, seconds)
        assumptions.append(
            "gradient: of the mean square of the outputs, in place of the loss"
        )
    assumptions += [
        f"this machine as it is now, backend {backend.NAME}, "
        + (
            "one compiled program" if jit_compile else "not compiled as a whole"
        ),
        "update: timed on parts of the model; every trainable variable has a "
        "gradient; the first step, which compiles, takes longer",
        "temporaries: as on a CPU; gradients, activations and the model's own "
        "variables are not included",
    ]
    return Estimate(
        sum(sizes), len(sizes), slot_bytes,
        temporary_bytes(optimizer.config, sizes, per_float, jit_compile),
        adam_bytes, update, adam, gradient, tuple(assumptions),
    )  # fmt: skip


def temporary_bytes(config, sizes, itemsize: int, jit_compile: bool) -> int:
    """What an update allocates at its peak, besides the state.

    All directions u wait for the tensors' sums; the program of one chunk works
    on some six copies of its state; small tensors' states are joined; the
    largest tensor is put together from its pieces. In one compiled program of
    many chunks, the state is there four times. On a CPU.

    Args:
        config: the features in use.
        sizes: number of parameters of each tensor.
        itemsize: bytes of a number.
        jit_compile: whether the training step is one compiled program.
    """
    plan = chunks.plan(tuple(sizes), jit_compile)
    if jit_compile:
        return round(3 * sum(sizes) * itemsize * (config.state_rows + 1))
    padded = [
        sum(piece.size for piece in chunk.pieces) + sum(chunk.padding)
        for chunk in plan.chunks
    ]
    joined = sum(
        size
        for size, chunk in zip(padded, plan.chunks, strict=True)
        if not chunk.alone
    )
    floats = (
        config.directions * sum(sizes)
        + WORKING_COPIES * config.state_rows * max(padded)
        + config.state_rows * joined
        + max(sizes)
    )
    return round(itemsize * floats)


def _check(model, optimizer, batch, seconds):
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Argument `model` must be a keras.Model. Received: model={model!r}"
        )
    if not model.built:
        raise ValueError(
            "Argument `model` must be built: call it on a batch, or give it a "
            f"keras.Input. Received: model={model.name!r}, not built"
        )
    if not any(math.prod(v.shape) for v in model.trainable_variables):
        raise ValueError(
            "Argument `model` must have trainable weights. "
            f"Received: model={model.name!r} with {len(model.weights)} "
            "weight(s), none of them trainable"
        )
    if optimizer is not None and not isinstance(optimizer, HierarchicalRNN):
        raise ValueError(
            "Argument `optimizer` must be a HierarchicalRNN or None. "
            f"Received: optimizer={optimizer!r}"
        )
    if isinstance(batch, (bool, float)) or (
        isinstance(batch, int) and batch < 1
    ):
        raise ValueError(
            "Argument `batch` must be inputs of the model, a number of at "
            f"least 1, or None. Received: batch={batch!r}"
        )
    if batch is not None and backend.NAME != "tensorflow":
        raise ValueError(
            "Argument `batch` needs the TensorFlow backend. "
            f"Received: batch={batch!r} on {backend.NAME}"
        )
    if isinstance(batch, int) and any(
        tensor is None or None in tensor.shape[1:]
        for tensor in keras.tree.flatten(_inputs(model))
    ):
        raise ValueError(
            "Argument `batch` must be inputs, not their number, for a model "
            "whose input shape is open. "
            f"Received: batch={batch!r}, model={model.name!r}"
        )
    if not seconds > 0:
        raise ValueError(
            f"Argument `seconds` must be above 0. Received: seconds={seconds!r}"
        )


def _inputs(model):
    """The model's symbolic inputs, or None for a model made by subclassing."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0] if model.inputs else None
    return getattr(model, "input", None)


def _itemsize(dtype) -> int:
    """Bytes of a number, also of bfloat16, which NumPy does not know."""
    bits = re.search(r"\d+$", keras.backend.standardize_dtype(dtype))
    return int(bits.group()) // 8


def _bytes(variable) -> int:
    return math.prod(variable.shape) * _itemsize(variable.dtype)


def _slot_bytes(optimizer, variables) -> int:
    """The optimizer's variables, counted by making them without values."""
    total = 12  # iterations and learning rate

    def add_variable(shape, dtype, initializer, name):
        nonlocal total
        total += math.prod(shape) * _itemsize(dtype)

    Slots(
        optimizer.config,
        optimizer._initial_vector,
        variables,
        add_variable,
        optimizer.guard,
    )
    # Keras's own: averages and accumulated gradients.
    copies = bool(optimizer.use_ema) + bool(
        optimizer.gradient_accumulation_steps
    )
    return total + copies * sum(map(_bytes, variables))


def _like(optimizer) -> HierarchicalRNN:
    """A new optimizer that does the same work; its weights do not matter."""
    return HierarchicalRNN(
        weights=None,
        config=optimizer.config,
        seed=0,
        **{
            name: getattr(optimizer, name)
            for name in (
                "weight_decay", "clipnorm", "clipvalue", "global_clipnorm",
                "guard", "use_ema", "ema_momentum", "ema_overwrite_frequency",
            )
        },
    )  # fmt: skip


def _gradient_seconds(model, batch, jit_compile, seconds) -> float:
    """Median time of a gradient; leaves the model's state as it was."""
    if isinstance(batch, int):
        batch = keras.tree.map_structure(
            lambda tensor: _random_inputs(tensor, batch), _inputs(model)
        )
    variables = [v.value for v in model.trainable_variables]

    def loss():
        outputs = keras.tree.flatten(model(batch, training=True))
        return sum(ops.mean(ops.square(ops.cast(o, "float32")))
                   for o in outputs)  # fmt: skip

    step = backend.compile_step(
        lambda: backend.gradient(loss, variables), jit_compile
    )
    state = [
        (v, ops.convert_to_numpy(v)) for v in model.non_trainable_variables
    ]
    try:
        return calibration.medians([step], seconds)[0]
    finally:
        for variable, value in state:
            variable.assign(value)


def _random_inputs(tensor, count: int):
    """Random floats, or zeros: a number that every vocabulary has."""
    shape = (count, *tensor.shape[1:])
    if "float" not in keras.backend.standardize_dtype(tensor.dtype):
        return np.zeros(shape, tensor.dtype)
    return np.random.default_rng(0).normal(size=shape).astype(tensor.dtype)
