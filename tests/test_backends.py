"""JAX and PyTorch compared with TensorFlow and the reference.

Each backend runs once in its own process, by `tests/backend_models.py`; the
results are compared here. The processes of JAX and PyTorch cannot import
TensorFlow.
"""

import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests import backend_cases
from tests.backend_cases import BAD, FEATURES, LARGE, SEED, SHAPES, TRACED
from tests.programs import QUICK
from tests.reference import ReferenceOptimizer
from tests.reference_pair import NUMBERS, weights_file

OTHERS = ("jax", "torch")
ROOT = pathlib.Path(__file__).parent.parent
WAYS = [("tensorflow", "eager"), ("jax", "eager"), ("jax", "jit"),
        ("torch", "eager")]  # fmt: skip
# Relative to the movement. Keras's averages, clips and casts round to float32.
TOLERANCE = {"float32": 1e-4, "float64": 1e-9, "keras": 1e-6}


def python(backend, *arguments):
    """Runs Python with a backend; skips if that is not installed."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: pip install .[backends]")
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        # Each operation that JAX makes eagerly is a program to compile.
        env=os.environ
        | QUICK
        | {"KERAS_BACKEND": backend, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


class Results:
    """{case: {name: array}} of each backend, computed on the first request."""

    def __init__(self, folder):
        self.folder = folder
        self.weights = weights_file(
            folder, SEED, negligible=0.01, length_unit=0.5, **NUMBERS
        )
        self.bases = weights_file(
            folder,
            backend_cases.BASES_SEED,
            negligible=0.01,
            attention=False,
            eigenbasis=50.0,
            basis_length=1.0,
            **NUMBERS,
        )
        self.get = functools.cache(self._get)

    def _get(self, backend, *flags):
        if flags:
            self.get(backend)
        python(backend, "-m", "tests.backend_models", str(self.folder), *flags)
        suffix = "_loads" if flags else ""
        cases = {}
        with np.load(self.folder / f"{backend}{suffix}.npz") as arrays:
            for key, array in arrays.items():
                case, name = key.split("/")
                cases.setdefault(case, {})[name] = array
        return cases

    def reference(self, weights=None, shapes=SHAPES, **carried):
        """The reference with the same start."""
        weights = weights or self.weights
        with np.load(weights) as file:
            arrays = {k: v.astype(float) for k, v in file.items()
                      if k != "metadata"}  # fmt: skip
        reference = ReferenceOptimizer(
            backend_cases.HierarchicalRNN(weights=weights).config,
            arrays,
            backend_cases.RATE,
            **carried,
        )
        reference.build(backend_cases.start(shapes))
        return reference


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results(tmp_path_factory.mktemp("backends"))


def assert_moved_alike(got, wanted, shapes, tolerance):
    """Compares each tensor's theta, relative to the distance from its start."""
    starts = zip(shapes, backend_cases.start(shapes), strict=True)
    for name, start in starts:
        steps = np.reshape(wanted[name], (-1, *start.shape))
        ours = np.reshape(got[name], (-1, *start.shape))
        assert len(steps) == len(ours)
        for one, other in zip(ours, steps, strict=True):
            moved = np.linalg.norm(other - start)
            assert moved > 1e-2
            assert np.linalg.norm(one - other) <= tolerance * moved, name


def test_moved_alike_sees_a_difference():
    start = dict(zip(SHAPES, backend_cases.start(SHAPES), strict=True))
    wanted = {name: value + 1 for name, value in start.items()}
    other = {name: value + 1 + 2e-4 for name, value in start.items()}
    assert_moved_alike(wanted, wanted, SHAPES, 1e-4)
    with pytest.raises(AssertionError):
        assert_moved_alike(other, wanted, SHAPES, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backend, mode", WAYS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_trajectory_is_the_references(results, backend, mode, dtype):
    reference, thetas = results.reference(weight_decay=0.5), []
    steps = backend_cases.gradients(SHAPES)
    for k, grads in enumerate(backend_cases.with_a_bad_step(steps)):
        reference.apply(grads)
        thetas.append([theta.copy() for theta in reference.theta])
        if k == BAD:
            for before, after in zip(*thetas[-2:], strict=True):
                np.testing.assert_array_equal(before, after)
    wanted = backend_cases.by_tensor(thetas)
    got = results.get(backend)[f"{dtype} {mode}"]
    assert got["skipped"] == reference.skipped == 1
    assert_moved_alike(got, wanted, SHAPES, TOLERANCE[dtype])
    # Rows that never saw a gradient decay, but do not change otherwise.
    decay = (1 - 0.5 * backend_cases.RATE) ** (len(thetas) - 1)
    start = backend_cases.start(SHAPES)[-1][[2, 5]]
    np.testing.assert_allclose(got["table"][-1][[2, 5]], decay * start, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backend, mode", WAYS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_in_eigenbases_are_the_references(results, backend, mode, dtype):
    reference = results.reference(results.bases, weight_decay=0.5)
    steps, thetas = backend_cases.gradients(SHAPES), []
    for grads in backend_cases.with_a_bad_step(steps):
        reference.apply(grads)
        thetas.append([theta.copy() for theta in reference.theta])
    wanted = backend_cases.by_tensor(thetas)
    got = results.get(backend)[f"bases {dtype} {mode}"]
    assert got["skipped"] == 1
    assert_moved_alike(got, wanted, SHAPES, TOLERANCE[dtype])


@pytest.mark.slow
@pytest.mark.parametrize("backend, mode", WAYS[1:])
def test_two_pieces_in_an_eigenbasis_move_alike(results, backend, mode):
    wanted = results.get("tensorflow")["large bases eager"]
    got = results.get(backend)[f"large bases {mode}"]
    assert_moved_alike(got, wanted, LARGE["float64"], TOLERANCE["float64"])


@pytest.mark.slow
@pytest.mark.parametrize("backend, mode", WAYS[1:])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_trajectory_is_tensorflows(results, backend, mode, dtype):
    # The state of bfloat16 variables is float32.
    tolerance = TOLERANCE.get(dtype, 1e-4)
    wanted = results.get("tensorflow")[f"{dtype} eager"]
    got = results.get(backend)[f"{dtype} {mode}"]
    assert got["skipped"] == wanted["skipped"] == 1
    assert_moved_alike(got, wanted, SHAPES, tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("backend, mode", WAYS)
def test_state_in_bfloat16_moves_alike(results, backend, mode):
    """All round the same numbers up, except a few that differ by 1e-7."""
    every = results.get("tensorflow")
    got = results.get(backend)[f"state in bfloat16 {mode}"]
    wanted = every["state in bfloat16 eager"]
    assert got["skipped"] == 1
    assert_moved_alike(got, wanted, SHAPES, 1e-3)
    # Single numbers pass close to their start, so only larger tensors count.
    starts = dict(zip(SHAPES, backend_cases.start(SHAPES), strict=True))
    for name in ("kernel", "filters", "table"):
        start, float32 = starts[name], every["float32 eager"][name]
        for one, other in zip(got[name], float32, strict=True):
            distance = np.linalg.norm(one - other)
            assert distance < 0.05 * np.linalg.norm(other - start)
        assert distance > 1e-3 * np.linalg.norm(other - start)


@pytest.mark.slow
@pytest.mark.parametrize("backend, mode", WAYS[1:])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tensor_of_two_pieces_moves_alike(results, backend, mode, dtype):
    wanted = results.get("tensorflow")[f"large {dtype} eager"]
    got = results.get(backend)[f"large {dtype} {mode}"]
    assert got["skipped"] == 1
    assert_moved_alike(got, wanted, LARGE[dtype], TOLERANCE[dtype])


def features():
    for backend, mode in WAYS:
        for name in FEATURES if mode == "eager" else TRACED:
            yield backend, mode, name


@pytest.mark.slow
@pytest.mark.parametrize("backend, mode, name", list(features()))
def test_feature(results, backend, mode, name):
    carried = dict(FEATURES[name])
    for argument in ("use_ema", "loss_scale_factor"):
        carried.pop(argument, None)
    if "gradient_accumulation_steps" in carried:
        every = carried.pop("gradient_accumulation_steps")
        carried["accumulation_steps"] = every
    if name == "constraints":
        carried["constraints"] = {
            t: lambda w: np.maximum(w, 0) for t in range(len(SHAPES))
        }
    reference = results.reference(**carried)
    for grads in backend_cases.gradients(SHAPES, 8):
        reference.apply(grads)
    got = results.get(backend)[f"{name} {mode}"]
    wanted = dict(zip(SHAPES, reference.theta, strict=True))
    assert_moved_alike(got, wanted, SHAPES, TOLERANCE["keras"])
    final = wanted
    if reference.averages is not None:
        final = dict(zip(SHAPES, reference.averages, strict=True))
    for tensor, value in final.items():
        for kind in ("average", "final"):
            if f"{kind} {tensor}" in got:
                np.testing.assert_allclose(
                    got[f"{kind} {tensor}"], value, 1e-6, 1e-6
                )


@pytest.mark.slow
@pytest.mark.parametrize("backend, mode", WAYS)
def test_many_pieces(results, backend, mode):
    reference = results.reference()
    for grads in backend_cases.gradients(SHAPES, 8):
        reference.apply(grads)
    wanted = dict(zip(SHAPES, reference.theta, strict=True))
    got = results.get(backend)[f"many pieces {mode}"]
    assert_moved_alike(got, wanted, SHAPES, TOLERANCE["float64"])


def assert_close(got, wanted, tolerance):
    """Compares every array, to within a fraction of its largest element."""
    for name, value in wanted.items():
        size = tolerance * np.max(np.abs(value), initial=1e-6)
        np.testing.assert_allclose(got[name], value, 0, size, err_msg=name)


def assert_identical(got, wanted):
    for name, value in got.items():
        np.testing.assert_array_equal(value, wanted[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize(
    "case", ["fit", "on batch", "amid theta", "amid outputs", "bad batch"]
)
def test_models_train_alike(results, backend, case):
    got = results.get(backend)
    assert_close(got[case], results.get("tensorflow")[case], 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_fit_validates_saves_and_ends_at_theta(results, backend):
    got = results.get(backend)
    fit = got["fit"]
    assert fit["val_loss"][-1] == pytest.approx(float(fit["evaluated"]), 1e-6)
    assert fit["loss"][-1] < 0.5 * fit["loss"][0]
    assert_identical(got["again"], fit)
    assert got["types"]["rounded"]
    assert_identical(got["again in bfloat16"], got["fit in bfloat16"])
    assert_close(got["amid back"], got["amid phi"], 1e-6)
    assert not got["amid holds"]["theta"]
    for name, theta in got["amid theta"].items():
        assert np.max(np.abs(theta - got["amid phi"][name])) > 1e-4
    assert np.all(got["on batch"]["flags"]) and got["on batch"]["saved"]
    assert got["bad batch"]["skipped"] == got["bad batch"]["told"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_mixed_float16_learns_and_resumes(results, backend):
    got = results.get(backend)
    losses = got["mixed losses"]["losses"]
    assert np.isfinite(losses).all() and losses[-1] < 0.5 * losses[0]
    np.testing.assert_allclose(
        losses, results.get("tensorflow")["mixed losses"]["losses"], 1e-3
    )
    assert_identical(got["mixed again"], got["mixed"])


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["tensorflow", *OTHERS])
@pytest.mark.parametrize("writer", ["tensorflow", *OTHERS])
def test_saved_on_one_backend_continued_on_another(results, writer, reader):
    wanted = results.get(writer)
    for backend in OTHERS:
        results.get(backend)  # writes the files that `--load` reads
    got = results.get(reader, "--load")
    fit, rounded = got[f"from {writer}"], got[f"bfloat16 from {writer}"]
    if writer == reader:
        assert_identical(fit, wanted["fit"])
        assert_identical(rounded, wanted["fit in bfloat16"])
    else:
        assert_close(fit, {n: wanted["fit"][n] for n in fit}, 1e-4)
        # Only the model's variables: single state values may round differently.
        names = [name for name in rounded if name.startswith("v")]
        rounded_wanted = wanted["fit in bfloat16"]
        assert_close(rounded, {n: rounded_wanted[n] for n in names}, 1e-2)


@pytest.mark.slow
def test_stateless_loop_on_jax_is_fit(results):
    got = results.get("jax")
    loop = got["stateless loop"]
    assert loop["traces"] == 1
    # The step with NaN at the end changed only the count.
    assert loop["skipped"] == 1
    variables = [name for name in loop if name.startswith("v")]
    assert len(variables) == 5
    assert_close(loop, {name: got["fit"][name] for name in variables}, 1e-4)
    epochs = np.mean(np.reshape(loop["losses"], (-1, 4)), axis=1)
    np.testing.assert_allclose(epochs, got["fit"]["loss"], 1e-4)


@pytest.mark.parametrize("backend", OTHERS)
def test_package_does_not_need_tensorflow(backend):
    python(
        backend,
        "-c",
        "import sys; sys.modules['tensorflow'] = None\n"
        "import keras, hrnn_opt\n"
        "variables = [keras.Variable([1.0, 2.0])]\n"
        "optimizer = hrnn_opt.HierarchicalRNN()\n"
        "optimizer.swapped_by_callback = True\n"
        "optimizer.apply([keras.ops.ones(2)], variables)\n"
        "assert optimizer.skipped_steps == 0\n"
        "assert float(variables[0][0]) < 1",
    )


@pytest.mark.slow
def test_a_whole_update_is_lowered_for_cuda():
    done = python("jax", "-m", "tests.jax_lowering")
    assert done.stdout.splitlines() == ["cuda cpu"] * 3


def test_float64_needs_jax_to_have_it():
    done = python(
        "jax",
        "-W",
        "ignore",
        "-c",
        "import keras, hrnn_opt\n"
        "variables = [keras.Variable([1.0], dtype='float64')]\n"
        "try: hrnn_opt.HierarchicalRNN().build(variables)\n"
        "except ValueError as error: print(error)",
    )
    assert "jax_enable_x64" in done.stdout and "Received" in done.stdout


def test_error_in_fit_on_jax_is_not_hidden():
    # Keras moves the values out of the variables while it trains.
    done = python(
        "jax",
        "-c",
        "import keras, hrnn_opt, numpy as np\n"
        "model = keras.Sequential([keras.layers.Dense(1)])\n"
        "def loss(y, output): raise ZeroDivisionError('mine')\n"
        "model.compile(hrnn_opt.HierarchicalRNN(), loss)\n"
        "x = np.ones((4, 2))\n"
        "model.build((None, 2))\n"
        "model.optimizer.build(model.trainable_variables)\n"
        "try: model.fit(x, x, verbose=0)\n"
        "except ZeroDivisionError as error: print(error)",
    )
    assert "mine" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_update_benchmark(backend):
    done = python(
        backend,
        "-c",
        "import sys; sys.modules['tensorflow'] = None\n"
        "sys.argv[1:] = ['update', '--params=10000', '--seconds=0.1']\n"
        "import runpy; runpy.run_module('training.benchmark', "
        "run_name='__main__', alter_sys=True)",
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["backend"] == backend and result["device"]
    assert result["params"] == 10_000
    assert result["slot_bytes_per_param"] == 80
    for key in ("ns_per_param", "adam_ns_per_param", "ratio"):
        assert result[key] > 0
    assert result["instructions"]
    parts = result["parts_ns_per_param"]
    assert len(parts) == 8 and min(parts.values()) > 0
    assert "3.1.1" in done.stdout
