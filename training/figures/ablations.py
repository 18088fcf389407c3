"""The variants of Figure 6: features off, or smaller RNNs (section 3.1)."""

import dataclasses
import types
from typing import NamedTuple

import problems
from hrnn_opt.rule.config import WITHOUT_LENGTH, WITHOUT_TENSOR_RNN, RuleConfig
from training.engine.config import MetaConfig
from training.rules.hierarchical import Hierarchical

FULL = "full"

ROWS = ("quadratic_20_noisy", "softmax")
"""The subset of the set `paper` that all variants are meta-trained on."""

CONFIG = MetaConfig(
    mean_steps=50.0,
    mean_unrolls=5.0,
    first_mean_unrolls=5.0,
    meta_rate=2e-3,
    meta_rate_end=1e-3,
    averaging=0.99,
)


class Variant(NamedTuple):
    """Differences from the full rule and from the full meta-training."""

    rule: dict
    meta: dict = types.MappingProxyType({})

    def make(self) -> tuple[Hierarchical, MetaConfig]:
        """The rule and the settings of the variant."""
        return (
            Hierarchical(RuleConfig(**self.rule)),
            dataclasses.replace(CONFIG, **self.meta),
        )


VARIANTS = {
    FULL: Variant({}),
    "no direction and length": Variant(WITHOUT_LENGTH),
    "no input scaling": Variant({"dynamic_input_scaling": False}),
    "no Global RNN": Variant({"global_rnn": False}),
    "units 5/10/10": Variant(
        {"param_units": 5, "tensor_units": 10, "global_units": 10}
    ),
    "no relative rate": Variant({"relative_learning_rate": False}),
    "plain loss": Variant({}, {"log_objective": False}),
    "no attention": Variant({"attention": False}),
    "one timescale": Variant(
        {"timescales": 1, "relative_log_magnitudes": False}
    ),
    "no shortcut": Variant({"shortcut": False}),
    "no Tensor RNN": Variant(WITHOUT_TENSOR_RNN),
    "not lazy": Variant({"lazy": False}),
    "no alignment": Variant({"alignment": False}),
    "no age": Variant({"age": False}),
    "no tensor step": Variant({"tensor_step": False}),
    "no relative magnitudes": Variant({"relative_log_magnitudes": False}),
    "negligible as none": Variant({"negligible": 1e-5}),
    "bounded tensors": Variant({"tensor_spread": 0.7}),
    "bounded growth": Variant({"tensor_growth": 0.1}),
    "decay": Variant({"tensor_growth": 0.1, "tensor_decay": 0.3}),
    "rare elements catch up": Variant({"catch_up": 300.0}),
    "bounded steps": Variant({"step_spread": 0.5}),
    "short steps of wide tensors": Variant({"wide_inputs": 32.0}),
    # In the Keras models of the comparison, not in meta-training.
    "eigenbases": Variant({"attention": False, "eigenbasis": 256.0}),
    "eigenbases that wait": Variant(
        {
            "attention": False,
            "eigenbasis": 256.0,
            "tensor_growth": 0.1,
            "basis_length": 0.005,
        }
    ),
    "short first steps": Variant({"length_unit": 0.03}),
    "equal lengths": Variant({}, {"heavy_tailed": False}),
    "no second derivatives": Variant({}, {"second_derivatives": False}),
}


def rows() -> tuple:
    """The problems, with equal weights."""
    found = problems.meta_training_set("paper")
    return tuple(
        row._replace(weight=1 / len(ROWS)) for row in found if row.name in ROWS
    )
