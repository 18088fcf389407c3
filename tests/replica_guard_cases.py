"""The guard under `MirroredStrategy`: as on one device, on every copy.

Run by `test_replicas.py` in a separate process, like `replica_cases.py`.
"""

import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import callbacks
from hrnn_opt.model import guard
from tests.reference_pair import weights_file
from tests.replica_cases import (
    DATA,
    Side,
    aggregated,
    both,
    copies,
    mirrored,
    new_model,
    one_device,
    replica_gradients,
    same,
    variables,
)

pytestmark = pytest.mark.filterwarnings("ignore:HierarchicalRNN trains at")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Makes failures show within a few steps."""
    monkeypatch.setattr(guard, "INTERVAL", 4)
    monkeypatch.setattr(guard, "PATIENCE", 3)


def test_a_watched_loss_goes_back_on_all_copies(tmp_path):
    path = weights_file(tmp_path)
    one = Side(one_device(), path, guard=True)
    two = Side(mirrored(), path, guard=True)
    for k, (first, second) in enumerate(replica_gradients(20)):
        one.step([[a + b for a, b in zip(first, second, strict=True)]])
        two.step([first, second])
        loss = np.nan if k == 11 else 1.0
        for side in (one, two):
            if np.isnan(loss):
                with pytest.warns(UserWarning, match="the guard went back"):
                    side.optimizer.watch(loss)
            else:
                side.optimizer.watch(loss)
    assert one.optimizer.rollbacks == two.optimizer.rollbacks == 1
    assert two.optimizer.first_rollback_at == 12
    same(one.all, two.all, 1e-6)


@pytest.mark.filterwarnings("ignore:HierarchicalRNN.guard=True. watches")
@pytest.mark.filterwarnings("ignore:HierarchicalRNN skipped")
def test_skipped_steps_go_back_on_all_copies(tmp_path):
    # Without a loss, inside the step: NaN on one replica only.
    path = weights_file(tmp_path)
    gradients = replica_gradients(16)
    for first, _ in gradients[9:12]:
        first[-1] = np.full_like(first[-1], np.nan)
    one, two = both(path, gradients, guard=True)
    assert one.optimizer.rollbacks == two.optimizer.rollbacks == 1
    same(one.all, two.all, 1e-6)


@pytest.mark.filterwarnings("ignore:HierarchicalRNN.guard=True. watches")
@pytest.mark.filterwarnings("ignore:HierarchicalRNN skipped")
def test_the_aggregation_of_a_variable_does_not_matter():
    strategy = mirrored()
    ways = "mean", "only_first_replica"
    own, optimizer = aggregated(strategy, *ways, guard=True)

    @tf.function
    def step(gradient):
        strategy.run(
            lambda g: optimizer.apply([g * tf.ones(3)] * len(own), own),
            args=(gradient,),
        )

    for value in (1.0, 1.0, np.nan, np.nan, np.nan):
        step(tf.constant(value))
    assert optimizer.rollbacks == 1
    for variable in own:
        first, second = copies(variable)
        np.testing.assert_array_equal(first, second)
        assert np.all(np.isfinite(first))


@pytest.mark.slow
def test_fit_goes_back_as_on_one_device(tmp_path):
    path = weights_file(tmp_path)
    strategies = one_device(), mirrored()
    models = [new_model(s, path, guard=True) for s in strategies]
    for k, model in enumerate(models):
        events = callbacks.Telemetry(tmp_path / f"events{k}", every=5)
        watch = [callbacks.AttentionSwap(), callbacks.Guard(), events]
        keep = {"batch_size": 8, "shuffle": False, "verbose": 0}
        model.fit(*DATA, epochs=4, callbacks=watch, **keep)
        with pytest.warns(UserWarning, match="the guard went back"):
            model.fit(DATA[0], DATA[1] + 1e6, epochs=2, callbacks=watch, **keep)
        model.fit(*DATA, epochs=2, callbacks=watch, **keep)
        assert model.optimizer.rollbacks >= 1
        assert list((tmp_path / f"events{k}").rglob("*tfevents*"))
    same(*map(variables, models), 1e-5)
