"""The practice suite: networks as users have them, to guide development.

None of these tasks is in a meta-training set. Half of them serve decisions
while weights are being trained; the other half is used only for the final table
of a campaign, so that tuning to the suite would show.
"""

import pathlib

from training.evaluation.practice import (
    drawing,
    endurance,
    registry,
    step_lengths,
)
from training.evaluation.practice.contenders import ADAM, adam
from training.evaluation.practice.report import report, write_csv
from training.evaluation.practice.runs import Trainer
from training.evaluation.practice.suite import Settings, Suite
from training.evaluation.practice.task import HALVES

__all__ = [
    "HALVES",
    "Settings",
    "Suite",
    "draw_steps",
    "endurance",
    "registry",
    "run",
]


def run(settings: Settings, out: pathlib.Path) -> dict:
    """Runs what is missing, prints tables, and writes a picture and all scores.

    Args:
        settings: what is to be compared.
        out: folder of `practice.png` and `practice.csv`.

    Returns:
        The figures of each half and first step length.

    Raises:
        FileNotFoundError: a data set is not prepared.
        ImportError: tensorflow-datasets is not installed.
    """
    suite = Suite(settings)
    found, own = suite.run(), suite.own
    figures = report(found, own.name, own.rates)
    write_csv(found, own.name, out / "practice.csv")
    drawing.draw(found, own.name, own.rates, out / "practice.png")
    return figures


def draw_steps(settings: Settings, out: pathlib.Path) -> dict:
    """Draws the step lengths on each task, beside those of the best Adam.

    Args:
        settings: what is to be compared; seed 0 is drawn.
        out: folder of `steps_TASK.png` and `steps_TASK.csv`.

    Returns:
        The names of the pictures.
    """
    suite, pictures = Suite(settings), []
    for one in suite.run(own=False):
        source, found = one.task.source(), {}
        rates = {suite.own: suite.own.rates, adam(): (one.best(ADAM),)}
        for contender, of_it in rates.items():
            trainer = Trainer(one.task, source, contender, settings.steps)
            for rate in of_it:
                name = f"{contender.name} {rate:g}"
                found[name] = step_lengths.measure(trainer, 0, rate)
        path = out / f"steps_{one.task.name}.png"
        step_lengths.draw(found, one.task.about, path)
        step_lengths.write_csv(found, path.with_suffix(".csv"))
        pictures.append(str(path))
    return {"pictures": pictures}
