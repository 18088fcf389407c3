"""Terms of the meta-objective beside the problems' loss.

Every term has a name, which is that of its setting and flag, and a weight. A
run uses the terms to which its settings give a weight: see `terms`.
"""

import dataclasses
from typing import Any, ClassVar, Protocol

import tensorflow as tf

from hrnn_opt.rule.segments import Segments
from training.engine.config import MetaConfig
from training.rules.base import HasStepLengths, Rule, keeps_step_lengths

VANISHING, LONG = -6.0, -3.0
"""Log step lengths, relative to the initial learning rate: below the first,
steps have vanished; below the second, they may stay on a solved problem."""


class ObjectiveTerm(Protocol):
    """A term that is added to the objective after every step of an unroll."""

    name: ClassVar[str]
    weight: float

    def __call__(self, sizes: tuple[int, ...], state, unsolved) -> Any:
        """The term, before it is weighted, [B].

        Args:
            sizes: sizes of the problem's tensors.
            state: state of the rule after the step.
            unsolved: `training.engine.objective.unsolved` of the losses, [B]: 1
                where a problem is far from its minimum, 0 where it is solved.
        """
        ...


@dataclasses.dataclass(frozen=True)
class VanishingStepPenalty:
    """How far log step lengths are below -6, mean over parameters, [B].

    It applies only where a problem is unsolved. Where shorter steps still help,
    they lower the log loss by more than a small multiple of this term; where
    they do not, no derivative of the loss would show that longer ones are
    needed.

    Args:
        weight: weight in the objective.
        rule: rule whose step lengths are penalised.
    """

    name: ClassVar[str] = "vanishing_step_penalty"
    weight: float
    rule: HasStepLengths

    def __call__(self, sizes, state, unsolved):
        """See `ObjectiveTerm`."""
        del sizes
        lengths = self.rule.log_step_lengths(state)
        excess = tf.reduce_mean(tf.nn.relu(VANISHING - lengths), axis=0)
        return unsolved * excess


@dataclasses.dataclass(frozen=True)
class LongStepPenalty:
    """Half the squared excess of log step lengths above -3, mean over tensors.

    It applies only where a problem is solved. Steps are of no use there, and in
    a network they bring losses back thousands of steps later, once a few
    parameters (of a bias) have lengthened theirs. No derivative reaches that
    far. Every tensor counts alike: in a mean over parameters, ten of five
    thousand would not matter.

    Args:
        weight: weight in the objective.
        rule: rule whose step lengths are penalised.
    """

    name: ClassVar[str] = "long_step_penalty"
    weight: float
    rule: HasStepLengths

    def __call__(self, sizes, state, unsolved):
        """See `ObjectiveTerm`."""
        lengths, segments = self.rule.log_step_lengths(state), Segments(sizes)
        squares = segments.to_rows(tf.nn.relu(lengths - LONG) ** 2)
        means = segments.divide_by_sizes(segments.total(squares))
        return (1.0 - unsolved) * 0.5 * tf.reduce_mean(means, (0, 1))


TERMS = (VanishingStepPenalty, LongStepPenalty)


def terms(rule: Rule, config: MetaConfig) -> tuple[ObjectiveTerm, ...]:
    """The terms of a run: those with a weight that apply to its rule."""
    if not keeps_step_lengths(rule):
        return ()
    weights = {kind: getattr(config, kind.name) for kind in TERMS}
    return tuple(kind(w, rule) for kind, w in weights.items() if w)
