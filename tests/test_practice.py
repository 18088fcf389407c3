"""The practice suite: its tasks, its runs, and its scores."""

import dataclasses
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import problems
from tests import tiny_pictures
from training.evaluation import practice
from training.evaluation.practice import (
    contenders,
    convex,
    registry,
    runs,
    score,
    sources,
    step_lengths,
    task,
    text,
)
from training.evaluation.practice.pictures import _split
from training.evaluation.practice.runs import Run

STEPS = 100


@pytest.fixture(scope="module")
def pictures_folder(tmp_path_factory):
    return tiny_pictures.prepare(tmp_path_factory.mktemp("tfds"))


@pytest.fixture
def prepared(pictures_folder, monkeypatch):
    """Small data sets under the names of the real ones."""
    import tensorflow_datasets

    constants = tensorflow_datasets.core.constants
    monkeypatch.setattr(constants, "DATA_DIR", str(pictures_folder))
    _split.cache_clear()
    yield
    _split.cache_clear()


def constants(values):
    return tf.nest.map_structure(tf.constant, values)


# Tasks.


@pytest.mark.parametrize("name", registry.TASKS)
def test_a_task_is_trained_by_adam(name, request):
    one = registry.TASKS[name]
    if one.pictures:
        request.getfixturevalue("prepared")
    trainer = runs.Trainer(one, one.source(), contenders.adam(), STEPS)
    before = [np.array(v) for v in trainer.model.trainable_variables]
    x, y = sources.minibatches(trainer.source, 0, 0, 2)
    for n in range(2):
        batch = tf.nest.map_structure(lambda part, n=n: part[n], (x, y))
        assert np.isfinite(float(trainer.step(*constants(batch))))
    for old, v in zip(before, trainer.model.trainable_variables, strict=True):
        new = np.array(v)
        assert np.all(np.isfinite(new)), v.path
        assert np.any(new != old), f"{v.path} gets no gradient."
    x, y = trainer.source.held_out()
    part = tf.nest.map_structure(lambda a: a[:8], (x, y))
    loss, accuracy = trainer.examine(*constants(part))
    assert np.isfinite(loss)
    assert np.isfinite(accuracy) == one.classifies


def test_the_halves_are_alike():
    halves = [t.half for t in registry.TASKS.values()]
    assert len(halves) >= 18
    assert halves.count(task.DECISION) == halves.count(task.FINAL)
    quick = [registry.TASKS[name] for name in registry.QUICK]
    assert len(quick) == 8 and {t.half for t in quick} == {task.DECISION}


def test_rows_are_too_many_to_be_learned_by_heart(tmp_path):
    checked = 0
    for one in registry.TASKS.values():
        if not one.pictures:
            source = one.source()
            if isinstance(source, sources.Rows):
                assert len(source.y) >= sources.FEWEST_ROWS, one.name
                checked += 1
    assert checked
    from training.evaluation.practice import pictures

    assert pictures.COUNT >= sources.FEWEST_ROWS


def held_arrays(value):
    """NumPy arrays in a record, and in the records inside it."""
    if isinstance(value, np.ndarray):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from held_arrays(getattr(value, field.name))
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from held_arrays(part)


@pytest.mark.parametrize("name", problems.set_names())
def test_meta_training_has_no_data_of_ours(name):
    # All problems of a set are drawn at random: none contains data.
    for row in problems.meta_training_set(name):
        assert not list(held_arrays(row)), row.name


def test_unknown_tasks_are_refused_by_name():
    with pytest.raises(ValueError, match="names.*tanh_mlp.*Received: nothing"):
        practice.Settings(tasks=("nothing", "vit"))
    with pytest.raises(ValueError, match="No task is left.*vit"):
        practice.Settings(tasks=("vit",), half=task.DECISION)
    with pytest.raises(ValueError, match="multiple of 50.*steps=120"):
        practice.Settings(steps=120)


def test_missing_data_are_reported_before_any_run(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    file = tmp_path / "rivals.csv"
    settings = practice.Settings(tasks=("logistic", "vit"), rivals=str(file))
    with pytest.raises(FileNotFoundError, match="tfds build cifar10"):
        practice.Suite(settings).run()
    assert not file.exists()


# Data.


def test_a_minibatch_is_a_function_of_seed_and_step():
    source = registry.TASKS["tabular"].source()
    (a, b), y = sources.minibatches(source, 3, 10, 5)
    (a_, b_), y_ = sources.minibatches(source, 3, 12, 2)
    for whole, part in ((a, a_), (b, b_), (y, y_)):
        np.testing.assert_array_equal(whole[2:4], part)
    _, other = sources.minibatches(source, 4, 12, 2)
    assert np.all(other != y_)
    assert len(np.unique(y)) == y.size  # Steps also differ from each other.


def test_rows_are_drawn_with_replacement():
    x = np.arange(8)
    source = sources.Rows(x, 10 * x, x[:2], x[:2], batch=50)
    drawn, y = source.at(0, 0)
    assert set(drawn) == set(x)
    np.testing.assert_array_equal(y, 10 * drawn)


def test_passes_have_every_row_once_each_in_a_new_order():
    x = np.arange(23)
    source = sources.Passes(sources.Rows(x, 10 * x, x[:2], x[:2], batch=5))
    drawn, y = sources.minibatches(source, 3, 0, 12)
    np.testing.assert_array_equal(y, 10 * drawn)
    passes = [np.ravel(part) for part in np.split(drawn, 3)]
    for rows in passes:
        assert len(set(rows)) == 20  # Three are left over.
    assert not np.array_equal(passes[0], passes[1])
    again, _ = sources.minibatches(source, 3, 6, 2)
    np.testing.assert_array_equal(again, drawn[6:8])
    other, _ = sources.minibatches(source, 4, 0, 4)
    assert not np.array_equal(np.ravel(other), passes[0])
    np.testing.assert_array_equal(source.held_out()[0], x[:2])


def test_held_out_rows_are_never_drawn():
    kept = np.flatnonzero(np.arange(569) % 5 != 4)
    x, _ = convex._table("breast_cancer")
    generator = np.random.default_rng(0)
    # Without noise, the rows of the table themselves are returned.
    quiet = type("Quiet", (), {})()
    quiet.integers = generator.integers
    quiet.normal = lambda size: np.zeros(size)
    drawn, _ = convex.smoothed("breast_cancer", quiet, 5000, False)
    held, _ = convex.smoothed("breast_cancer", quiet, 5000, True)
    drawn, held = ({row.tobytes() for row in part} for part in (drawn, held))
    assert len(drawn) == len({r.tobytes() for r in x[kept].astype("float32")})
    assert not drawn & held


def test_characters():
    found = text.indices("a\n~\té")
    assert list(found) == [65, 95, 94, 96, 96]
    assert text.CHARACTERS == 97


def test_parts_of_a_sequence():
    kept, held = text.parts(np.arange(45), block=2)
    assert list(held) == [18, 19, 38, 39]
    assert sorted([*kept, *held]) == list(range(45))


# Runs.


def small(network=None, compiled=False):
    """A task with dropout that is traced quickly."""

    def make(generator, count, held_out):
        x = generator.normal(size=(count, 3)).astype("float32")
        return x, (x.sum(axis=1, keepdims=True) > 0).astype("int32")

    def dropping():
        return keras.Sequential(
            [
                keras.layers.Input((3,)),
                keras.layers.Dense(4, activation="tanh"),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(1),
            ]
        )

    return task.Task(
        name="small",
        about="",
        half=task.DECISION,
        source=lambda: sources.Endless(make, batch=8),
        network=network or dropping,
        objective=task.supervised(
            keras.losses.BinaryCrossentropy(from_logits=True)
        ),
        classifies=True,
        compiled=compiled,
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_depends_on_seed_and_rate_alone(compiled):
    one = small(compiled=compiled)
    trainer = runs.Trainer(one, one.source(), contenders.adam(), STEPS)
    first = trainer.run(0, 1e-2)
    others = [trainer.run(1, 1e-2), trainer.run(0, 3e-2)]
    again = trainer.run(0, 1e-2)
    assert first.numbers() == again.numbers()
    for other in others:
        assert other.losses[0] != first.losses[0]
    fresh = runs.Trainer(one, one.source(), contenders.adam(), STEPS)
    assert fresh.run(0, 1e-2).numbers() == first.numbers()


def test_a_run_is_what_keras_does():
    one = small()
    trainer = runs.Trainer(one, one.source(), contenders.adam(), STEPS)
    found = trainer.run(5, 1e-2)
    model = one.build(5)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
    )
    x, y = sources.minibatches(one.source(), 5, 0, STEPS)
    losses = []
    for n in range(STEPS):
        losses.append(model.train_on_batch(x[n], y[n])[0])
        model.reset_metrics()
    blocks = np.reshape(losses, (-1, runs.BLOCK)).mean(axis=1)
    np.testing.assert_allclose(found.losses, blocks, rtol=1e-4)
    loss, accuracy = model.evaluate(*one.source().held_out(), verbose=0)
    np.testing.assert_allclose(found.held_out_loss, loss, rtol=1e-4)
    np.testing.assert_allclose(found.accuracy, accuracy, atol=1e-6)


def test_divergence_is_data():
    def exploding():
        return keras.Sequential(
            [
                keras.layers.Input((3,)),
                keras.layers.Dense(1, activation=lambda x: x * np.inf),
            ]
        )

    one = small(exploding)
    trainer = runs.Trainer(one, one.source(), contenders.adam(), STEPS)
    run = trainer.run(0, 1e-2)
    assert np.all(np.isinf(run.losses)) and len(run.losses) == 2
    assert score.final_loss(run) == np.inf


def test_the_cosine_ends_at_zero():
    schedule = contenders.CosineToZero(200)
    schedule.peak.assign(0.5)
    for step, wanted in ((0, 0.5), (100, 0.25), (200, 0.0)):
        found = float(schedule(tf.constant(step)))
        assert found == pytest.approx(wanted, abs=1e-6)


def test_numbers_of_a_run_and_back():
    run = Run(1.2345678, np.nan, np.array([3.0, np.inf]))
    again = Run.from_numbers(run.numbers())
    assert again.held_out_loss == 1.23457 and np.isnan(again.accuracy)
    np.testing.assert_array_equal(again.losses, run.losses)


# Scores.


def run_with(*losses):
    return Run(2.0, 0.5, np.array(losses, float))


def test_score_by_hand():
    # Seeds 0 and 1: (1 + 3) / 2 = 2 against 4, and 8 against 2.
    own = [run_with(9, 1, 3), run_with(9, 8, 8)]
    best = [run_with(9, 4, 4), run_with(9, 1, 3)]
    found = score.score(own, best, 1e-3)
    assert found.ratio == pytest.approx(np.sqrt(2 / 4 * 8 / 2))
    assert found.loss == 5 and found.diverged == 0
    lost = score.score([run_with(1, 2, np.inf), own[1]], best, 1e-3)
    assert lost.ratio == pytest.approx(np.sqrt(score.CAP * 8 / 2))
    assert lost.diverged == 1


def test_the_best_rate_is_that_of_the_geometric_mean():
    found = {
        # Arithmetic means 5.5 and 4.5, geometric ones 3.2 and 4.2.
        0.1: [run_with(1, 1), run_with(10, 10)],
        0.2: [run_with(3, 3), run_with(6, 6)],
        0.3: [run_with(1e-9, 1e-9), run_with(np.inf, 1)],
    }
    assert score.best_rate(found) == 0.1


def test_summary_by_hand():
    scores = [
        score.Score(ratio, diverged, 0, 0, 0, 0)
        for ratio, diverged in ((0.5, 0), (2.0, 0), (27.0, 1))
    ]
    found = score.summary(scores)
    assert found.geometric_mean == pytest.approx(3)
    assert (found.worst, found.won, found.diverged) == (27, 1, 1)


# The suite.


def test_what_was_stopped_goes_on(tmp_path, capsys):
    own, rivals = tmp_path / "own.csv", tmp_path / "rivals.csv"
    settings = practice.Settings(
        tasks=("logistic",),
        rates=(1e-3, 1e-2),
        steps=STEPS,
        seeds=2,
        results=str(own),
        rivals=str(rivals),
    )
    figures = practice.run(settings, tmp_path / "out")
    printed = capsys.readouterr().out
    wanted = own.read_text(), rivals.read_text()
    assert [len(part.splitlines()) for part in wanted] == [4, 12]
    # It was stopped in the middle of a line.
    for path, content in zip((own, rivals), wanted, strict=True):
        path.write_text(content[: len(content) // 2])
    picture = tmp_path / "out" / "practice.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert practice.run(settings, tmp_path / "again") == figures
    assert (own.read_text(), rivals.read_text()) == wanted
    assert capsys.readouterr().out == printed
    scores = [
        (tmp_path / n / "practice.csv").read_text() for n in ("out", "again")
    ]
    assert scores[0] == scores[1] and len(scores[0].splitlines()) == 1 + 8
    assert set(figures) == {"decision 0.001", "decision 0.01"}
    ratio = re.search(r"^logistic +(\S+)", printed, re.M).group(1)
    mean = figures["decision 0.001"]["geometric_mean"]
    assert float(ratio) == pytest.approx(mean, abs=0.006)


def test_step_lengths_by_hand():
    one = small()
    # Adam's first step is as long as its rate; gradients align with none yet.
    trainer = runs.Trainer(one, one.source(), contenders.adam(), STEPS)
    found = step_lengths.measure(trainer, 0, 1e-2)
    assert found.step.shape == (STEPS, len(trainer.model.trainable_variables))
    np.testing.assert_allclose(found.step[0], 1e-2, rtol=1e-3)
    np.testing.assert_array_equal(found.alignment[0], 0)
    assert np.all(np.abs(found.alignment) <= 1.00001)
    kernel = one.build(0).trainable_variables[0]
    rms = np.sqrt(np.mean(np.square(kernel)))
    assert found.tensor[0, 0] == pytest.approx(rms, rel=1e-5)
    assert found.relative[0, 0] == pytest.approx(1e-2 / rms, rel=1e-3)
    # Measuring does not change the run.
    blocks = found.loss.reshape(-1, runs.BLOCK).mean(axis=1)
    np.testing.assert_allclose(blocks, trainer.run(0, 1e-2).losses, rtol=1e-5)


def test_alignment_by_hand():
    one, two = tf.constant([1.0, 1.0]), tf.constant([3.0, 0.0])
    found = float(step_lengths._cosine(one, two))
    assert found == pytest.approx(np.sqrt(0.5))
    assert float(step_lengths._cosine(one, 0 * two)) == 0
