"""The interface between the engine and a rule.

A rule is a frozen value; what changes while it runs is a state that its methods
take and return. Several instances of a problem run side by side. Shapes, with
B instances, N parameters of a problem and M meta-parameters:

- a *state* is a nest of tensors whose last axis is that of the B instances;
- parameters and gradients are passed as [B, N], tensors one after another;
- `sizes` are the numbers of parameters of a problem's tensors, which sum to N;
- `meta` is what `unpack` returns for the flat meta-parameters [M].

A `Rule` can be run, a `LearnedRule` can be meta-trained. Whatever concerns step
lengths (penalties, perturbation, a statistic) applies to rules that implement
`HasStepLengths`, and is left out for any other.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np


class Rule(Protocol):
    """An update rule, learned or not, that runs on problems."""

    def unpack(self, meta) -> Any:
        """The meta-parameters [M] as the nest that the other methods take."""
        ...

    def initial_state(self, meta, sizes: tuple[int, ...], theta) -> Any:
        """The state before the first step.

        Args:
            meta: meta-parameters from `unpack`.
            sizes: sizes of the problem's tensors.
            theta: initial parameters of the problems, [B, N].
        """
        ...

    def step(self, meta, sizes: tuple[int, ...], state, gradient, lr) -> Any:
        """The state after one step.

        Args:
            meta: meta-parameters from `unpack`.
            sizes: sizes of the problem's tensors.
            state: state before the step.
            gradient: gradient at `attended` of the state, [B, N].
            lr: initial learning rates, [B].
        """
        ...

    def point(self, state) -> Any:
        """Parameters theta, whose loss Equation 14 takes, [B, N]."""
        ...

    def attended(self, state) -> Any:
        """Parameters at which the next gradient is taken, [B, N]."""
        ...


class LearnedRule(Rule, Protocol):
    """A rule with meta-parameters that can be meta-trained."""

    def initial_meta(self, seed: int) -> np.ndarray:
        """Untrained meta-parameters, [M]."""
        ...

    def memory(self, state) -> Any:
        """Dimensionless leaves of the state.

        Derivatives with respect to these can be compared between problems,
        unlike those with respect to parameters of any scale; see
        `training.engine.sensitivity`.
        """
        ...


@runtime_checkable
class HasStepLengths(Protocol):
    """A rule with a step length for every parameter in its state."""

    @property
    def keeps_step_lengths(self) -> bool:
        """False where its configuration switches them off."""
        ...

    def log_step_lengths(self, state) -> Any:
        """Logarithms, relative to the initial learning rates, [N, B]."""
        ...

    def lengthened(self, state, change) -> Any:
        """The state with `change` [B] added to all log step lengths."""
        ...


def keeps_step_lengths(rule: Rule) -> bool:
    """Whether a rule has step lengths, and has not switched them off."""
    return isinstance(rule, HasStepLengths) and rule.keeps_step_lengths
