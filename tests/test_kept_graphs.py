"""Graphs that are kept between starts."""

import dataclasses
import logging
import os
import re
import time

import numpy as np
import pytest
import tensorflow as tf

from problems import draws
from problems.matrices import MatrixFactorization
from problems.monotone import Scaled
from tests.meta_cases import TINY, meta_vector
from training import kept_graphs
from training.common import compilation_cache
from training.engine.config import MetaConfig
from training.engine.meta_step import MetaStep
from training.rules.hierarchical import Hierarchical

FAMILY = MatrixFactorization(3, 2)
CONFIG = MetaConfig(segment=4, mean_steps=8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    # TensorFlow reads the flags once: it shall not keep programs there.
    tf.function(lambda x: x + x, jit_compile=True)(tf.ones(1))
    flag = f"--tf_xla_persistent_cache_directory={tmp_path}"
    monkeypatch.setenv("TF_XLA_FLAGS", f"--other=1 {flag} --more=2")
    return tmp_path / "graphs"


def meta_step(family=FAMILY, config=CONFIG):
    return MetaStep(Hierarchical(TINY), family, 3, config)


def results(step):
    vector = meta_vector(step.rule)
    pool = step.sampler.draw(vector, 1, 5.0)
    return step.at_most(2, vector, pool, 3, 5.0)


def forbidden(*_):
    raise AssertionError("Traced, although it was kept.")


@pytest.fixture
def no_tracing(monkeypatch):
    return lambda: monkeypatch.setattr(kept_graphs, "_trace", forbidden)


def assert_same(some, others):
    tf.nest.assert_same_structure(some, others)
    pairs = zip(tf.nest.flatten(some), tf.nest.flatten(others), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)


def test_a_kept_meta_step_gives_the_same(folder, monkeypatch):
    kept = results(meta_step())
    assert len(list(folder.iterdir())) == 2
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    plain = results(meta_step())
    assert np.any(plain[0] != 0.0)
    assert_same(kept, plain)


def test_the_next_start_reads(folder, no_tracing):
    step = meta_step()
    vector = meta_vector(step.rule)
    first = step.sampler.draw(vector, 1, 5.0)
    no_tracing()
    assert_same(first, meta_step().sampler.draw(vector, 1, 5.0))


def test_graphs_do_not_depend_on_what_came_before(folder):
    graphs = []
    for _ in range(2):
        step = meta_step()
        vector = meta_vector(step.rule)
        pool = step.sampler.draw(vector, 1, 5.0)
        arguments = tf.constant(2), vector, pool, draws.as_seed(3), tf.ones(())
        graphs.append(kept_graphs._trace(step._step, arguments))
    assert graphs[0].definition == graphs[1].definition
    named = rb"__inference__(?:for|back)ward_\d+_[0-9a-f]{16}(?!\w)"
    assert len(set(re.findall(named, graphs[0].definition))) == 2


def test_other_graphs_have_other_files(folder, no_tracing):
    step = meta_step()
    vector = meta_vector(step.rule)
    step.sampler.draw(vector, 1, 5.0)
    no_tracing()
    for change in (
        {"family": MatrixFactorization(3, 1)},
        {"config": dataclasses.replace(CONFIG, highest_rate=1.0)},
    ):
        with pytest.raises(AssertionError, match="Traced"):
            meta_step(**change).sampler.draw(vector, 1, 5.0)


class Elsewhere(MatrixFactorization):
    """A researcher's own problem: its file is not watched."""


@pytest.mark.parametrize(
    "family", [Elsewhere(3, 2), Scaled(Elsewhere(3, 2))], ids=["own", "inside"]
)
def test_what_comes_from_elsewhere_is_not_kept(folder, family):
    step = meta_step(family)
    step.sampler.draw(meta_vector(step.rule), 1, 5.0)
    assert not folder.exists()


def test_a_graph_that_holds_a_tensor_is_not_kept(folder, monkeypatch):
    held = tf.constant(2.0)
    step = meta_step()
    begin = step.sampler.begin
    monkeypatch.setattr(
        step.sampler,
        "begin",
        lambda vector, data: begin(vector * held, data),
    )
    step.sampler.draw(meta_vector(step.rule), 1, 5.0)
    assert not folder.exists()


def test_a_damaged_file_is_made_anew(folder, caplog):
    step = meta_step()
    vector = meta_vector(step.rule)
    first = step.sampler.draw(vector, 1, 5.0)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with caplog.at_level(logging.WARNING):
        second = meta_step().sampler.draw(vector, 1, 5.0)
    assert "Damaged, and made anew" in caplog.text
    assert_same(first, second)
    assert path.read_bytes() == whole


def test_what_is_unused_is_forgotten(tmp_path):
    (tmp_path / "graphs").mkdir()
    now, old = time.time(), time.time() - compilation_cache.UNUSED - 60
    files = {
        "xla_compile_cache__1__2__XLA_CPU_JIT.pb": (old, old),
        "xla_compile_cache__3__4__XLA_CPU_JIT.pb": (now, old),
        "xla_compile_cache__5__6__XLA_CPU_JIT.pb": (old, now),
        "graphs/a.graph": (old, old),
        "graphs/b.graph": (now, now),
        "thesis.pb": (old, old),
    }
    for name, times in files.items():
        (tmp_path / name).write_bytes(b"1")
        os.utime(tmp_path / name, times)  # Read, written.
    compilation_cache.forget_unused(tmp_path)
    left = {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*.*")}
    assert left == {name for name in files if max(files[name]) == now} | {
        "thesis.pb"
    }
