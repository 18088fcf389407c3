"""What all tests share."""

import os
import shutil
import tempfile

import keras
import pytest
import tensorflow as tf

LONG = (
    "test_backends",
    "test_cluster_programs",
    "test_imagenet_program",
    "test_meta_programs",
    "test_figure_programs",
    "test_guard",
    "test_chunks",
)
"""Files that take minutes: they begin first, so that no process ends alone."""

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
"""Files that run graphs of meta-training: as traced, as its programs do."""


def pytest_configure(config):
    """Compiled programs are kept for this session alone, never the user's."""
    os.environ.pop("TF_XLA_FLAGS", None)
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Processes share the cores, also with the programs that they start.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    if not hasattr(config, "workerinput"):
        os.environ["HRNN_OPT_CACHE"] = tempfile.mkdtemp(prefix="hrnn-opt-xla-")


def pytest_unconfigure(config):
    """The folder goes; processes of pytest-xdist have shared it."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop("HRNN_OPT_CACHE"), ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Long files first; each goes to one process as a whole."""
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


@pytest.fixture(autouse=True, scope="session")
def seeded():
    """The same random numbers in every run.

    Once: each call empties TensorFlow's kernel cache, which costs seconds.
    """
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def graphs_as_traced(request):
    """What `training.meta_train` sets for its process, for some files."""
    if request.path.stem not in ENGINE:
        yield
        return
    from training.engine.compiled import keep_graphs_as_traced

    keep_graphs_as_traced()
    yield
    tf.config.optimizer.set_experimental_options(
        {"disable_meta_optimizer": False}
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test marked as required must not be skipped."""
    report = yield
    if report.skipped and item.get_closest_marker("required"):
        report.outcome = "failed"
        report.longrepr = f"required, but skipped: {report.longrepr}"
    return report
