"""Profiles of the practice suite, from its runs."""

import numpy as np
import pytest

from training.common.results import Results
from training.evaluation.practice import registry
from training.evaluation.practice.contenders import ADAM, RATES
from training.evaluation.practice.runs import Run
from training.evaluation.practice.suite import Found
from training.figures import captions_beyond, practice_profiles
from training.figures.comparison import OWN
from training.figures.settings import Settings


def run(*losses):
    return Run(0.0, np.nan, np.array(losses))


def test_steps_to_a_target_by_hand():
    """Means of two blocks of 50: 6, 3, 2, and their ends."""
    one = run(8.0, 4.0, 2.0, 2.0)
    found = [practice_profiles.steps_to(one, x) for x in (6.0, 5.9, 2.0, 1.9)]
    assert found == [100, 150, 200, np.inf]
    gone = run(8.0, np.inf, np.inf, np.inf)
    assert practice_profiles.steps_to(gone, 1.0) == np.inf


def found(name, own, adam):
    """A task with these last losses: of the rule, and of each Adam rate."""
    runs = {("own", 0.003): [run(8.0, 8.0, own, own)]}
    for rate, last in zip(RATES, adam, strict=True):
        runs[ADAM, rate] = [run(8.0, 8.0, last, last)]
    return Found(registry.TASKS[name], runs)


FOUND = [
    found("logistic", 1.0, (8, 8, 4, 2, 3, 8)),
    found("tabular", 6.0, (8, 8, 3, 4, 6, 8)),
]


def test_contestants_and_their_scores():
    """The best rates are 3e-3 and 1e-3; one for both is 3e-3."""
    assert practice_profiles.single(FOUND) == 3e-3
    listed = practice_profiles.contestants(FOUND, "own", 0.003)
    names = [name for name, *_ in listed]
    assert names == [OWN, "Adam, best of 6 rates", "Adam 0.001", "Adam 0.003"]
    told = practice_profiles.look_at(FOUND, listed)
    assert told["ratio"][OWN] == {"logistic": 0.5, "tabular": 2.0}
    assert told["geometric_mean"][OWN] == pytest.approx(1.0)
    assert told["worst"]["Adam 0.001"] == pytest.approx(2.0)
    steps = told["steps_to_target"]
    assert steps[OWN] == {"logistic": 200.0, "tabular": None}
    assert steps["Adam, best of 6 rates"] == {"logistic": 200, "tabular": 200}
    # Both at the target at the same time on one task, on the other never.
    assert told["profile"][OWN] == pytest.approx(0.5)
    numbers = {"steps": 200, "seeds": 1, "halves": {"decision": told}}
    text, behind = captions_beyond.practice_profiles(numbers)
    assert f"| {OWN} | 1.00 | 2.00 | 0.50 |" in text
    assert behind == [
        "Practice suite, tabular: 2.00 times the best Adam's loss."
    ]


def test_a_figure_of_real_runs(tmp_path, capsys):
    settings = Settings(out=tmp_path, steps=100, seeds=1, only=("logistic",))
    numbers = practice_profiles.run(settings, Results())
    assert list(numbers["halves"]) == ["decision"]
    assert "Decision half: loss after 100 steps" in capsys.readouterr().out
    assert (tmp_path / "practice_profiles.png").stat().st_size > 5000
    lines = (tmp_path / "practice_profiles.csv").read_text().splitlines()
    assert lines[0] == "half,task,optimizer,loss ratio,steps to target"
    # Nothing of these few steps went into the repository's file.
    kept = (tmp_path / "practice_runs.csv").read_text()
    assert kept.count("Adam") == len(RATES)
