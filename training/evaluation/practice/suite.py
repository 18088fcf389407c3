"""The suite as a whole: its runs, and how their results are collected."""

import dataclasses
import functools
import pathlib
from typing import NamedTuple

from tqdm import tqdm

from training.common.results import Results
from training.evaluation.practice import contenders, registry, score
from training.evaluation.practice.contenders import ADAM, Contender
from training.evaluation.practice.runs import Run, Trainer, check_steps
from training.evaluation.practice.task import Task

RIVALS = pathlib.Path(__file__).parents[2] / "results" / "practice.csv"
"""Runs of the rivals, kept so that new weights need only their own runs."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a comparison.

    Args:
        tasks: names; None for all.
        half: only tasks of this half; None for both.
        quick: whether to take eight of the tasks for decisions only.
        weights: weights of the learned optimizer: a name, or a path.
        rates: its first step lengths; None for the constructor's default.
        steps: number of steps of each run.
        seeds: runs of each, with seeds 0, 1, ...
        results: file that the learned optimizer's finished runs are added to
            and taken from; None keeps nothing.
        rivals: the same for the others.
        references: whether to run, besides Adam, the other rivals as well;
            those that are finished are shown in any case.

    Raises:
        ValueError: an unknown task or half, or a number out of range.
    """

    tasks: tuple | None = None
    half: str | None = None
    quick: bool = False
    weights: str = "pretrained"
    rates: tuple | None = None
    steps: int = 1500
    seeds: int = 2
    results: str | None = None
    rivals: str = str(RIVALS)
    references: bool = False

    def __post_init__(self):
        check_steps(self.steps)
        if self.seeds < 1:
            raise ValueError(
                f"Argument `seeds` must be at least 1. Received: {self.seeds}"
            )
        if any(rate <= 0 for rate in self.rates or ()):
            raise ValueError(
                f"Argument `rates` must be positive. Received: {self.rates}"
            )
        self.selected()

    def selected(self) -> list[Task]:
        """The tasks that are asked for."""
        return registry.selected(self.tasks, self.half, self.quick)


class Found(NamedTuple):
    """Everything that was run on one task, by name and learning rate."""

    task: Task
    runs: dict  # (name, rate) to a list over seeds

    def of(self, name: str) -> dict:
        """Learning rate to runs, of one optimizer."""
        return {r: runs for (n, r), runs in self.runs.items() if n == name}

    def best(self, name: str) -> float:
        """The best learning rate of an optimizer."""
        return score.best_rate(self.of(name))

    def score(self, name: str, rate: float | None = None) -> score.Score:
        """The score against the best Adam, by default at the best rate."""
        if rate is None:
            rate = self.best(name)
        best = self.runs[ADAM, self.best(ADAM)]
        return score.score(self.runs[name, rate], best, rate)


class Suite:
    """Runs of all contenders, made here or finished earlier.

    Args:
        settings: what is to be compared.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.own = contenders.learned(settings.weights, settings.rates)
        self._results = Results(settings.results)
        self._rivals = Results(settings.rivals)

    def run(self, own: bool = True) -> list[Found]:
        """Runs every task, one after another.

        Args:
            own: whether the learned optimizer is run, too.

        Raises:
            FileNotFoundError: a data set is not prepared; before any run.
            ImportError: tensorflow-datasets is not installed.
        """
        tasks = self.settings.selected()
        registry.check_data(tasks)
        return [self._task(task, own) for task in tqdm(tasks, unit="task")]

    def _task(self, task, own):
        # Data that no run needs are not read.
        source, runs = functools.cache(task.source), {}
        wanted = [(contenders.adam(), self._rivals, True)]
        wanted += [
            (rival, self._rivals, self.settings.references)
            for rival in contenders.references().values()
        ]
        wanted.append((self.own, self._results, own))
        for contender, results, needed in wanted:
            jobs = self._jobs(task, contender)
            if not needed and any(key not in results for _, _, key in jobs):
                continue
            trainer = functools.cache(
                lambda contender=contender: Trainer(
                    task, source(), contender, self.settings.steps
                )
            )
            for seed, rate, key in jobs:
                numbers = results.get(
                    key,
                    lambda seed=seed, rate=rate, trainer=trainer: (
                        trainer().run(seed, rate).numbers()
                    ),
                )
                run = Run.from_numbers(numbers)
                runs.setdefault((contender.name, rate), []).append(run)
        return Found(task, runs)

    def _jobs(self, task, contender: Contender):
        """Seed, learning rate and key of every run.

        Each seed's grid comes before the next, in case of an interruption.
        """
        steps = self.settings.steps
        return [
            (
                seed,
                rate,
                f"{task.key()}; {contender.name} {rate:g}; seed {seed}; "
                f"{steps} steps",
            )
            for seed in range(self.settings.seeds)
            for rate in contender.rates
        ]
