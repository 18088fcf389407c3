"""XLA's programs, kept between starts."""

import os
import subprocess
import sys
import time

import pytest

from training.common import compilation_cache


@pytest.mark.parametrize(
    "cache, given, wanted",
    [
        ("here", None, "--tf_xla_persistent_cache_directory={}/here"),
        ("a/b", "--x=1", "--x=1 --tf_xla_persistent_cache_directory={}/a/b"),
        ("", "--x=1", "--x=1"),
        (
            "here",
            "--tf_xla_persistent_cache_directory=there",
            "--tf_xla_persistent_cache_directory=there",
        ),
    ],
)
def test_enabling_names_the_folder(tmp_path, monkeypatch, cache, given, wanted):
    folder = cache and str(tmp_path / cache)
    monkeypatch.setenv("HRNN_OPT_CACHE", folder)
    # Set in any case, so that it is restored afterwards.
    monkeypatch.setenv("TF_XLA_FLAGS", given or "")
    if given is None:
        monkeypatch.delenv("TF_XLA_FLAGS")
    for _ in range(2):
        compilation_cache.enable()
        assert os.environ["TF_XLA_FLAGS"] == wanted.format(tmp_path)
    assert (tmp_path / "here").exists() == (given is None)


@pytest.mark.slow
def test_imports_change_no_environment_and_compute_nothing(tmp_path):
    """Otherwise a program could not enable the cache, or would for others."""
    # Not in a fork of a process that has imported TensorFlow already.
    done = subprocess.run(
        [sys.executable, "-m", "tests.import_cases", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == "\n"
    # The check itself detects programs that are kept.
    assert len(list(tmp_path.glob("*/xla_compile_cache__*"))) > 5


def test_what_is_unused_is_forgotten(tmp_path):
    now, old = time.time(), time.time() - compilation_cache.UNUSED - 60
    files = {
        "xla_compile_cache__1__2__XLA_CPU_JIT.pb": (old, old),
        "xla_compile_cache__3__4__XLA_CPU_JIT.pb": (now, old),
        "xla_compile_cache__5__6__XLA_CPU_JIT.pb": (old, now),
        "thesis.pb": (old, old),
    }
    for name, times in files.items():
        (tmp_path / name).write_bytes(b"1")
        os.utime(tmp_path / name, times)  # Times of reading and writing.
    compilation_cache.forget_unused(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {name for name in files if max(files[name]) == now} | {
        "thesis.pb"
    }
