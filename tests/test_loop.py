"""When a run is saved and evaluated, on a clock set by the test."""

from types import SimpleNamespace

import pytest

from training.runs.loop import Job, Schedule, train


class Recorder:
    """Folder, run and log in one; every meta-iteration takes a second."""

    def __init__(self):
        self.elapsed, self.events = 0.0, []
        self.state = SimpleNamespace(iteration=0)

    def advance(self, iteration):
        assert iteration == self.state.iteration
        self.state.iteration += 1
        self.elapsed += 1.0
        return self.state.iteration

    def note(self, what):
        self.events.append((what, self.state.iteration))

    def save(self, run, log):
        self.note("save")

    def evaluate(self, run, log):
        self.note("evaluate")
        self.elapsed += 0.5

    def close(self):
        self.note("close")

    def summary(self, run, log):
        return f"{self.state.iteration} meta-iterations"

    def train(self, schedule, stop_at=None, **more):
        train(
            self, self, self, schedule, self.advance,
            lambda: self.state.iteration == stop_at, **more,
        )  # fmt: skip
        return self.events


def test_at_intervals_and_at_the_end(capsys):
    events = Recorder().train(Schedule(None, 7, 2.0, 5.0))
    assert events == [
        ("save", 2), ("save", 4), ("evaluate", 5), ("save", 6),
        ("save", 7), ("evaluate", 7), ("close", 7),
    ]  # fmt: skip
    assert capsys.readouterr().out == "7 meta-iterations\n"


def test_a_run_that_is_stopped_is_saved_and_not_evaluated():
    events = Recorder().train(Schedule(None, 9, 100.0, 100.0), stop_at=3)
    assert events == [("save", 3), ("close", 3)]


def test_without_evaluations():
    events = Recorder().train(Schedule(None, 3, 100.0, 0.0))
    assert events == [("save", 3), ("close", 3)]


def test_the_time_is_up_before_the_next_meta_iteration():
    # An evaluation takes half a second of that time.
    events = Recorder().train(Schedule(3.2, None, 100.0, 2.0))
    assert events == [
        ("evaluate", 2), ("save", 3), ("evaluate", 3), ("close", 3)
    ]  # fmt: skip


def test_the_state_is_fetched_before_all_that_needs_it():
    recorder = Recorder()
    events = recorder.train(
        Schedule(None, 4, 3.0, 0.0),
        refresh=lambda: recorder.note("refresh"),
        jobs=[Job(2.0, lambda: recorder.note("line"))],
    )
    assert events == [
        ("refresh", 2), ("line", 2), ("refresh", 3), ("save", 3),
        ("refresh", 4), ("line", 4), ("refresh", 4), ("line", 4), ("save", 4),
        ("close", 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "seconds, iteration, over",
    [(4.9, 6, False), (5.0, 6, True), (4.9, 7, True)],
)
def test_whichever_limit_is_reached_first(seconds, iteration, over):
    assert Schedule(5.0, 7).over(seconds, iteration) is over
    assert not Schedule().over(seconds, iteration)
