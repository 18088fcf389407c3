"""The practice suite: networks as users have them, to steer training by.

None of these tasks is in a meta-training set. Half of them serve decisions
while weights are being trained; the other half is opened only for the final
table of a campaign, so that tuning to the suite would show.
"""

from training.evaluation.practice.report import report
from training.evaluation.practice.suite import Settings, Suite
from training.evaluation.practice.task import HALVES

__all__ = ["HALVES", "Settings", "Suite", "run"]


def run(settings: Settings) -> dict:
    """Runs what is missing, and prints tables.

    Args:
        settings: what is to be compared.

    Returns:
        The figures of each half and first step length.

    Raises:
        FileNotFoundError: a data set is not prepared.
        ImportError: tensorflow-datasets is not installed.
    """
    suite = Suite(settings)
    return report(suite.run(), suite.own.name, suite.own.rates)
