"""The command lines, as a user runs them."""

import csv
import json
import os
import subprocess
import sys

import pytest


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=600,
    )


@pytest.mark.slow
@pytest.mark.required
def test_quickstart_prints_a_table_and_writes_plot_and_csv(tmp_path):
    out = tmp_path / "new" / "folder"
    done = run("training.quickstart", f"--out={out}", "--epochs=8")
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
    done = run("training.quickstart")
    assert done.returncode and "--out" in done.stderr
    done = run("training.quickstart", f"--out={tmp_path}", "--batch=2000")
    assert done.returncode and "Received: 2000" in done.stderr + done.stdout


@pytest.mark.slow
@pytest.mark.required
def test_update_benchmark_prints_json_on_the_last_line():
    done = run(
        "training.benchmark", "update", "--params=10000", "--seconds=0.1"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["params"] == 10_000
    assert result["slot_bytes_per_param"] == 80
    for key in ("ns_per_param", "adam_ns_per_param", "ratio", "compile_s"):
        assert result[key] > 0
    assert "peak_extra_mb" in result
    assert "3.1.1" in done.stdout


def test_benchmark_names_its_suites():
    done = run("training.benchmark", "upd")
    assert done.returncode and "update" in done.stdout + done.stderr
