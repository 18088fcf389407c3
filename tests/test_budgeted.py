"""Meta-training within a budget, and the LSTM rule in the engine."""

import dataclasses
import json

import numpy as np
import pytest

from problems import Row
from problems.data import digits
from problems.matrices import MatrixFactorization
from problems.neural import MLP, OnPictures, pooled
from training.common import checkpoints
from training.common.results import Results
from training.figures import drawn
from training.figures.ablations import CONFIG, ROWS, VARIANTS, rows
from training.figures.budgeted import meta_train
from training.figures.lstm_optimizers import CONFIG as LSTM_CONFIG
from training.figures.lstm_optimizers import SGD_RATES
from training.figures.settings import SettingsError
from training.rules.lstm import LSTMRule

RULE = LSTMRule(units=2)
TINY = (Row("tiny", 1.0, MatrixFactorization(3, 2)),)
SETTINGS = dataclasses.replace(LSTM_CONFIG, segment=5)


@pytest.mark.slow
def test_a_budget_is_spent_once_and_gone_on_with(tmp_path):
    path = tmp_path / "lstm.npz"

    def spend(seconds, **changes):
        config = dataclasses.replace(SETTINGS, **changes)
        return meta_train(RULE, TINY, config, seconds, path, "tiny")

    first, told = spend(0.05)
    assert told["iterations"] >= 1 and np.any(first != RULE.initial_meta(0))
    again, same = spend(0.05)
    np.testing.assert_array_equal(again, first)
    assert same == told
    before = checkpoints.read(path)[0]["state/iteration"]
    more, now = spend(told["seconds"] + 0.5)
    assert now["iterations"] > told["iterations"]
    arrays, info = checkpoints.read(path)
    # It continued from there: no iteration was repeated.
    assert arrays["state/iteration"] == now["iterations"] > before
    assert len(info["losses"]) == now["iterations"]
    assert np.any(more != first)
    with pytest.raises(SettingsError, match="same settings, or be removed"):
        spend(9.0, meta_rate=1e-5)
    # Settings newer than a file are taken to have had their defaults.
    settings = json.loads(info["kind"]["config"])
    del settings["negligible"]
    info["kind"]["config"] = json.dumps(settings)
    checkpoints.write(path, arrays, info)
    np.testing.assert_array_equal(spend(0.05)[0], more)


@pytest.mark.slow
def test_a_meta_trained_lstm_beats_sgd(tmp_path):
    """On unseen draws of a sigmoid MLP, also against its untrained self."""
    bank = digits()
    x = pooled(bank.x_train, 4)
    family = OnPictures(MLP((16, 8, 10), "sigmoid", rows=64), x, bank.y_train)
    row = (Row("sigmoid", 1.0, family),)
    rule = LSTMRule(units=8)
    vector, _ = meta_train(
        rule, row, LSTM_CONFIG, 40.0, tmp_path / "lstm.npz", "sigmoid"
    )

    def final(who):
        found = drawn.quantiles(family, "sigmoid", who, 100, 8, Results())
        return found[1, :, -1].min()

    own = final(drawn.learned("LSTM", rule, vector, (1.0,)))
    untrained = drawn.learned("LSTM", rule, rule.initial_meta(0), (1.0,))
    assert own < 0.7 * final(untrained)
    assert own < final(drawn.sgd(SGD_RATES))


def test_every_variant_differs_in_what_it_says():
    full, config = VARIANTS["full"].make()
    assert config == CONFIG
    made = {name: variant.make() for name, variant in VARIANTS.items()}
    assert len({repr(pair) for pair in made.values()}) == len(VARIANTS)
    switches = {
        name
        for rule, _ in made.values()
        for name, value in dataclasses.asdict(rule.config).items()
        if value != getattr(full.config, name)
    }
    plain = VARIANTS["plain loss"].make()
    assert plain == (full, dataclasses.replace(CONFIG, log_objective=False))
    # Each field of the rule is varied by at least one of them.
    assert switches == {f.name for f in dataclasses.fields(full.config)}
    assert {row.name for row in rows()} == set(ROWS)
    assert sum(row.weight for row in rows()) == pytest.approx(1.0)
