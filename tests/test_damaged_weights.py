"""A damaged weights file causes an error with its name, or no harm."""

import json
import warnings

import numpy as np
import pytest

from hrnn_opt import RuleConfig, weights
from hrnn_opt.rule import meta_parameters
from hrnn_opt.rule.config import WITHOUT_TENSOR_RNN

VALUES = (
    None, True, -1, 0, 10**9, 1e400, "x", "", [], [1, "a"], {}, {"a": [None]},
    {"param_units": "x"}, {"attention": 1}, "\ud800",
)  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    config = RuleConfig(param_units=1, timescales=2, **WITHOUT_TENSOR_RNN)
    vector = meta_parameters.initial_vector(config, 0)
    path = tmp_path_factory.mktemp("weights") / "small.npz"
    weights.save(path, config, vector)
    return path


def check(path, expected):
    """Checks that it is refused by name, or loaded as it was saved."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = weights.load(path)
    except ValueError as error:
        assert path.name in str(error)
        return False
    assert loaded.sha256 == expected.sha256
    np.testing.assert_array_equal(loaded.vector, expected.vector)
    return True


def flipped(data, rng):
    """Changes one to three bytes, often inside an array's header."""
    data = bytearray(data)
    where = [rng.integers(len(data)) for _ in range(rng.integers(1, 4))]
    if rng.random() < 0.5:
        starts = [
            k for k in range(len(data)) if data[k : k + 6] == b"\x93NUMPY"
        ]
        start = starts[rng.integers(len(starts))]
        where = [start + rng.integers(0, 80) for _ in where]
    for k in where:
        printable = rng.random() < 0.7
        data[k] = rng.integers(32, 127) if printable else rng.integers(256)
    return bytes(data)


def cut(data, rng):
    """Removes some bytes, or adds some."""
    a, b = sorted(rng.integers(len(data), size=2))
    if rng.random() < 0.3:
        return data[:a]
    if rng.random() < 0.5:
        return data[:a] + data[b:]
    return data[:a] + rng.bytes(rng.integers(1, 50)) + data[a:]


@pytest.mark.parametrize("damage, count", [(flipped, 2000), (cut, 600)])
def test_damaged_bytes(original, tmp_path, damage, count):
    expected, data = weights.load(original), original.read_bytes()
    path, rng = tmp_path / "damaged.npz", np.random.default_rng(0)
    accepted = 0
    for _ in range(count):
        path.write_bytes(damage(data, rng))
        accepted += check(path, expected)
    # Some bytes have no meaning, such as the time of writing.
    assert accepted < count / 4


def parts(path):
    with np.load(path) as archive:
        arrays = dict(archive)
    return json.loads(str(arrays.pop("metadata"))), arrays


def write(path, metadata, arrays):
    try:
        text = np.array(json.dumps(metadata))
        np.savez(path, metadata=text, **arrays)
    except UnicodeEncodeError:
        np.savez(path, metadata=np.array(["no text"]), **arrays)


def test_damaged_metadata(original, tmp_path):
    expected, path = weights.load(original), tmp_path / "damaged.npz"
    metadata, arrays = parts(original)
    places = [(key,) for key in metadata]
    places += [("config", key) for key in metadata["config"]]
    for place in places:
        for value in VALUES:
            changed = json.loads(json.dumps(metadata))
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            write(path, changed, arrays)
            check(path, expected)
            del inner[place[-1]]
            write(path, changed, arrays)
            check(path, expected)
    for value in VALUES:
        write(path, value, arrays)
        assert not check(path, expected)


def test_damaged_arrays(original, tmp_path):
    expected, path = weights.load(original), tmp_path / "damaged.npz"
    metadata, arrays = parts(original)
    for name, array in arrays.items():
        for value in (
            array.astype("float64"),
            array.astype("complex64"),
            array.astype("U8"),
            array.astype(bool),
            array.T[..., None],
            array[..., :0],
            np.full_like(array, np.nan),
            array + np.float32(1),
            np.zeros(array.shape, [("a", "f4")]),
        ):
            write(path, metadata, arrays | {name: value})
            check(path, expected)
        rest = {k: v for k, v in arrays.items() if k != name}
        write(path, metadata, rest)
        assert not check(path, expected)
        write(path, metadata, arrays | {name + "x": array})
        assert not check(path, expected)
