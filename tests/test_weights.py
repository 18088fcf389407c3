"""Weights files: complete, checked, and otherwise refused by name."""

import json
import pathlib

import numpy as np
import pytest

from hrnn_opt import RuleConfig, weights
from hrnn_opt.rule import meta_parameters

SMALL = RuleConfig(param_units=2, tensor_units=2, global_units=2, timescales=2)
PROVENANCE = {"iterations": 3, "problems": ["a", "b"], "note": "ä"}


def vector(config=SMALL):
    return meta_parameters.initial_vector(config, seed=0)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "some.npz"
    weights.save(path, SMALL, vector(), PROVENANCE)
    return path


def arrays_of(path):
    with np.load(path) as archive:
        return dict(archive)


def rewrite(path, metadata=None, **changes):
    """Changes entries of the archive; None removes an entry."""
    arrays = arrays_of(path) | changes
    if metadata is not None:
        old = json.loads(str(arrays["metadata"]))
        arrays["metadata"] = np.array(json.dumps(old | metadata))
    arrays = {k: v for k, v in arrays.items() if v is not None}
    np.savez(path, **arrays)


def refused(path, text):
    """Checks that it is refused, and that the error names the file."""
    with pytest.raises(ValueError, match=text) as caught:
        weights.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_round_trip(tmp_path, kind):
    path = kind(tmp_path / "some.npz")
    sha256 = weights.save(path, SMALL, vector(), PROVENANCE)
    loaded = weights.load(path)
    assert loaded.config == SMALL
    assert loaded.provenance == PROVENANCE
    assert loaded.sha256 == sha256
    assert loaded.vector.dtype == "float32"
    np.testing.assert_array_equal(loaded.vector, vector())


def test_arrays_lie_in_the_file_by_name(path):
    arrays = arrays_of(path)
    arrays.pop("metadata")
    shapes = {name: array.shape for name, array in arrays.items()}
    assert shapes == meta_parameters.shapes(SMALL)
    flat = np.concatenate([a.ravel() for a in arrays.values()])
    np.testing.assert_array_equal(flat, vector())


def test_sha256_tells_contents_apart(tmp_path):
    path = tmp_path / "some.npz"
    other_config = RuleConfig(
        param_units=2, tensor_units=2, global_units=2, timescales=2,
        dynamic_input_scaling=False,
    )  # fmt: skip
    nudged = vector()
    nudged[7] = np.nextafter(nudged[7], np.float32(9))
    digests = [
        weights.save(path, SMALL, vector(), PROVENANCE),
        weights.save(path, SMALL, vector(), {}),
        weights.save(path, SMALL, nudged, PROVENANCE),
        weights.save(path, other_config, vector(), PROVENANCE),
    ]
    assert len(set(digests)) == 4
    assert weights.save(path, SMALL, vector(), PROVENANCE) == digests[0]


def test_names_can_be_loaded():
    assert "pretrained" in weights.names()
    assert weights.names() == sorted(weights.names())
    for name in weights.names():
        loaded = weights.load(name)
        assert np.all(np.isfinite(loaded.vector))
        assert loaded.vector.shape == (meta_parameters.size(loaded.config),)


def test_missing_file_is_named_beside_the_known_names(tmp_path):
    missing = tmp_path / "nowhere.npz"
    with pytest.raises(FileNotFoundError) as caught:
        weights.load(missing)
    text = str(caught.value)
    assert f"there is no file {missing}" in text
    assert str(weights.names()) in text
    with pytest.raises(FileNotFoundError, match="weights='pretraind'"):
        weights.load("pretraind")


def test_folder_is_not_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        weights.load(tmp_path)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "is not a weights file")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x04"])
def test_not_an_archive(path, content):
    path.write_bytes(content)
    refused(path, "is not a weights file")


def test_single_array_is_not_an_archive(path):
    with open(path, "wb") as file:
        np.save(file, vector())
    refused(path, "is not a weights file")


def loads_the_same_or_is_refused(path, content, position, bit):
    damaged = bytearray(content)
    damaged[position] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        loaded = weights.load(path)
    except ValueError as error:
        assert str(path) in str(error)
        return False
    # Some bytes have no meaning: time stamps, padding.
    np.testing.assert_array_equal(loaded.vector, vector())
    assert (loaded.config, loaded.provenance) == (SMALL, PROVENANCE)
    return True


def test_flipped_bit_of_a_number(path):
    content = path.read_bytes()
    # The biases of 2.2, as stored in the file.
    position = content.index(np.full(4, 2.2, "<f4").tobytes())
    for bit in range(8):
        assert not loads_the_same_or_is_refused(path, content, position, bit)


def test_flipped_bits_anywhere(path):
    content = path.read_bytes()
    for position in range(0, len(content), 41):
        loads_the_same_or_is_refused(path, content, position, position % 8)


def test_flipped_bits_of_the_last_directory_entry(path):
    content = path.read_bytes()
    start = content.rindex(b"PK\x01\x02")
    for position in range(start, start + 46):
        for bit in (0, 3, 6):
            loads_the_same_or_is_refused(path, content, position, bit)


@pytest.mark.parametrize(
    "change",
    [
        {"step_bias": np.float32([0.5])},
        {"metadata": {"provenance": {"iterations": 4}}},
        {"metadata": {"sha256": "0" * 64}},
    ],
)
def test_changed_content_fails_its_sha256(path, change):
    rewrite(path, **change)
    refused(path, "is damaged: expected sha256")


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("name", ["step_bias", "metadata"])
def test_pickle_is_refused_and_not_run(path, tmp_path, name):
    trap = np.empty(1, object)
    trap[0] = Trap(tmp_path / "sprung")
    arrays = arrays_of(path) | {name: trap}
    np.savez(path, **arrays)
    refused(path, "is not a weights file.*allow_pickle")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"h_param": np.zeros(3, "float32")},
        {"step_kernel": np.zeros((2, 1), "float32")},  # of the same size
        {"h_param": None},
        {"other": np.zeros(2, "float32")},
    ],
)
def test_wrong_shapes(path, change):
    rewrite(path, **change)
    refused(path, "is damaged: expected arrays.*for its config")


def test_no_metadata(path):
    arrays = arrays_of(path)
    arrays.pop("metadata")
    np.savez(path, **arrays)
    refused(path, "is not a weights file.*KeyError: 'metadata'")


@pytest.mark.parametrize(
    "text", ["no json", "[1, 2]", "7", "{}", '"rule_version"']
)
def test_metadata_that_is_not_ours(path, text):
    np.savez(path, **arrays_of(path) | {"metadata": np.array(text)})
    refused(path, "is not a weights file")


@pytest.mark.parametrize(
    "config, text",
    [
        ({"param_units": 0}, "param_units.*at least 1"),
        ({"colour": 1}, r"unknown: \['colour'\]"),
        (3, "is damaged"),
    ],
)
def test_config_that_makes_no_sense(path, config, text):
    rewrite(path, metadata={"config": config})
    refused(path, f"is damaged: .*{text}|{text}")


def test_other_rule_version(path, monkeypatch):
    version = weights.RULE_VERSION
    monkeypatch.setattr(weights, "RULE_VERSION", 77)
    refused(path, f"trained under rule version {version};.*version 77")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_not_saved(tmp_path, bad):
    broken = vector()
    broken[3] = bad
    with pytest.raises(ValueError, match="finite numbers.*1 not finite"):
        weights.save(tmp_path / "some.npz", SMALL, broken)
    assert list(tmp_path.iterdir()) == []


def test_vector_of_another_config_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"Received: shape \(3,\)"):
        weights.save(tmp_path / "some.npz", SMALL, np.zeros(3))
    assert list(tmp_path.iterdir()) == []


def break_writing(monkeypatch):
    def savez(file, **arrays):
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", savez)


def break_replacing(monkeypatch):
    def replace(*_):
        raise OSError("disk full")

    monkeypatch.setattr(weights.os, "replace", replace)


@pytest.mark.parametrize("broken", [break_writing, break_replacing])
def test_failed_save_leaves_the_existing_file(path, monkeypatch, broken):
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        broken(patched)
        with pytest.raises(OSError, match="disk full"):
            weights.save(path, SMALL, vector() + 1)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("broken", [break_writing, break_replacing])
def test_failed_save_leaves_no_file(tmp_path, monkeypatch, broken):
    with monkeypatch.context() as patched:
        broken(patched)
        with pytest.raises(OSError, match="disk full"):
            weights.save(tmp_path / "some.npz", SMALL, vector())
    assert list(tmp_path.iterdir()) == []


def test_provenance_that_is_not_json_leaves_the_existing_file(path):
    before = path.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        weights.save(path, SMALL, vector(), {"loss": object()})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_save_replaces_an_existing_file(path):
    weights.save(path, SMALL, vector() + 1)
    np.testing.assert_array_equal(weights.load(path).vector, vector() + 1)
    assert list(path.parent.iterdir()) == [path]
