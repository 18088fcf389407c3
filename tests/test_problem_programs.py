"""What is compiled and what is imported, in a separate process."""

import os
import subprocess
import sys

import pytest

from tests.programs import QUICK

SCRIPT = """
import glob, sys
import tensorflow as tf
import problems
from problems import draws
from problems.convex import Norm
from problems.slow import MinMax

print("modules", *sys.modules)

family = problems.Scaled(problems.Reparametrized(problems.Power(
    problems.SparseGradient(problems.GradientNoise(problems.Sum((
        problems.get("logistic_regression"),
        problems.get("minibatch_quadratic"),
        problems.Choice((Norm(3), MinMax(3)), "both"),
    ))))
)))
traces = []

@tf.function(jit_compile=True)
def step(data, params, seed):
    traces.append(seed)
    batch = family.batch(data, seed)
    with tf.GradientTape() as tape:
        tape.watch(params)
        loss, gradients = family.loss_and_gradient(data, params, batch)
        square = sum(tf.reduce_sum(g**2) for g in gradients)
    second = tape.gradient(square, params)
    return loss, gradients, second, family.full_loss(data, params)

draw = problems.drawer(family, 3)
for seed in range(6):
    data = draw(seed)
    for number in range(2):
        step(data, family.start(data), draws.fold(seed, number))
    modules = glob.glob(sys.argv[1] + "/*before_optimizations.txt")
    own = [name for name in modules if "inference_step" in name]
    print("compiled", len(traces), len(own))
"""


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    # XLA writes a file for every module that it compiles.
    folder = tmp_path_factory.mktemp("xla")
    dump = f"--xla_dump_to={folder} --xla_dump_hlo_as_text"
    flags = f"{QUICK['XLA_FLAGS']} {dump}"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        # It would not write one for a program kept by an earlier run.
        env=os.environ
        | {"XLA_FLAGS": flags, "TF_XLA_FLAGS": "", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_problems_need_nothing_else_of_this_repository(lines):
    ((_, *modules),) = [line for line in lines if line[0] == "modules"]
    assert "problems.neural.mlp" in modules
    packages = {module.partition(".")[0] for module in modules}
    assert not packages & {"hrnn_opt", "training", "tests"}


def test_a_new_seed_is_never_a_new_program(lines):
    # One trace and one compiled module, for any number of draws and steps.
    counts = [line[1:] for line in lines if line[0] == "compiled"]
    assert counts == [["1", "1"]] * 6
