"""`estimate`: what the optimizer will cost a model, before it trains."""

import dataclasses
import math

import keras

from hrnn_opt import backend
from hrnn_opt.cost import calibration, footprint
from hrnn_opt.find_optimizers import learned_optimizers
from hrnn_opt.keras_optimizer import HierarchicalRNN
from hrnn_opt.model import bases
from hrnn_opt.model.slots import float_type


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A forecast; `str` formats it as a table.

    Attributes:
        parameters: number of trainable parameters.
        tensors: number of trainable variables.
        slot_bytes: bytes of the optimizer's state.
        temporary_bytes: bytes at the peak of an update, besides the state.
        adam_slot_bytes: bytes of the state of Keras's Adam.
        update_seconds: time of an update.
        adam_update_seconds: time of an update of Keras's Adam.
        gradient_seconds: time of a gradient; None if no batch was given.
        assumptions: what the forecast assumes, a sentence each.
    """

    parameters: int
    tensors: int
    slot_bytes: int
    temporary_bytes: int
    adam_slot_bytes: int
    update_seconds: float
    adam_update_seconds: float
    gradient_seconds: float | None
    assumptions: tuple[str, ...]

    @property
    def peak_bytes(self) -> int:
        """State and temporaries together."""
        return self.slot_bytes + self.temporary_bytes

    @property
    def held_bytes(self) -> int:
        """Upper bound on what the process holds besides these."""
        return footprint.held_bytes(self.peak_bytes, self.tensors)

    @property
    def step_seconds(self) -> float | None:
        """Time of gradient and update; None if no batch was given."""
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
            memory("held besides, at most", self.held_bytes),
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
        model: a built model, compiled or not.
        optimizer: a `HierarchicalRNN`, built or not. None stands for the
            model's, or for a new one if the model has none of this kind.
        batch: inputs of the model, or a number of random inputs of the model's
            input shape, to time the gradient, too.
        seconds: measuring time of each figure.

    Raises:
        ValueError: an argument is invalid, or the model is not built or has no
            trainable weights.

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
    update, adam = calibration.update_seconds(
        [lambda: _like(optimizer), keras.optimizers.Adam],
        sizes,
        dtype,
        jit_compile,
        seconds,
    )
    sides = list(bases.sides_of(optimizer.config, variables).values())
    update += calibration.basis_seconds(sides, dtype, seconds)
    gradient = None
    if batch is not None:
        gradient = calibration.gradient_seconds(
            model, batch, jit_compile, seconds
        )
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
        "held besides: the first step's graph and programs, freed memory that "
        "is kept; a bound, with TensorFlow on a CPU",
    ]
    return Estimate(
        parameters=sum(sizes),
        tensors=len(sizes),
        slot_bytes=footprint.slot_bytes(optimizer, model.trainable_variables),
        temporary_bytes=footprint.temporary_bytes(
            optimizer.config,
            sizes,
            footprint.item_bytes(dtype),
            jit_compile,
            footprint.item_bytes(
                dtype
                if optimizer.state_dtype == "float32"
                else optimizer.state_dtype
            ),
        )
        + footprint.basis_bytes(sides, footprint.item_bytes(dtype)),
        adam_slot_bytes=2 * sum(map(footprint.variable_bytes, variables)),
        update_seconds=update,
        adam_update_seconds=adam,
        gradient_seconds=gradient,
        assumptions=tuple(assumptions),
    )


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
        for tensor in keras.tree.flatten(calibration.symbolic_inputs(model))
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
                "guard", "state_dtype", "use_ema", "ema_momentum",
                "ema_overwrite_frequency",
            )
        },
    )  # fmt: skip
