"""The files that a run of meta-training writes."""

import csv
import dataclasses
import logging
from typing import NamedTuple

import numpy as np
import pytest

from hrnn_opt import RuleConfig
from training.common import checkpoints
from training.engine import meta_optimizer
from training.engine.config import MetaConfig
from training.engine.meta_step import MetaStatistics
from training.evaluation import candidates
from training.rules.hierarchical import Hierarchical
from training.runs import folder as run_folder
from training.runs.folder import RunFolder
from training.runs.local import state_arrays, state_of
from training.runs.log import HEADER, RunLog


def arrays(number):
    return {"state/vector": np.full(50, number, "float32")}


def test_digests_know_all_numbers_of_the_rule():
    fields = dataclasses.fields(RuleConfig)
    numbers = {field.name for field in fields if field.type is float}
    assert set(candidates.NUMBERS) == numbers


def test_write_and_read(tmp_path):
    path = tmp_path / "new" / "a.npz"
    given = arrays(1) | {"state/iteration": np.asarray(7)}
    checkpoints.write(path, given, {"seconds": 1.5, "config": {"a": None}})
    found, info = checkpoints.read(path)
    assert info == {"seconds": 1.5, "config": {"a": None}}
    assert found.keys() == given.keys()
    for name, value in given.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
    assert [p.name for p in path.parent.iterdir()] == ["a.npz"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.npz"
    checkpoints.write(path, arrays(1), {})
    with pytest.raises(TypeError):
        checkpoints.write(path, arrays(2), {"seconds": object()})
    assert checkpoints.read(path)[0]["state/vector"][0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_the_newest_are_kept(tmp_path):
    assert checkpoints.newest(tmp_path / "nowhere") is None
    for n in (5, 90, 1_000_000_000, 100):
        checkpoints.save(tmp_path, n, arrays(n), {"n": n}, keep=5)
    (tmp_path / "checkpoint-other.npz").write_text("not one")
    (tmp_path / "small.npz").write_text("not one")
    assert checkpoints.newest(tmp_path)[1] == {"n": 1_000_000_000}
    checkpoints.save(tmp_path, 2_000_000_000, arrays(1), {"n": 0}, keep=2)
    numbers = [n for n, _ in checkpoints.numbered(tmp_path)]
    assert numbers == [1_000_000_000, 2_000_000_000]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["half", "none", "text", "end"])
def test_damaged_checkpoints_are_skipped(tmp_path, damage, caplog):
    for n in (1, 2):
        checkpoints.save(tmp_path, n, arrays(n), {"n": n}, keep=2)
    path = checkpoints.numbered(tmp_path)[-1][1]
    whole = path.read_bytes()
    path.write_bytes(
        {
            "half": whole[: len(whole) // 2],
            "none": b"",
            "text": b"garbage" * 100,
            "end": whole[:-1],
        }[damage]
    )
    with caplog.at_level(logging.WARNING, "absl"):
        assert checkpoints.newest(tmp_path)[1] == {"n": 1}
    assert "damaged" in caplog.text and path.name in caplog.text


def test_any_wrong_byte_is_a_value_error_or_harmless(tmp_path):
    path = tmp_path / "a.npz"
    checkpoints.write(path, arrays(3), {"n": 3})
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        path.write_bytes(broken)
        try:
            found, info = checkpoints.read(path)
        except ValueError:
            refused += 1
            continue
        for value in found.values():
            np.testing.assert_array_equal(value, arrays(3)["state/vector"])
        assert info == {"n": 3}
    assert refused > len(whole) / 2


def statistics(loss):
    return MetaStatistics(*(loss for _ in MetaStatistics._fields))


def lines(folder):
    with (folder / "meta_train.csv").open() as file:
        return list(csv.reader(file))


def test_lines_that_will_be_done_again_are_dropped(tmp_path):
    first = RunLog(tmp_path, 0, 0.0, None)
    for n in range(12):
        first.meta_iteration(n, "plane", 100, statistics(-0.5))
    first.close()
    with (tmp_path / "meta_train.csv").open("a") as file:
        file.write("12,cut off")
    second = RunLog(tmp_path, 10, 60.0, 30.0)
    second.meta_iteration(10, "valley", 100, statistics(-0.25))
    second.held_out(10, {"plane": (-1.0, 0.0, 0.0)})
    second.flush()
    header, *kept = lines(tmp_path)
    assert tuple(header) == HEADER
    assert [int(line[0]) for line in kept] == list(range(11))
    assert [line[1] for line in kept] == ["plane"] * 10 + ["valley"]
    assert float(kept[-1][2]) >= 60 > float(kept[-2][2])
    assert [float(x) for x in kept[-1][3:]] == [-0.25] * len(HEADER[3:])
    assert second.seconds >= 60 > second.elapsed
    second.close()
    assert list((tmp_path / "events").iterdir())


def test_a_run_that_starts_again_has_one_header(tmp_path):
    for _ in range(2):
        log = RunLog(tmp_path, 0, 0.0, None)
        log.meta_iteration(0, "plane", 1, statistics(1.0))
        log.close()
    assert [line[0] for line in lines(tmp_path)] == ["iteration", "0"]


class Resting(NamedTuple):
    """The parts of a run that its folder needs."""

    rule: Hierarchical
    state: meta_optimizer.MetaState

    @classmethod
    def of(cls, config):
        rule = Hierarchical(config.rule_config)
        return cls(rule, meta_optimizer.initial(rule.initial_meta(0)))

    def arrays(self):
        return state_arrays(self.state, 0)

    def restore(self, arrays):
        state_of(arrays, self.state.vector.shape)


def test_sizes_of_the_rule_are_kept_with_the_run(tmp_path):
    given = {"param_units": 5, "tensor_units": 10, "global_units": 10}
    lite = run_folder.settings(tmp_path, given)
    assert lite.rule_config == RuleConfig(**given)
    folder = RunFolder(tmp_path, lite)
    run = Resting.of(lite)
    folder.prepare(run)
    assert run_folder.settings(tmp_path, {}) == lite
    with pytest.raises(ValueError, match="--param_units must be 5.*=10"):
        run_folder.settings(tmp_path, {"param_units": 10})
    with pytest.raises(ValueError, match="`tensor_units`.*at least 1.*=0"):
        MetaConfig(tensor_units=0)
    small = tmp_path / "small.npz"
    checkpoints.write(small, run.arrays(), folder._info)
    rule, vector = candidates.load(str(small))
    assert rule == run.rule
    np.testing.assert_array_equal(vector, run.state.average)


def test_a_start_from_another_rule_is_refused_by_its_sizes(tmp_path):
    lite, paper = MetaConfig(param_units=5), MetaConfig()
    folder, run = RunFolder(tmp_path / "lite", lite), Resting.of(lite)
    folder.prepare(run)
    start = tmp_path / "start.npz"
    checkpoints.write(start, run.arrays(), folder._info)
    RunFolder(tmp_path / "same", lite).prepare(Resting.of(lite), start)
    # The meta-parameters are the same, whichever gradients count.
    other = MetaConfig(param_units=5, negligible=1e-5)
    RunFolder(tmp_path / "other", other).prepare(Resting.of(other), start)
    other = RunFolder(tmp_path / "paper", paper)
    with pytest.raises(
        ValueError, match="param_units': 10}.*Received: {'param_units': 5}"
    ):
        other.prepare(Resting.of(paper), start)
    assert not other.path.exists()


class Restored:
    """A run that takes over what its folder finds."""

    def __init__(self, config):
        self.rule, self.state = Resting.of(config)

    def arrays(self):
        return state_arrays(self.state, 0)

    def restore(self, arrays):
        self.state, _ = state_of(arrays, self.state.vector.shape)


def started(folder, config, start):
    run, folder = Restored(config), RunFolder(folder, config)
    folder.prepare(run, start)
    return run, folder


def test_gradients_of_another_kind_are_no_memory_for_the_optimizer(tmp_path):
    """A run that evolves few numbers starts from the average, with no mean."""
    plain, evolved = MetaConfig(), MetaConfig(evolved="step_bias")
    run, folder = started(tmp_path / "plain", plain, None)
    ones = np.ones(run.state.vector.size, "float32")
    run.state = run.state._replace(
        mean=ones, average=3 * ones, iteration=9, updates=9
    )
    start = tmp_path / "start.npz"
    checkpoints.write(start, run.arrays(), folder._info)
    same, _ = started(tmp_path / "same", plain, start)
    assert same.state.iteration == 9 and np.all(same.state.mean == 1)
    other, folder = started(tmp_path / "evolved", evolved, start)
    assert other.state.iteration == other.state.updates == 0
    assert not np.any(other.state.mean)
    np.testing.assert_array_equal(other.state.vector, 3 * ones)
    assert folder._info["stages"][-1]["settings"] == {"evolved": "step_bias"}
    # And back: nor are its estimates any for derivatives.
    other.state = other.state._replace(mean=ones, iteration=5)
    checkpoints.write(start, other.arrays(), folder._info)
    back, _ = started(tmp_path / "back", plain, start)
    assert back.state.iteration == 0 and not np.any(back.state.mean)
