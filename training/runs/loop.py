"""The loop of meta-training, on one machine and on the chief of a cluster."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

from training.runs.folder import RunFolder
from training.runs.log import RunLog


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When a run saves, evaluates and ends.

    Args:
        max_seconds: time after which the run ends; None for no limit.
        max_iterations: meta-iteration at which it ends; None for no limit.
        save_seconds: time between checkpoints.
        evaluate_seconds: time between held-out evaluations; 0 for none.
    """

    max_seconds: float | None = None
    max_iterations: int | None = None
    save_seconds: float = 300.0
    evaluate_seconds: float = 900.0

    def over(self, seconds: float, iteration: int) -> bool:
        """Whether a run ends after this time and number of meta-iterations."""
        return bool(
            (self.max_seconds and seconds >= self.max_seconds)
            or (self.max_iterations and iteration >= self.max_iterations)
        )


class Job(NamedTuple):
    """A job that is done at intervals, and at the end."""

    seconds: float
    do: Callable[[], None]


def train(
    folder: RunFolder,
    run,
    log: RunLog,
    schedule: Schedule,
    advance: Callable[[int], int],
    stopped: Callable[[], bool],
    refresh: Callable[[], None] = lambda: None,
    jobs: Iterable[Job] = (),
):
    """Continues a run until it ends or is stopped; prints a summary.

    At the end all jobs are done once more and the run is saved; it is evaluated
    unless it was stopped.

    Args:
        folder: folder of the run, prepared.
        run: `training.runs.local.Run`, or another with the same interface.
        log: log of the run; closed at the end.
        schedule: when the run saves, evaluates and ends.
        advance: advances the run and writes the result to the log; takes the
            number of meta-iterations before, and returns that after it.
        stopped: returns whether to stop.
        refresh: fetches the run's state before it is saved or evaluated.
        jobs: further jobs, done after a `refresh`.
    """
    due = [*jobs, Job(schedule.save_seconds, lambda: folder.save(run, log))]
    if schedule.evaluate_seconds:
        evaluation = Job(
            schedule.evaluate_seconds, lambda: folder.evaluate(run, log)
        )
        due.append(evaluation)
    done = [log.elapsed] * len(due)
    iteration = run.state.iteration
    while not stopped() and not schedule.over(log.elapsed, iteration):
        iteration = advance(iteration)
        for k, job in enumerate(due):
            if log.elapsed - done[k] >= job.seconds:
                refresh()
                job.do()
                done[k] = log.elapsed
    if schedule.evaluate_seconds and stopped():
        due.remove(evaluation)
    refresh()
    for job in due:
        job.do()
    log.close()
    print(folder.summary(run, log))
