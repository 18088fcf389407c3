"""Long runs of the practice suite's tasks."""

import numpy as np
import pytest

from training.evaluation import practice
from training.evaluation.practice import endurance, sources
from training.evaluation.practice.runs import BLOCK, Trainer

NUMBER = endurance.WINDOW


def test_the_course_of_a_run_by_hand():
    losses = np.array([8.0] + [4.0] * NUMBER + [1.0] * NUMBER + [3.0] * NUMBER)
    found = endurance.course(losses)
    assert found[:2] == pytest.approx((8.0, 1.0))
    assert found.step == (1 + 2 * NUMBER) * BLOCK
    assert found.last == pytest.approx(3.0) == found.risen
    assert not found.diverged


@pytest.mark.parametrize("end", [9.0, np.inf])
def test_a_loss_above_the_first_one_is_a_divergence(end):
    losses = np.array([8.0] + [4.0] * NUMBER + [end] * NUMBER)
    found = endurance.course(losses)
    assert found.diverged and found.lowest == pytest.approx(4.0)
    assert found.risen == pytest.approx(end / 4.0)


def test_a_run_that_never_was_finite():
    found = endurance.course(np.full(2 * NUMBER, np.inf))
    assert found.diverged and found.risen == np.inf


def test_rows_are_also_run_in_passes():
    x = np.arange(20)
    rows = sources.Rows(x, x, x[:2], x[:2], batch=5)
    found = endurance.ways(rows)
    assert list(found) == [endurance.REPLACEMENT, endurance.PASSES]
    assert isinstance(found[endurance.PASSES], sources.Passes)
    endless = sources.Endless(lambda *_: (x, x), 5)
    assert endurance.ways(endless) == {endurance.ANEW: endless}


def test_a_long_run_is_kept_and_drawn(tmp_path, capsys, monkeypatch):
    file = tmp_path / "runs.csv"
    settings = practice.Settings(
        tasks=("logistic",), steps=1000, seeds=1, results=str(file)
    )
    figures = practice.endurance.run(settings, tmp_path / "out")
    assert figures["runs"] == 1 and figures["diverged"] == 0
    assert "logistic  generated anew" in capsys.readouterr().out
    assert (tmp_path / "out" / "endurance.png").stat().st_size > 5000
    monkeypatch.setattr(Trainer, "run", None)  # Nothing is left to run.
    assert practice.endurance.run(settings, tmp_path / "out") == figures
    with pytest.raises(ValueError, match="at least 1000. Received: steps=500"):
        practice.endurance.run(
            practice.Settings(tasks=("logistic",), steps=500), tmp_path
        )
