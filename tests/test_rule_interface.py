"""Rules have the methods the engine calls, with the same argument names."""

import inspect

import pytest

from hrnn_opt import RuleConfig
from training.rules import base
from training.rules.baselines import Baselines, GradientDescent
from training.rules.hierarchical import Hierarchical
from training.rules.lstm import LSTMRule


def interface(protocol):
    """Maps every method that a protocol declares to its argument names."""
    return {
        name: list(inspect.signature(member).parameters)
        for kind in reversed(protocol.__mro__)
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def test_the_interface_is_read_from_the_protocols():
    run = {"unpack", "initial_state", "step", "point", "attended"}
    assert set(interface(base.Rule)) == run
    assert set(interface(base.LearnedRule)) == run | {"initial_meta", "memory"}


@pytest.mark.parametrize(
    "rule, protocol",
    [
        (Hierarchical(), base.LearnedRule),
        (Hierarchical(), base.HasStepLengths),
        (LSTMRule(), base.LearnedRule),
        (Baselines((True,)), base.Rule),
        (GradientDescent(), base.Rule),
    ],
)
def test_a_rule_has_what_is_asked_of_it(rule, protocol):
    for name, arguments in interface(protocol).items():
        own = inspect.signature(getattr(type(rule), name)).parameters
        assert list(own) == arguments, name


def test_only_a_rule_with_step_lengths_is_asked_for_them():
    assert base.keeps_step_lengths(Hierarchical())
    constant = RuleConfig(relative_learning_rate=False)
    assert not base.keeps_step_lengths(Hierarchical(constant))
    assert not base.keeps_step_lengths(LSTMRule())
    assert not base.keeps_step_lengths(GradientDescent())
