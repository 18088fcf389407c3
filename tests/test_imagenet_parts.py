"""Models, optimizers, loss, settings, files and the figure."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest

from hrnn_opt import HierarchicalRNN
from hrnn_opt.model import bases
from training.imagenet import (
    figure_8b,
    files,
    forecast,
    models,
    objective,
    optimizers,
)
from training.imagenet.settings import Settings

SETTINGS = Settings(
    model="resnet50v2", optimizer="adam", learning_rate=None, image_size=96,
    batch_size=8, precision="float32", seed=0, shuffle_buffer=10,
    train_split="train", examples=80,
)  # fmt: skip


def test_unknown_names_list_what_there_is():
    for make, name, known in (
        (lambda n: models.make(n, 96), "vgg", "inception_v3, resnet50v2"),
        (lambda n: optimizers.make(n, 1), "adagrad", "hrnn, adam, rmsprop_"),
        (lambda n: models.make("resnet50v2", 96, n), "int8", "float32, mixed_"),
    ):
        with pytest.raises(ValueError, match=f"{known}.*{name}"):
            make(name)


def test_pictures_may_be_too_small():
    with pytest.raises(ValueError, match="at least 75 .*image_size=74"):
        models.make("inception_v3", 74)


def test_a_model_gives_logits_in_its_precision():
    model = models.make("mobilenet_quarter", 32, "mixed_bfloat16", 10)
    assert keras.config.dtype_policy().name == "float32"
    outputs = model(np.zeros((2, 32, 32, 3), "float32"))
    assert outputs.shape == (2, 10) and outputs.dtype == "bfloat16"
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert model.layers[-1].get_config().get("activation") != "softmax"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, parameters",
    [  # From the table in the documentation of keras.applications.
        ("inception_v3", 23.9),
        ("resnet50v2", 25.6),
        ("resnet101v2", 44.7),
        ("resnet152v2", 60.4),
    ],
)
def test_the_architectures_are_the_known_ones(name, parameters):
    model = models.make(name, 96)
    assert round(model.count_params() / 1e6, 1) == parameters
    assert model.output_shape == (None, 1000)


def test_rmsprop_is_that_of_inception():
    """Clips the global norm; epsilon in the root; a rate for two epochs."""
    steps_per_epoch = 2
    optimizer = optimizers.make("rmsprop_inception", steps_per_epoch)
    a, b = keras.Variable(np.ones(2)), keras.Variable(np.ones(1))
    optimizer.build([a, b])
    theta, square = np.ones(3), np.zeros(3)
    for step in range(9):
        gradient = np.array([0.1, -3.0, 4.0]) * (1 if step % 2 else 0.3)
        optimizer.apply([gradient[:2], gradient[2:]])
        norm = np.linalg.norm(gradient)
        clipped = gradient * min(1, 2 / norm)
        square = 0.9 * square + 0.1 * clipped**2
        rate = 0.045 * 0.94 ** (step // 4)
        theta = theta - rate * clipped / np.sqrt(square + 1.0)
        np.testing.assert_allclose([*a.numpy(), *b.numpy()], theta, 1e-5)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_descends(name):
    optimizer = optimizers.make(name, 10, scale_loss=name == "adam")
    x = keras.Variable([1.0, 2.0])
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    optimizer.build([x])
    rate = float(inner.learning_rate)
    assert rate == pytest.approx(optimizers.OPTIMIZERS[name].learning_rate)
    scale = float(optimizer.scale_loss(1.0))
    assert scale == (1.0 if inner is optimizer else 2.0**15)
    for _ in range(3):
        optimizer.apply([scale * x.numpy()])
    assert (x.numpy() < [1.0, 2.0]).all()
    assert isinstance(inner, HierarchicalRNN) == (name == "hrnn")
    given = optimizers.make(name, 10, 0.25)
    assert float(given.learning_rate) == 0.25


def test_labels_are_smoothed():
    logits = np.random.default_rng(0).normal(size=(3, 10)).astype("float32")
    labels = np.array([0, 3, 9])
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = -(0.9 * log_p[range(3), labels] + 0.1 * log_p.mean(-1))
    np.testing.assert_allclose(objective.loss(labels, logits), wanted, 1e-5)
    uniform = objective.loss(labels, np.zeros((3, 1000), "float32"))
    np.testing.assert_allclose(uniform, np.log(1000), 1e-5)
    # The minimum at 1,000 classes, as the docstring says.
    true = np.full(1000, 1e-4)
    true[0] += 0.9
    best = objective.loss(labels[:1], np.log(true)[None].astype("float32"))
    np.testing.assert_allclose(best, 1.01, atol=0.01)


def test_settings_come_back_and_may_not_change(tmp_path):
    path = tmp_path / "settings.json"
    SETTINGS.check(path)  # No settings are stored yet.
    SETTINGS.write(path)
    assert Settings.read(path) == SETTINGS
    SETTINGS.check(path)
    assert SETTINGS.steps_per_epoch == 10
    other = dataclasses.replace(SETTINGS, image_size=64)
    with pytest.raises(ValueError, match="`image_size` must be 96.*=64"):
        other.check(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="must hold the settings"):
        SETTINGS.check(path)


def test_a_curve_goes_on_after_an_interruption(tmp_path):
    path = tmp_path / "train.csv"
    assert files.read_curve(path) == []
    curve = files.Curve(path, ["step", "loss"], 0)
    assert curve.last is None
    for step in (1, 2, 3, 4):
        curve.add(step=step, loss=step / 3)
        # It is on the disk at once.
        assert files.read_curve(path)[-1]["step"] == str(step)
    # The machine stops while a line is written.
    with path.open("a") as file:
        file.write("5")
    assert [r["step"] for r in files.read_curve(path)] == ["1", "2", "3", "4"]
    curve = files.Curve(path, ["step", "loss"], 2)
    assert curve.last == {"step": "2", "loss": "0.6666667"}
    curve.add(step=3, loss=float("nan"))
    curve.close()
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["step", "loss"], ["1", "0.3333333"], ["2", "0.6666667"],
            ["3", "nan"],
        ]  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(optimizers.OPTIMIZERS) - {"hrnn"}))
def test_state_of_rivals_is_forecast(name):
    optimizer = optimizers.make(name, 10)
    optimizer.build([keras.Variable(np.zeros((30, 50), "float32"))])
    size = sum(v.numpy().nbytes for v in optimizer.variables)
    told = forecast.state_bytes(optimizers.make(name, 10), 1500)
    assert abs(told - size) <= 16  # Besides, iterations and learning rate.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hrnn", "rmsprop_inception"])
def test_the_forecast_names_what_counts(name):
    settings = dataclasses.replace(
        SETTINGS, model="mobilenet_quarter", optimizer=name, image_size=32
    )
    model = models.make("mobilenet_quarter", 32)
    optimizer = optimizers.make(name, 10)
    told = forecast.report(settings, model, optimizer, 500, 2)
    assert f"{model.count_params():,} parameters" in told
    assert "500 steps" in told and "epoch of 10 steps" in told
    assert "on 2 replica(s)" in told
    trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    size = (80 if name == "hrnn" else 4) * trained
    if name == "hrnn":
        size += 8 * sum(
            sides.left * sides.rows**2 + sides.right * sides.columns**2
            for sides in bases.sides_of(
                optimizer.config, model.trainable_variables
            ).values()
        )
    state = float(told.split(": state ")[1].split(" MB")[0].replace(",", ""))
    assert state == pytest.approx(size / 1e6, rel=0.02)
    assert ("temporaries" in told) == (name == "hrnn")


def write_run(folder, settings, losses):
    folder.mkdir()
    settings.write(folder / "settings.json")
    curve = files.Curve(folder / "train.csv", ["step", "seconds", "loss"], 0)
    for step, loss in enumerate(losses, 1):
        curve.add(step=step, seconds=0.5 * step, loss=float(loss))
    curve.close()


def test_figure_8b_shows_every_run(tmp_path):
    with pytest.raises(ValueError, match="must have runs"):
        figure_8b.find(tmp_path)
    write_run(tmp_path / "one", SETTINGS, [6.0, 5.0, 4.0])
    own = dataclasses.replace(SETTINGS, optimizer="hrnn", learning_rate=1e-4)
    write_run(tmp_path / "two", own, [7.0, np.nan])
    other = dataclasses.replace(own, model="inception_v3")
    write_run(tmp_path / "three", other, [3.0])
    write_run(tmp_path / "begun", SETTINGS, [])
    runs = figure_8b.find(tmp_path)
    assert list(runs) == ["inception_v3", "resnet50v2"]
    assert [r.label for r in runs["resnet50v2"]] == ["hrnn 0.0001", "adam"]
    told = figure_8b.figures(runs)
    assert [row["finite"] for row in told] == [True, False, True]
    assert told[2]["last_loss"] == 5.0 and told[2]["largest_loss"] == 6.0
    json.dumps(told)
    figure_8b.plot(runs, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    figure_8b.write_csv(runs, tmp_path / "figure.csv")
    lines = (tmp_path / "figure.csv").read_text().splitlines()
    assert lines[1] == "inception_v3,hrnn 0.0001,1,0.5,3"
    assert len(lines) == 1 + 6
