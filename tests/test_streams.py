"""Streams: excess losses are right, and rows never repeat."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import problems
from problems import draws
from problems.streams import inputs, networks, sequences, tables, topics
from problems.streams.rows import LINEAR, NETWORKS
from problems.streams.stream import TeacherStudent, divergence, even

COUNT = 3
STREAMS = {name: family for name, _, family in (*LINEAR, *NETWORKS)}
TAUGHT = [
    name
    for name, family in STREAMS.items()
    if isinstance(family, TeacherStudent) or family.minimum == 0.0
]


@pytest.mark.parametrize("name", TAUGHT)
def test_the_teacher_cannot_be_bettered(name):
    """The full loss is 0 there, and so are its slope and that of the mean of
    many minibatches."""
    family = STREAMS[name]
    problem = family.instances(5, COUNT)
    teacher = problem.argmin
    assert np.all(problem.full_loss(teacher).numpy() < 1e-9)
    nearby = [t + 0.1 * tf.reduce_mean(tf.abs(t)) for t in teacher]
    assert np.all(problem.full_loss(tuple(nearby)).numpy() > 0)


def test_minibatches_lead_to_the_teacher():
    """The mean gradient over many minibatches vanishes only at the teacher."""
    for name in ("stream_softmax", "stream_values_tanh", "stream_ratings"):
        problem = STREAMS[name].instances(6, 2)
        step = tf.function(problem.loss_and_gradient)
        batch = tf.function(problem.batch)
        sums = {}
        for key, point in {
            "teacher": problem.argmin,
            "start": problem.start,
        }.items():
            drawn = [
                step(point, batch(7, tf.constant(n)))[1] for n in range(400)
            ]
            flat = np.stack([problem.family.flatten(g) for g in drawn])
            error = np.std(flat, axis=0) / len(flat) ** 0.5 + 1e-9
            sums[key] = np.mean((np.mean(flat, axis=0) / error) ** 2)
        # Squares of standard normal numbers have mean 1.
        assert sums["teacher"] < 2.0 < 5.0 < sums["start"]


@pytest.mark.parametrize("name", STREAMS)
def test_rows_never_repeat(name):
    family = STREAMS[name]
    problem = family.instances(1, 2)
    rows = np.concatenate(
        [np.reshape(problem.batch(3, n)["x"], (2, family.rows, -1))
         for n in range(4)],
        axis=1,
    )  # fmt: skip
    few = rows.dtype.kind == "i" and rows.shape[-1] < 5
    if few or name == "stream_autoencoder":
        return  # Single words, pairs and frequent patterns do recur.
    for instance in rows:
        assert len(np.unique(instance, axis=0)) == len(instance)


@pytest.mark.parametrize("name", STREAMS)
def test_weights_average_over_the_minibatch(name):
    family = STREAMS[name]
    problem = family.instances(2, 16)
    sizes = problem.data["batch_size"].numpy()
    assert np.all((sizes >= 4) & (sizes <= family.rows))
    assert len(np.unique(sizes)) > 3
    weights = problem.batch(1)["weights"].numpy()
    np.testing.assert_allclose(weights.sum(1), 1.0, 1e-5)
    np.testing.assert_array_equal(np.sum(weights > 0, axis=1), sizes)


def test_a_step_is_never_a_new_program():
    traces = []
    for name in ("stream_batch", "stream_text_gru", "stream_bag"):
        problem = STREAMS[name].instances(0, 2)

        @tf.function(jit_compile=True)
        def step(number, problem=problem):
            traces.append(number)
            batch = problem.batch(draws.as_seed(4), number)
            return problem.loss(problem.start, batch)

        losses = [step(tf.constant(n)).numpy() for n in range(4)]
        assert len(np.unique(losses)) == 8
    assert len(traces) == 3


def test_divergence():
    rng = np.random.default_rng(0)
    wanted, logits = rng.normal(size=(2, 4, 5, 7))
    wanted -= np.log(np.sum(np.exp(wanted), -1, keepdims=True))
    other = logits - np.log(np.sum(np.exp(logits), -1, keepdims=True))
    expected = np.sum(np.exp(wanted) * (wanted - other), axis=-1)
    got = divergence(tf.constant(wanted), tf.constant(logits))
    np.testing.assert_allclose(got, expected, 1e-9)
    same = divergence(
        tf.constant(wanted, tf.float32), tf.constant(wanted, tf.float32)
    )
    assert np.all(same.numpy() >= 0) and np.all(same.numpy() < 1e-6)


def test_pick_samples_the_softmax():
    logits = tf.constant([[0.0, 1.0, -2.0], [3.0, 0.0, 0.0]])
    uniform = (tf.range(10_000, dtype=tf.float32) + 0.5) / 10_000
    got = inputs.pick(logits[:, None], tf.stack([uniform, uniform]))
    share = [np.bincount(row, minlength=3) / 10_000 for row in got.numpy()]
    np.testing.assert_allclose(share, tf.nn.softmax(logits), atol=2e-4)
    # A sum of probabilities that rounds to less than one leaves no gap.
    assert inputs.pick(tf.zeros((1, 7)), tf.constant([1.0]))[0] == 6


def test_bayes_posterior_is_exact():
    family = STREAMS["stream_convolutional_batch"]
    data = family.draw(3, 2)
    for i in range(2):
        x, t = data["held"][i].numpy(), data["templates"][i].numpy()
        sd = data["sd"][i].numpy().item()
        square = np.sum((x[:, None] - t[None]) ** 2, axis=-1, dtype="float64")
        log = -square / (2 * sd**2)
        log -= np.logaddexp.reduce(log, axis=1, keepdims=True)
        np.testing.assert_allclose(data["wanted"][i], log, 1e-3, 1e-3)


def test_the_best_denoiser_is_the_posterior_mean():
    family = STREAMS["stream_denoising"]
    data = family.draw(3, 2)
    best = tf.exp(data["wanted"]) @ data["templates"]
    # It is far better than any single template, on pictures never seen.
    x, clean = family.rows_at(data, 8)
    posterior = tf.exp(family._posterior(data, x)) @ data["templates"]
    error = tf.reduce_mean((posterior - clean) ** 2)
    assert error < tf.reduce_mean((x - clean) ** 2)
    assert best.shape == data["held"].shape


def test_words_follow_the_chain():
    family = tables.Text("dense", vocabulary=6, units=2, length=5, rows=4000)
    data = family.draw(1, 1)
    x, y, wanted = family._text(data, 2, 4000)
    last, before = x[0, :, 1:].numpy(), x[0, :, :-1].numpy()
    after, told = y[0, :, 1:].numpy(), wanted[0, :, 1:].numpy()
    table, far = data["last"][0].numpy(), data["before"][0].numpy()
    logits = table[last] + far[before]
    logits -= np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    np.testing.assert_allclose(told, logits, 1e-4, 1e-4)
    chosen = np.equal.outer(after, np.arange(6))
    error = np.mean(chosen - np.exp(told), axis=(0, 1))
    assert np.all(np.abs(error) < 5 * 0.5 / np.sqrt(after.size))


def test_topics_are_as_likely_as_told():
    """Bayes' posterior is right on average, also where it is sure."""
    network = sequences.BagOfWords(40, 4, 6, 5)
    family = topics.Topics(network, topics=5, length=3)
    data = family.draw(1, 2)
    words, topic = (x.numpy() for x in family._texts(data, 2, 20_000))
    for instance, below in enumerate(data["below"].numpy()):
        each = np.log(np.diff(below, prepend=0.0))
        logits = each[:, words[instance]].sum(-1).T
        told = np.exp(logits - np.logaddexp.reduce(logits, -1, keepdims=True))
        chosen = np.equal.outer(topic[instance], np.arange(5))
        for sure in (told > 0.5, told <= 0.5):
            error = np.mean((chosen - told)[sure])
            assert np.abs(error) < 5 * 0.5 / np.sqrt(np.sum(sure))


def test_unscaled_inputs_spread():
    source = inputs.Correlated(400, decades=3.0)
    x = source.sample(source.draw(0, 2), 1, 64).numpy()
    size = np.log10(np.sqrt(np.mean(x**2, axis=1)) + 1e-9)
    assert np.all(np.quantile(size, 0.95, 1) - np.quantile(size, 0.05, 1) > 2)
    even_source = inputs.Correlated(400)
    x = even_source.sample(even_source.draw(0, 16), 1, 64).numpy()
    size = np.log10(np.sqrt(np.mean(x**2, axis=1)) + 1e-9)
    spread = np.quantile(size, 0.75, 1) - np.quantile(size, 0.25, 1)
    # A ReLU zeroes some inputs of the other instances.
    whole = np.min(x, axis=(1, 2)) < 0
    assert np.any(whole) and np.all(spread[whole] < 0.6)


def keras_weights(params, i):
    return [np.asarray(p[i]) for p in params]


@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
def test_normalizations_are_those_of_keras(norm):
    rng = np.random.default_rng(1)
    x = tf.constant(rng.normal(size=(2, 6, 3, 3, 4)), tf.float32)
    gain, shift = tf.constant(rng.normal(size=(2, 2, 4)), tf.float32)
    got = networks.normalized(x, even(2, 6), norm, iter((gain, shift)))
    for i in range(2):
        layer = {
            "batch": keras.layers.BatchNormalization(),
            "layer": keras.layers.LayerNormalization(),
            "group": keras.layers.GroupNormalization(2),
        }[norm]
        layer.build((6, 3, 3, 4))
        layer.gamma.assign(1.0 + gain[i])
        layer.beta.assign(shift[i])
        kwargs = {"training": True} if norm == "batch" else {}
        np.testing.assert_allclose(got[i], layer(x[i], **kwargs), 1e-4, 1e-4)


@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_recurrent_cores_are_those_of_keras(core):
    rng = np.random.default_rng(2)
    units, x = 4, tf.constant(rng.normal(size=(1, 5, 3, 4)), tf.float32)
    shapes = sequences.core_shapes(core, units)
    params = [tf.constant(rng.normal(size=(1, *s)), tf.float32) for s in shapes]
    got = sequences.run_core(core, iter(params), x, causal=True)
    w_x, w_h, b = (p[0].numpy() for p in params)
    if core == "gru":
        layer = keras.layers.GRU(4, return_sequences=True, reset_after=False)
        values = [w_x, w_h, b]
    else:
        layer = keras.layers.LSTM(4, return_sequences=True)

        def ours_to_keras(a):  # i, f, o, g to i, f, c, o
            i, f, o, g = np.split(a, 4, axis=-1)
            return np.concatenate([i, f, g, o], axis=-1)

        values = [ours_to_keras(a) for a in (w_x, w_h, b)]
        values[2][units : 2 * units] += 1.0
    layer.build((5, 3, 4))
    layer.set_weights(values)
    np.testing.assert_allclose(got[0], layer(x[0]), 1e-5, 1e-5)


def test_attention_does_not_look_ahead():
    rng = np.random.default_rng(3)
    shapes = sequences.core_shapes("attention", 6)
    params = [tf.constant(rng.normal(size=(1, *s)), tf.float32) for s in shapes]
    x = rng.normal(size=(1, 2, 5, 6)).astype("float32")
    other = x.copy()
    other[:, :, 3:] += 1.0
    for causal in (True, False):
        a, b = (
            sequences.run_core(
                "attention", iter(params), tf.constant(v), causal
            )
            for v in (x, other)
        )
        same = np.all(np.abs(a - b)[:, :, :3] < 1e-6)
        assert same == causal


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: networks.Dense((2, 2), "relux"), "activation='relux'"),
        (lambda: networks.Dense((2, 2), norm="x"), "norm='x'"),
        (lambda: networks.Convolutional((2,), 2, norm="x"), "norm='x'"),
        (lambda: sequences.Sequential("x", 1, 1, 1, 1), "core='x'"),
        (lambda: sequences.core_shapes("x", 1), "core='x'"),
    ],
)
def test_unknown_kinds_are_refused(call, text):
    with pytest.raises(ValueError, match=f"Received: {text}"):
        call()


def test_streams_stand_in_both_sets():
    wide = {row.name for row in problems.meta_training_set("wide")}
    paper = {row.name for row in problems.meta_training_set("paper")}
    assert set(STREAMS) <= wide
    assert {name for name in STREAMS if name in paper} == {
        n for n, *_ in LINEAR
    }
