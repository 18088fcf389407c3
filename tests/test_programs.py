"""The command lines, as a user runs them."""

import csv
import json
import math
import os
import struct
import subprocess
import sys

import pytest

from tests.programs import QUICK, ROOT, refused, succeeded


def benchmark(suite, *flags, **environment):
    """The output of a suite, and the figures on its last line."""
    printed = succeeded("training.benchmark", suite, *flags, **environment)
    return printed, json.loads(printed.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.required
def test_quickstart_prints_a_table_and_writes_plot_and_csv(tmp_path):
    """Runs in a new Python process, which nothing has prepared."""
    out = tmp_path / "new" / "folder"
    done = subprocess.run(
        [sys.executable, "-m", "training.quickstart", f"--out={out}",
         "--epochs=8"],
        capture_output=True, text=True, timeout=600, cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k not in QUICK},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {
        line.split("  ")[0]: line.split()
        for line in done.stdout.splitlines()
        if line.startswith(("HierarchicalRNN  ", "Adam 2e-3", "RMSProp 1e-2"))
    }
    assert len(rows) == 3
    for row in rows.values():
        loss, accuracy, _, steps, _ = row[-5:]
        assert float(loss) < 1 and float(accuracy) > 80
        assert int(steps) == 8 * 22
    assert (out / "quickstart.png").read_bytes().startswith(b"\x89PNG")
    with (out / "quickstart.csv").open() as file:
        losses = list(csv.DictReader(file))
    assert len(losses) == 3 * 3 * 8 * 22
    # Every optimizer starts from the same weights and batches.
    first = {r["seed"]: set() for r in losses}
    for r in losses:
        if r["step"] == "1":
            first[r["seed"]].add(f"{float(r['loss']):.4g}")
    assert [len(values) for values in first.values()] == [1, 1, 1]


def test_quickstart_names_what_is_wrong(tmp_path):
    assert "--out" in refused("training.quickstart")
    said = refused("training.quickstart", f"--out={tmp_path}", "--batch=2000")
    assert "Received: 2000" in said


@pytest.mark.slow
@pytest.mark.required
def test_update_benchmark_prints_json_on_the_last_line():
    printed, result = benchmark("update", "--params=10000", "--seconds=0.1")
    assert result["params"] == 10_000
    assert result["slot_bytes_per_param"] == 80
    for key in ("ns_per_param", "adam_ns_per_param", "ratio", "compile_s"):
        assert result[key] > 0
    assert "peak_extra_mb" in result
    assert "3.1.1" in printed


@pytest.mark.slow
@pytest.mark.skipif(os.cpu_count() < 2, reason="needs two cores")
def test_cores_benchmark_compares_one_core_with_all():
    printed, result = benchmark("cores", "--seconds=0.1", "--only=small")
    assert result["cores"] >= 2
    for who in ("hierarchicalrnn", "adam"):
        assert result[f"speedup_a_small_model_{who}"] > 0
    assert "one core and on" in printed and "one tensor" not in printed
    said = refused("training.benchmark", "cores", "--only=nothing")
    assert "--only=nothing" in said
    said = refused("training.benchmark", "cores", "--threads=1")
    assert "at least two cores. Received: 1" in said


@pytest.mark.slow
@pytest.mark.required
def test_problems_benchmark_prints_json_on_the_last_line():
    printed, result = benchmark(
        "problems", "--instances=4", "--seconds=0.1", "--only=matrix_product"
    )
    assert result["instances"] == 4
    assert list(result["families"]) == ["matrix_product"]
    assert list(result["rows"]) == ["matrix_product_log1p"]
    for speed in (result["families"] | result["rows"]).values():
        assert speed["dimension"] == 75 and speed["tensors"] == 3
        for key in ("draw_ms", "us_per_instance", "ns_per_param"):
            assert speed[key] > 0
    assert result["slowest_draw_dim_100"] == "matrix_product at 108"
    assert result["draw_ms_max_dim_100"] > 0
    assert "Target" in printed


@pytest.mark.slow
@pytest.mark.required
def test_estimate_benchmark_compares_forecasts_with_measurements():
    # Compiled as for users, for whom the forecast is.
    printed, result = benchmark(
        "estimate", "--model=MobileNet", "--seconds=0.4", XLA_FLAGS=""
    )
    for label in ("small MLP", "MobileNet"):
        assert result[f"{label} slot_bytes"]["ratio"] == 1
        assert 0.3 < result[f"{label} peak_bytes"]["ratio"] < 3
        assert result[f"{label} update_seconds"]["ratio"] > 0
    assert "Assumed:" in printed


@pytest.mark.slow
@pytest.mark.required
def test_telemetry_benchmark_tells_its_share():
    printed, result = benchmark("telemetry", "--seconds=1", "--only=small_mlp")
    assert result["every"] == 100
    assert math.isfinite(result["small_mlp"]["share"])
    assert "small_mlp" in printed and "holds" in printed


@pytest.mark.slow
@pytest.mark.required
def test_embeddings_benchmark_compares_with_adam():
    printed, result = benchmark("embeddings", "--seconds=0.1")
    assert result["hrnn"] > 0 and result["adam"] > 0
    assert "ratio" in printed


@pytest.mark.slow
@pytest.mark.required
def test_eigenbases_benchmark_compares_with_none():
    printed, result = benchmark(
        "eigenbases", "--seconds=0.1", "--only=512 x 128"
    )
    assert list(result) == ["512 x 128"]
    assert result["512 x 128"]["ratio"] > 0
    # Two matrices of 128 x 128 in float32.
    assert result["512 x 128"]["bytes"] == 2 * 128**2 * 4 / (512 * 128)
    assert "ratio of pairs" in printed


@pytest.mark.slow
@pytest.mark.required
def test_trials_benchmark_tells_what_is_left_behind():
    printed, result = benchmark("trials", "--trials=5", "--only=MLP")
    for name in ("hrnn", "adam"):
        assert result[f"MLP {name} first_step_s"] > 0
        assert result[f"MLP {name} further_first_step_s"] > 0
        assert math.isfinite(result[f"MLP {name} mb_a_trial"])
    assert "MB a trial" in printed


@pytest.mark.slow
@pytest.mark.required
def test_compiling_benchmark_starts_twice():
    _, result = benchmark("compiling", "--only=log_sum_exp")
    assert result["rows"] == 1
    assert result["first_start_s"] > 0 and result["second_start_s"] > 0


def test_benchmark_names_its_suites():
    said = refused("training.benchmark", "upd")
    for suite in (
        "update", "problems", "meta", "compiling", "asynchronous", "estimate",
        "telemetry", "eigenbases",
    ):  # fmt: skip
        assert suite in said
    assert "Received: ['upd']" in said


@pytest.mark.slow
@pytest.mark.required
def test_gallery_draws_all_families_and_rows(tmp_path):
    out = tmp_path / "new" / "folder"
    succeeded("problems.gallery", f"--out={out}")
    for name in ("gallery.png", "sets.png"):
        picture = (out / name).read_bytes()
        assert picture.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", picture[16:24])
        assert 1000 < width < 3000 and 1000 < height < 3000
        # An empty page compresses to far less.
        assert len(picture) > 100_000


def test_gallery_names_the_flag_that_is_missing():
    assert "--out" in refused("problems.gallery")
