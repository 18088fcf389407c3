"""The settings of a meta-training run, in one frozen record."""

import dataclasses
import json

from hrnn_opt.rule.config import RuleConfig
from training.common import old_names

LARGE = 4096
"""Parameters of the smallest family of which 2 instances run side by side."""


def _setting(default, text: str):
    """A field with its help text, which is also the flag's."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class MetaConfig:
    """The settings of meta-training (section 4); flags of the same names.

    Defaults are the paper's values where it has them, else values that suit
    one machine.

    Raises:
        ValueError: a number out of range.
    """

    ensemble: str = _setting("paper", "Set of problems: paper or wide.")
    seed: int = _setting(0, "Seed of all random numbers.")
    param_units: int = _setting(
        10,
        "Hidden size of the Parameter RNN, which accounts for most of the "
        "cost per parameter.",
    )
    tensor_units: int = _setting(20, "Hidden size of the Tensor RNN.")
    global_units: int = _setting(20, "Hidden size of the Global RNN.")
    attention: bool = _setting(
        True,
        "Whether gradients are taken at an attended point beside the "
        "parameters (section 3.2.1) rather than at the parameters.",
    )
    negligible: float = _setting(
        0.0,
        "Gradients below this share of the largest in their tensor count as "
        "zero, so that the rule stands still on solved problems. Not in the "
        "paper.",
    )
    tensor_spread: float = _setting(
        0.0,
        "Largest distance of a tensor's mean log step length above that of all "
        "parameters; 0 sets no bound. Not in the paper.",
    )
    tensor_growth: float = _setting(
        0.0,
        "Largest distance of a tensor's mean log step length above its average "
        "over log time; 0 sets no bound. Not in the paper.",
    )
    tensor_decay: float = _setting(
        0.0,
        "What is subtracted from that distance in later steps: above "
        "tensor_growth, step lengths have to fall. Not in the paper.",
    )
    catch_up: float = _setting(
        0.0,
        "Largest factor by which steps of elements that rarely have a gradient "
        "are longer, in tensors of such elements; 0 leaves them as they are. "
        "Not in the paper.",
    )
    step_spread: float = _setting(
        0.0,
        "Largest distance of the log root mean square of a tensor's step above "
        "the mean of all tensors; 0 sets no bound. Not in the paper.",
    )
    wide_inputs: float = _setting(
        0.0,
        "Number of inputs beyond which a tensor's steps are shorter, in Keras "
        "models: problems of the sets have at most 256. 0 leaves them as they "
        "are. Not in the paper.",
    )
    eigenbasis: float = _setting(
        0.0,
        "Longest side of a matrix whose gradients are seen in their "
        "eigenbasis, in Keras models: in meta-training they are not. 0 leaves "
        "all as they are. Not in the paper.",
    )
    basis_length: float = _setting(
        0.0,
        "Learning rate times growth of step lengths since the first step below "
        "which eigenbases do not turn while these grow; 0 lets them always "
        "turn. Not in the paper.",
    )
    length_unit: float = _setting(
        1.0,
        "Unit of step lengths, as a share of the learning rate; see "
        "`training.evaluation.length_unit`. The paper's is 1.",
    )
    work: int = _setting(
        640,
        "Number of parameters trained side by side: a family of N parameters "
        "has about work / N instances.",
    )
    segment: int = _setting(
        50, "Number of steps that are compiled as one segment."
    )
    mean_steps: float = _setting(
        200.0,
        "An unroll has segment + Exp(mean_steps) steps (section 4.4), in whole "
        "segments.",
    )
    mean_between: float = _setting(
        0.0,
        "After every unroll, Exp(mean_between) steps follow without "
        "derivatives, in whole segments: trajectories become longer, at a "
        "fifth of the cost per step. Not in the paper.",
    )
    mean_unrolls: float = _setting(
        50.0, "A problem has 1 + Exp(mean_unrolls) unrolls (section 4.4)."
    )
    heavy_tailed: bool = _setting(
        True,
        "Whether the numbers of steps and unrolls are exponentially "
        "distributed (section 4.4) rather than always equal to their means.",
    )
    first_mean_unrolls: float = _setting(
        10.0, "Mean number of unrolls at the start of the run."
    )
    curriculum: int = _setting(
        10_000,
        "Meta-iterations over which the mean number of unrolls grows "
        "exponentially to `mean_unrolls`.",
    )
    lowest_rate: float = _setting(
        1e-6,
        "Lower bound of the initial learning rates, whose distribution is "
        "log-uniform (section 3.2.4).",
    )
    highest_rate: float = _setting(
        1e-2, "Upper bound of the initial learning rates."
    )
    epsilon: float = _setting(
        1e-10,
        "Epsilon of Equation 14: reducing a loss far below it gains nothing. "
        "The smaller it is, the more a short time near 0 outweighs a later "
        "rise of the loss.",
    )
    second_derivatives: bool = _setting(
        True, "Differentiate through the problems' gradients (section 4.3)."
    )
    log_objective: bool = _setting(
        True, "Average log loss (Equation 14) rather than average loss."
    )
    clip_step: float = _setting(
        1.0,
        "Largest sensitivity of an instance's average log loss to a step, "
        "applied at every step of the backward pass "
        "(training.engine.sensitivity); 0 disables clipping.",
    )
    horizon_discount: float = _setting(
        0.0,
        "Share of an unroll, at its end, over which the weights of the steps' "
        "own derivatives fall to 0: most consequences of the last steps lie "
        "beyond the unroll (short-horizon bias). 0 weights all steps alike. "
        "Not in the paper.",
    )
    evolved: str = _setting(
        "",
        "Names of meta-parameters, separated by commas: only these change, by "
        "evolution strategies on whole runs of segment + Exp(mean_steps) "
        "steps (`training.engine.evolution`). Empty: derivatives of unrolls "
        "change all. Not in the paper.",
    )
    evolution_scale: float = _setting(
        0.02, "Standard deviation of the changes that `evolved` tries."
    )
    step_length_perturbation: float = _setting(
        0.0,
        "Share of an instance's unrolls that begin with all step lengths "
        "multiplied by exp(uniform(-6, 1)), so that the rule learns to "
        "recover from unsuitable step lengths instead of memorizing a "
        "schedule. Not in the paper.",
    )
    vanishing_step_penalty: float = _setting(
        0.0,
        "Weight in the objective of a penalty on log step lengths below -6, "
        "applied while the loss is not close to 0 (1e-4): no other derivative "
        "makes steps grow again once they have vanished. Not in the paper.",
    )
    long_step_penalty: float = _setting(
        0.0,
        "Weight in the objective of a penalty on log step lengths above -3: "
        "half the squared excess, averaged in each tensor and then over "
        "tensors, applied once the loss is close to 0 (1e-6). Steps that grow "
        "there make the loss rise again much later. Not in the paper.",
    )
    clip: float = _setting(
        1.0, "Largest norm of a meta-gradient; 0 disables clipping."
    )
    meta_optimizer: str = _setting(
        "adam",
        "Optimizer of the meta-parameters: rmsprop (the paper's) or adam.",
    )
    meta_rate: float = _setting(
        5e-4,
        "Initial learning rate of the meta-optimizer. The paper's 1e-6 is for "
        "rmsprop, 1,000 workers and 40 million meta-iterations.",
    )
    meta_rate_end: float = _setting(
        1e-4,
        "Final learning rate of the meta-optimizer, reached after "
        "`meta_rate_decay` meta-iterations.",
    )
    meta_rate_decay: int = _setting(
        100_000,
        "Meta-iterations over which the meta-optimizer's learning rate decays "
        "exponentially to `meta_rate_end`.",
    )
    averaging: float = _setting(
        0.999, "Decay of the running average of the meta-parameters."
    )

    def __post_init__(self):
        for name in (
            "param_units", "tensor_units", "global_units", "work", "segment",
            "curriculum", "meta_rate_decay",
        ):  # fmt: skip
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in (
            "mean_steps", "mean_unrolls", "first_mean_unrolls", "lowest_rate",
            "highest_rate", "epsilon", "meta_rate", "meta_rate_end",
            "evolution_scale",
        ):  # fmt: skip
            self._check(name, getattr(self, name) > 0, "positive")
        for name in (
            "clip",
            "clip_step",
            "vanishing_step_penalty",
            "long_step_penalty",
            "mean_between",
            "tensor_spread",
            "tensor_growth",
            "tensor_decay",
            "step_spread",
            "wide_inputs",
            "basis_length",
        ):
            self._check(name, getattr(self, name) >= 0, "0 or positive")
        self._check(
            "catch_up", self.catch_up == 0 or self.catch_up >= 1, "0 or >= 1"
        )
        self._check(
            "eigenbasis",
            self.eigenbasis == 0 or self.eigenbasis >= 2,
            "0 or >= 2",
        )
        self._check("negligible", 0 <= self.negligible < 1, "in [0, 1)")
        self._check("length_unit", 0 < self.length_unit <= 1, "in (0, 1]")
        self._check("averaging", 0 <= self.averaging < 1, "in [0, 1)")
        self._check(
            "step_length_perturbation",
            0 <= self.step_length_perturbation <= 1,
            "in [0, 1]",
        )
        self._check(
            "horizon_discount", 0 <= self.horizon_discount <= 1, "in [0, 1]"
        )
        for name in ("mean_between", "step_length_perturbation"):
            self._check(
                name,
                not self.evolved or getattr(self, name) == 0,
                "0 with `evolved`, whose runs are whole",
            )
        self._check(
            "meta_optimizer",
            self.meta_optimizer in ("adam", "rmsprop"),
            "adam or rmsprop",
        )
        self._check(
            "highest_rate",
            self.highest_rate >= self.lowest_rate,
            f"at least lowest_rate={self.lowest_rate}",
        )

    def _check(self, name, met, rule):
        if not met:
            raise ValueError(
                f"Argument `{name}` must be {rule}. "
                f"Received: {name}={getattr(self, name)!r}"
            )

    @property
    def rule_config(self) -> RuleConfig:
        """Config of the rule that is meta-trained."""
        return RuleConfig(
            param_units=self.param_units,
            tensor_units=self.tensor_units,
            global_units=self.global_units,
            attention=self.attention,
            negligible=self.negligible,
            tensor_spread=self.tensor_spread,
            tensor_growth=self.tensor_growth,
            tensor_decay=self.tensor_decay,
            catch_up=self.catch_up,
            step_spread=self.step_spread,
            wide_inputs=self.wide_inputs,
            eigenbasis=self.eigenbasis,
            basis_length=self.basis_length,
            length_unit=self.length_unit,
        )

    def instances(self, dimension: int) -> int:
        """How many instances of a family are trained side by side.

        A multiple of 4 from 4 to 128: instances are the last axis of every
        array, along which whole vectors are computed at once. From `LARGE`
        parameters on 2, which take half the time of 4 for each parameter and
        instance: more do not fit into the caches.
        """
        if dimension >= LARGE:
            return 2
        return min(128, max(4, round(self.work / dimension / 4) * 4))

    def changed(self) -> dict:
        """The settings that are not the defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }

    def to_json(self) -> str:
        """The record as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "MetaConfig":
        """The inverse of `to_json`, also for records of earlier versions.

        Raises:
            ValueError: a field that this version does not know.
        """
        values = old_names.settings(json.loads(text))
        known = {field.name for field in dataclasses.fields(cls)}
        if set(values) - known:
            raise ValueError(
                "Argument `text` must have known fields only. "
                f"Received: {sorted(set(values) - known)}"
            )
        return cls(**values)
