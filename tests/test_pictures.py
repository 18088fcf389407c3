"""Pictures by name: prepared folders, and the messages without them."""

import sys

import numpy as np
import pytest

from problems import pictures
from problems.data import digits
from tests import tiny_pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_pictures.prepare(tmp_path_factory.mktemp("tfds"))


@pytest.mark.parametrize("name", pictures.PREPARED)
def test_what_was_prepared_is_read(folder, name):
    split = pictures.load(name, data_dir=folder)
    shape = tiny_pictures.SHAPES[name]
    assert split.x_train.shape == (tiny_pictures.TRAIN, *shape)
    assert split.x_test.shape == (tiny_pictures.TEST, *shape)
    assert split.x_train.dtype == np.float32 and split.y_train.dtype == np.int32
    # The file's order differs, so they are compared as sets.
    wanted = tiny_pictures.enlarged(digits().x_train[:200], shape)
    found = (split.x_train * 255).round().astype("uint8")
    assert {x.tobytes() for x in wanted} == {x.tobytes() for x in found}
    labels = {
        x.tobytes(): y for x, y in zip(wanted, digits().y_train, strict=False)
    }
    for x, y in zip(found, split.y_train, strict=True):
        assert labels[x.tobytes()] == y


def test_a_part_is_the_first_of_the_whole(folder):
    whole = pictures.load("mnist", data_dir=folder)
    part = pictures.load("mnist", 50, folder)
    np.testing.assert_array_equal(part.x_train, whole.x_train[:50])
    np.testing.assert_array_equal(part.y_test, whole.y_test)


def test_the_environment_names_the_folder(folder, monkeypatch):
    import tensorflow_datasets

    constants = tensorflow_datasets.core.constants
    monkeypatch.setattr(constants, "DATA_DIR", str(folder))
    assert pictures.prepared("mnist").parent.parent == folder


def test_the_newest_version_is_taken(tmp_path):
    for version in ("3.0.2", "3.0.10", "2.9.9"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").touch()
    assert pictures.prepared("mnist", tmp_path).name == "3.0.10"


def test_missing_data_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="tfds build cifar10 --data_dir"
    ):
        pictures.load("cifar10", data_dir=tmp_path)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"hrnn-opt\[data\]"):
        pictures.load("mnist")
    assert len(pictures.load("digits", 10).y_train) == 10


def test_wrong_arguments():
    with pytest.raises(ValueError, match="fashion_mnist.* Received: .*svhn"):
        pictures.load("svhn")
    with pytest.raises(ValueError, match="at least 1. Received: count=0"):
        pictures.load("digits", 0)


@pytest.mark.parametrize("name, mean", [
    ("mnist", 0.1307), ("fashion_mnist", 0.2860), ("cifar10", 0.4734)
])  # fmt: skip
def test_the_real_data(name, mean):
    """The means of the whole training sets are their well-known ones."""
    try:
        split = pictures.load(name, 5000)
    except (FileNotFoundError, ImportError) as error:
        pytest.skip(str(error))
    assert split.x_train.mean() == pytest.approx(mean, abs=0.01)
    # They are shuffled: all classes occur, about equally often.
    counts = np.bincount(split.y_train, minlength=10)
    assert counts.min() > 350 and counts.max() < 650
