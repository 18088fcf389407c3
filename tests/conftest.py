"""Settings and fixtures that all tests share."""

import dataclasses
import os
import shutil
import tempfile

import keras
import pytest
import tensorflow as tf

from hrnn_opt import weights
from tests.programs import QUICK

LONG = (
    "test_backends",
    "test_cluster_programs",
    "test_imagenet_program",
    "test_meta_programs",
    "test_figure_programs",
    "test_guard",
    "test_chunks",
)
"""Files that take minutes. They start first, so that no process ends alone."""

ENGINE = (
    "test_asynchronous",
    "test_horizon_discount",
    "test_meta_gradients",
    "test_meta_rivals",
    "test_meta_run",
    "test_meta_step",
    "test_penalties",
    "test_problem_contract",
    "test_problem_gradients",
    "test_rule_interface",
    "test_streams",
    "test_unroll",
)
"""Files of meta-training, whose programs run graphs as they are traced."""


def pytest_configure(config):
    """Keeps compiled programs for this session only, apart from the user's."""
    os.environ.pop("TF_XLA_FLAGS", None)
    # XLA_FLAGS= (empty) lets it compile as it does for users.
    for name, value in QUICK.items():
        os.environ.setdefault(name, value)
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Test processes share the cores, also with the programs they start.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    if not hasattr(config, "workerinput"):
        os.environ["HRNN_OPT_CACHE"] = tempfile.mkdtemp(prefix="hrnn-opt-xla-")


def pytest_unconfigure(config):
    """Removes the folder that the processes of pytest-xdist have shared."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop("HRNN_OPT_CACHE"), ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Puts long files first, and each file as a whole into one process."""
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


@pytest.fixture(autouse=True, scope="session")
def seeded():
    """Makes random numbers the same in every run.

    Only once: each call empties TensorFlow's kernel cache, which costs seconds.
    """
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def graphs_as_traced(request):
    """Lets TensorFlow run graphs as they are traced.

    Rewriting them takes a seventh of the time of short runs. Programs of
    meta-training never do it; in other files XLA_FLAGS= (empty) keeps it, since
    it is what users have.
    """
    if not os.environ["XLA_FLAGS"] and request.path.stem not in ENGINE:
        yield
        return
    from training.engine.compiled import keep_graphs_as_traced

    keep_graphs_as_traced()
    yield
    tf.config.optimizer.set_experimental_options(
        {"disable_meta_optimizer": False}
    )


@pytest.fixture(scope="session")
def plain_weights(tmp_path_factory):
    """The default weights where parameters keep their coordinates.

    Then an embedding differs from other matrices only in how it is computed.
    """
    path = tmp_path_factory.mktemp("weights") / "plain.npz"
    loaded = weights.load("wide")
    config = dataclasses.replace(
        loaded.config, eigenbasis=0.0, basis_length=0.0
    )
    weights.save(path, config, loaded.vector)
    return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fails a test that is marked as required but skipped."""
    report = yield
    if report.skipped and item.get_closest_marker("required"):
        report.outcome = "failed"
        report.longrepr = f"required, but skipped: {report.longrepr}"
    return report
