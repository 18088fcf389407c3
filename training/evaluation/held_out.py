"""How well a run's optimizer does on problems it was not trained on."""

import math

import numpy as np
import tensorflow as tf

from problems.ensemble import Row
from training.engine.config import MetaConfig
from training.engine.objective import LARGEST
from training.evaluation.rollouts import Runs
from training.rules.baselines import Baselines

SEED = 1_000_003
"""Seed of held-out draws; meta-training uses its seed and meta-iteration."""

RIVALS = (("Adam 2e-3", True, 2e-3), ("RMSProp 1e-2", False, 1e-2))
"""Name, whether it is Adam, and the paper's learning rate (section 5.1)."""


def final_log_loss(losses, epsilon: float = 1e-10, last: int = 50):
    """log(loss + epsilon), averaged over the last steps of [steps, ...]."""
    losses = np.nan_to_num(losses[-last:], nan=LARGEST, posinf=LARGEST)
    return np.mean(np.log(np.minimum(losses, LARGEST) + epsilon), axis=0)


class HeldOut:
    """Final log losses on held-out instances of every row, beside rivals.

    Args:
        rule: the rule that is meta-trained.
        rows: rows of the set.
        config: config of the run; initial learning rates are spread over its
            range.
        count: instances of each row.
        steps: number of steps of each run.
    """

    def __init__(
        self,
        rule,
        rows: tuple[Row, ...],
        config: MetaConfig,
        count: int = 8,
        steps: int = 500,
    ):
        self.rows, self.count, self.steps = rows, count, steps
        self._config = config
        self._runs = {row.name: Runs(rule, row.family, count) for row in rows}
        self._rivals = {}
        # One rate for each instance, evenly over the range.
        self._rates = np.exp(
            np.linspace(
                math.log(config.lowest_rate),
                math.log(config.highest_rate),
                count,
            )
        )

    def rivals(self) -> dict:
        """Median final log loss of each rival on each row; computed once."""
        for row in self.rows:
            if row.name not in self._rivals:
                kinds = [
                    adam for _, adam, _ in RIVALS for _ in range(self.count)
                ]
                runs = Runs(
                    Baselines(tuple(kinds)), row.family, self.count, len(RIVALS)
                )
                rates = [rate for _, _, rate in RIVALS]
                losses = runs(tf.zeros((0,)), rates, self.steps, SEED)
                final = final_log_loss(losses, self._config.epsilon)
                self._rivals[row.name] = np.median(final, axis=-1)
        return self._rivals

    def __call__(self, vector) -> dict:
        """Row name to (median final log loss, the rivals' medians)."""
        rivals, result = self.rivals(), {}
        for row in self.rows:
            losses = self._runs[row.name](
                tf.constant(vector), self._rates, self.steps, SEED
            )
            final = final_log_loss(losses, self._config.epsilon)
            result[row.name] = (float(np.median(final)), *rivals[row.name])
        return result
