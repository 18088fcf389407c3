"""The configuration of the rule: one frozen record, checked on construction.

Each switch is one feature of section 3.2 that the ablation of Figure 6 removes.
A set of meta-parameters belongs to one configuration; both travel together.
"""

import dataclasses
import math

RULE_VERSION = 3
"""Changes whenever the same weights would give another trajectory."""


@dataclasses.dataclass(frozen=True)
class RuleConfig:
    """What the hierarchical RNN consists of.

    Args:
        param_units: hidden size P of the Parameter RNN (paper: 10; 5 works).
        tensor_units: hidden size Q of the Tensor RNN (paper: 20; 10 works).
        global_units: hidden size G of the Global RNN (paper: 20; 10 works).
        timescales: number S of momentum timescales, section 3.2.2.
        attention: gradients are taken at phi, not theta, section 3.2.1.
        dynamic_input_scaling: Eq. 3; off, the averages enter unscaled.
        relative_log_magnitudes: the input of Eq. 4.
        direction_length: directions are normalised and multiplied by a step
            length, Eqs. 5-6; off, the RNN's output times the learning rate is
            the step.
        relative_learning_rate: Eqs. 7-8 and the input eta_rel; off, the RNN
            outputs the log step length itself.
        tensor_rnn: the middle level, Eq. 11.
        global_rnn: the top level, Eq. 12.
        shortcut: the projection of the rescaled gradients onto the directions,
            A.1.
        lazy: an element without a gradient keeps all of its state, and does not
            count in its tensor's sums: for rows of an embedding, time passes
            only when they get gradients. Off, its averages and its hidden state
            go on. Not in the paper.
        alignment: the Tensor RNN sees how well gradients agree with their
            averages (`alignment`). Not in the paper.
        age: the Tensor RNN sees how many steps its tensor has made. Not in
            the paper.
        tensor_step: a direct readout of the Tensor RNN adds to the change of
            the log step length, one number for each tensor. Not in the paper.
        negligible: an element's gradient below this share of the largest that
            its tensor had counts as none (`features.without_negligible`); 0
            counts all. Not in the paper.
        tensor_spread: the mean log step length of a tensor is at most this far
            above that of all parameters (`step_length.tensor_excess`); 0 sets
            no bound. Not in the paper.
        tensor_growth: the mean log step length of a tensor is at most this far
            above its own average over log time (`step_length.growth_excess`),
            further only in its first steps; 0 sets no bound. Not in the paper.
        tensor_decay: in later steps this is subtracted from that bound: above
            `tensor_growth`, step lengths have to fall. Not in the paper.
        catch_up: an element that had a gradient in c of its tensor's n steps
            makes its steps n / c times as long, at most this many times
            in tensors where most elements are rare (`step_length.catch_up`); 0
            leaves them as they are. Not in the paper.
        step_spread: the log root mean square of a tensor's step is at most this
            far above the mean of all tensors (`step_length.step_excess`); 0
            sets no bound. Not in the paper.
        wide_inputs: tensors with more inputs than this make shorter steps
            (`step_length.wide_share`); 0 leaves them as they are. Not in the
            paper.
        eigenbasis: in a Keras model, the gradient of a matrix is seen in its
            eigenbasis (`eigenbasis`) on every side that is at most this long; 0
            leaves all as they are. What elements are (lazy, negligible, rare)
            is then decided there. Only without attention. Not in the paper.
        basis_length: bases do not turn while step lengths of matrices grow and
            the learning rate, which is the length of the first step, times the
            factor by which they have grown is below this (`eigenbasis.due`); 0
            lets them always turn. Not in the paper.
        length_unit: step lengths, of Eqs. 5-8, are multiples of this share of
            the learning rate. Whatever an RNN learned to begin with, with the
            right unit the first step is as long as the learning rate says
            (`training.evaluation.length_unit` finds it). 1 in the paper.

    Raises:
        ValueError: a size is below 1, a share is not in [0, 1), a bound is
            negative, a unit is not in (0, 1], or switches contradict each
            other.
    """

    param_units: int = 10
    tensor_units: int = 20
    global_units: int = 20
    timescales: int = 4
    attention: bool = True
    dynamic_input_scaling: bool = True
    relative_log_magnitudes: bool = True
    direction_length: bool = True
    relative_learning_rate: bool = True
    tensor_rnn: bool = True
    global_rnn: bool = True
    shortcut: bool = True
    lazy: bool = True
    alignment: bool = True
    age: bool = True
    tensor_step: bool = True
    negligible: float = 0.0
    tensor_spread: float = 0.0
    tensor_growth: float = 0.0
    tensor_decay: float = 0.0
    catch_up: float = 0.0
    step_spread: float = 0.0
    wide_inputs: float = 0.0
    eigenbasis: float = 0.0
    basis_length: float = 0.0
    length_unit: float = 1.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is bool:
                if not isinstance(value, bool):
                    raise ValueError(
                        f"Argument `{field.name}` must be True or False. "
                        f"Received: {field.name}={value!r}"
                    )
            elif field.type is float:
                self._check_number(field, value)
            elif type(value) is not int or value < 1:
                raise ValueError(
                    f"Argument `{field.name}` must be an integer of at least "
                    f"1. Received: {field.name}={value!r}"
                )
        for name, needs, met in (
            ("global_rnn", "tensor_rnn=True (its input is h_tensor)",
             self.tensor_rnn),
            ("alignment", "tensor_rnn=True (which sees it)", self.tensor_rnn),
            ("age", "tensor_rnn=True (which sees it)", self.tensor_rnn),
            ("tensor_step", "tensor_rnn=True (it is read from there)",
             self.tensor_rnn),
            ("tensor_step", "direction_length=True (there is no step length "
             "otherwise)", self.direction_length),
            ("relative_learning_rate", "direction_length=True (there is no "
             "step length otherwise)", self.direction_length),
            ("tensor_spread", "relative_learning_rate=True (it bounds its "
             "averages)", self.relative_learning_rate),
            ("tensor_growth", "relative_learning_rate=True (it bounds its "
             "averages)", self.relative_learning_rate),
            ("tensor_decay", "tensor_growth > 0 (it belongs to that bound)",
             self.tensor_growth),
            ("step_spread", "direction_length=True (there is no step length "
             "otherwise)", self.direction_length),
            ("eigenbasis", "attention=False (offsets are in the coordinates of "
             "the model)", not self.attention),
            ("basis_length", "eigenbasis > 0 (whose bases it keeps)",
             self.eigenbasis),
            ("basis_length", "tensor_growth > 0 (for its averages)",
             self.tensor_growth),
            ("catch_up", "lazy=True (else rare elements do not fall behind)",
             self.lazy),
            ("relative_log_magnitudes", "timescales >= 2 (relative to the "
             "mean over timescales)", self.timescales > 1),
        ):  # fmt: skip
            if getattr(self, name) and not met:
                raise ValueError(
                    f"Argument `{name}` needs {needs}. Received: {self}"
                )

    @staticmethod
    def _check_number(field, value):
        """Checks that a number is in the interval of its field."""
        interval, inside = {
            "negligible": ("[0, 1)", lambda x: 0 <= x < 1),
            "tensor_spread": ("[0, inf)", lambda x: 0 <= x < math.inf),
            "tensor_growth": ("[0, inf)", lambda x: 0 <= x < math.inf),
            "tensor_decay": ("[0, inf)", lambda x: 0 <= x < math.inf),
            "catch_up": (
                "[1, inf), or 0",
                lambda x: x == 0 or 1 <= x < math.inf,
            ),
            "step_spread": ("[0, inf)", lambda x: 0 <= x < math.inf),
            "wide_inputs": ("[0, inf)", lambda x: 0 <= x < math.inf),
            "eigenbasis": (
                "[2, inf), or 0",
                lambda x: x == 0 or 2 <= x < math.inf,
            ),
            "basis_length": ("[0, inf)", lambda x: 0 <= x < math.inf),
            "length_unit": ("(0, 1]", lambda x: 0 < x <= 1),
        }[field.name]
        if type(value) not in (int, float) or not inside(value):
            raise ValueError(
                f"Argument `{field.name}` must be a number in {interval}. "
                f"Received: {field.name}={value!r}"
            )

    @property
    def inputs(self) -> int:
        """Number of features in x, section 3.3."""
        return (
            self.timescales * (1 + self.relative_log_magnitudes)
            + self.relative_learning_rate
        )

    @property
    def signals(self) -> int:
        """Number of inputs that only the Tensor RNN has, see `alignment`."""
        return 3 * self.timescales * self.alignment + 3 * self.age

    @property
    def directions(self) -> int:
        """2 with attention (d_theta, d_phi), else 1."""
        return 1 + self.attention

    @property
    def state_rows(self) -> int:
        """Floats a parameter needs in the packed slot (without the offset)."""
        return (
            self.param_units
            + 2 * self.timescales
            + bool(self.catch_up)
            + self.relative_learning_rate
        )

    def to_dict(self) -> dict:
        """The fields as plain values, for JSON.

        Floats are included only where they differ from the default, since older
        files do not have them.
        """
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.type is not float
            or getattr(self, field.name) != field.default
        }

    @classmethod
    def from_dict(cls, fields: dict) -> "RuleConfig":
        """The inverse of `to_dict`.

        Raises:
            ValueError: there is a field that this version does not know.
        """
        unknown = set(fields) - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(
                "A rule config holds only the fields of `RuleConfig`. "
                f"Received unknown: {sorted(unknown)}"
            )
        return cls(**fields)


WITHOUT_TENSOR_RNN = dict.fromkeys(
    ("tensor_rnn", "global_rnn", "alignment", "age", "tensor_step"), False
)
"""The fields to switch off with the Tensor RNN: those that need it."""

WITHOUT_LENGTH = dict.fromkeys(
    ("direction_length", "relative_learning_rate", "tensor_step"), False
)
"""The fields to switch off with the direction/length decomposition."""
