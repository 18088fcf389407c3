"""Runs of Keras optimizers on the tasks, saved as they finish."""

import numpy as np
from tqdm import tqdm

from problems import pictures
from training.common.results import Results
from training.engine.objective import LARGEST
from training.evaluation import candidates, curves
from training.figures.settings import Settings
from training.figures.tasks import TASKS, data

OWN = "HierarchicalRNN"


class Comparison:
    """Training curves by task, optimizer and seed.

    Initial weights and batches depend on the task and the seed only.

    Args:
        settings: settings of the figure.
        results: finished jobs.
        steps: number of steps of each run.
        every: number of steps between two losses.
    """

    def __init__(
        self, settings: Settings, results: Results, steps: int, every: int
    ):
        self.settings, self.results = settings, results
        self.steps, self.every = steps, every
        self.rule, self.vector = candidates.load(settings.weights)

    def own(self):
        """The learned optimizer, with nothing to tune."""
        return candidates.optimizer(self.rule, self.vector)

    def curve(self, task: str, who: str, make, seed: int) -> curves.Curve:
        """One run, or its stored curve if it is finished.

        Args:
            task: a key of `TASKS`.
            who: name of the optimizer with its settings.
            make: function that returns the optimizer, not built yet.
            seed: seed of the weights and the batches.
        """
        if who.startswith(OWN):
            who = f"{who} {candidates.digest(self.rule, self.vector)}"
        s = self.settings
        key = (
            f"{task}; {who}; seed {seed}; {self.steps} steps by {self.every}; "
            f"batch {s.batch}; {s.pictures} pictures"
        )
        numbers = self.results.get(key, lambda: self._run(task, make, seed))
        return curves.Curve.from_numbers(numbers, self.every)

    def _run(self, task, make, seed):
        s = self.settings
        name, new_model = TASKS[task]
        split = data(name, s.pictures, s.data_dir)
        order = curves.batches(len(split.x_train), self.steps, s.batch, seed)
        return curves.train(
            new_model(split.x_train.shape[1:], seed),
            make(),
            split.x_train,
            split.y_train,
            order,
            self.every,
        ).numbers()

    def curves(self, jobs) -> dict:
        """The curves of jobs (task, who, make, seed), by (task, who).

        Returns:
            Dictionary of lists over the seeds.
        """
        found = {}
        bar = tqdm(list(jobs), unit="run")
        for task, who, make, seed in bar:
            bar.set_description(f"{task}, {who}, seed {seed}")
            curve = self.curve(task, who, make, seed)
            found.setdefault((task, who), []).append(curve)
        return found


def final(runs) -> np.ndarray:
    """Last losses, one per seed; what is not finite counts as 1e30."""
    last = np.array([run.losses[-1] for run in runs])
    return np.where(np.isfinite(last), np.minimum(last, LARGEST), LARGEST)


def check_data(tasks, settings: Settings):
    """Reports missing data before anything is run.

    Raises:
        FileNotFoundError: a data set is not prepared.
        ImportError: tensorflow-datasets is not installed.
    """
    for name in dict.fromkeys(TASKS[task].data for task in tasks):
        if name in pictures.PREPARED:
            pictures.prepared(name, settings.data_dir)
