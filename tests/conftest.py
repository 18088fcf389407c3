"""What all tests share."""

import keras
import pytest


@pytest.fixture(autouse=True, scope="session")
def seeded():
    """The same random numbers in every run.

    Once: each call empties TensorFlow's kernel cache, which costs seconds.
    """
    keras.utils.set_random_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test marked as required must not be skipped."""
    report = yield
    if report.skipped and item.get_closest_marker("required"):
        report.outcome = "failed"
        report.longrepr = f"required, but skipped: {report.longrepr}"
    return report
