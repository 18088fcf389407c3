"""Embeddings whose steps update only the rows in the minibatch."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN
from hrnn_opt.model import tables

ROWS, WIDTH = 250, 66
RNG = np.random.default_rng(0)
BATCHES = [
    (
        RNG.integers(0, 90, size=12),
        RNG.normal(size=(12, WIDTH)).astype("float32"),
        RNG.normal(size=(WIDTH, 2)).astype("float32"),
    )
    for _ in range(3)
]
for ids, _, _ in BATCHES:
    ids[3] = ids[5] = ids[0]  # some ids are equal


class Trained:
    """A table and a kernel after some steps."""

    def __init__(self, sparse, name="embeddings", **kwargs):
        rng = np.random.default_rng(1)
        table, kernel = (
            rng.normal(size=shape).astype("float32")
            for shape in ((ROWS, WIDTH), (WIDTH, 2))
        )
        self.start = table
        self.table = tf.Variable(table, name=name)
        self.kernel = tf.Variable(kernel, name="kernel")
        self.optimizer = HierarchicalRNN(**kwargs)
        self.optimizer.build([self.table, self.kernel])
        for ids, rows, gradient in BATCHES:
            slices = tf.IndexedSlices(rows, ids, tf.constant([ROWS, WIDTH]))
            given = slices if sparse else tf.convert_to_tensor(slices)
            self.optimizer.apply([given, tf.constant(gradient)])

    def arrays(self):
        """The variables, and the state as it is saved."""
        store = {}
        self.optimizer.save_own_variables(store)
        store.pop("hrnn_opt")
        arrays = [self.table, self.kernel, *store.values()]
        return [np.asarray(array) for array in arrays]


def touched():
    return np.unique(np.concatenate([ids for ids, _, _ in BATCHES]))


def test_rows_are_those_of_the_dense_update():
    sparse, dense = Trained(sparse=True), Trained(sparse=False)
    assert sparse.optimizer._slots.tables == {0: WIDTH}
    for a, b in zip(sparse.arrays(), dense.arrays(), strict=True):
        # A matrix product of fewer columns may round differently.
        np.testing.assert_allclose(a, b, 1e-6, 1e-6)
    table = sparse.table.numpy()
    others = np.setdiff1d(np.arange(ROWS), touched())
    np.testing.assert_array_equal(table[others], sparse.start[others])
    assert np.all(table[touched()] != sparse.start[touched()])


def test_under_another_name_it_is_a_normal_tensor(plain_weights):
    """And saved in the same way, if the weights do not tell them apart."""
    sparse = Trained(sparse=True, weights=plain_weights)
    plain = Trained(sparse=True, name="weights", weights=plain_weights)
    assert sparse.optimizer._slots.tables and not plain.optimizer._slots.tables
    for a, b in zip(sparse.arrays(), plain.arrays(), strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 1e-6)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"clipnorm": 0.5},
        {"global_clipnorm": 0.5},
        {"clipvalue": 0.1},
        {"use_ema": True},
        {"gradient_accumulation_steps": 3},
        {"state_dtype": "bfloat16"},
    ],
    ids=lambda kwargs: next(iter(kwargs)),
)
def test_features(kwargs, plain_weights):
    kwargs = kwargs | {"weights": plain_weights}
    sparse = Trained(sparse=True, **kwargs)
    dense = Trained(sparse=False, name="weights", **kwargs)
    tolerance = 1e-4 if sparse.optimizer._slots.tables else 0
    for a, b in zip(sparse.arrays(), dense.arrays(), strict=True):
        np.testing.assert_allclose(
            a.astype("float32"), b.astype("float32"), tolerance, 1e-6
        )
    assert np.any(sparse.table.numpy() != sparse.start)


def test_weight_decay_acts_on_touched_rows():
    table = Trained(sparse=True, weight_decay=0.5)
    others = np.setdiff1d(np.arange(ROWS), touched())
    np.testing.assert_array_equal(
        table.table.numpy()[others], table.start[others]
    )
    without = Trained(sparse=True)
    assert np.all(
        table.table.numpy()[touched()] != without.table.numpy()[touched()]
    )


def test_blocks_and_pieces(monkeypatch):
    """A table larger than a piece, which ends in the middle of a row."""
    monkeypatch.setattr(tables.chunks, "PIECE", 100)
    blocks = tables.all_rows(tf.ones([10, 16]))
    assert [b.gradient.shape[0] for b in blocks] == [6, 4]
    state = np.arange(10 * 3 * 16, dtype="float32").reshape(10, 48)
    pieces = [
        tables.as_piece(state, piece, 16) for piece in tables.chunks.cut(0, 160)
    ]
    assert [p.shape[1] for p in pieces] == [100, 60]
    flat = np.concatenate(pieces, axis=1)
    for row, feature in itertools.product((0, 7, 9), range(3)):
        np.testing.assert_array_equal(
            flat[feature, row * 16 : row * 16 + 16],
            state[row, feature * 16 : feature * 16 + 16],
        )
    np.testing.assert_array_equal(tables.from_pieces(pieces, 16), state)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_fit_with_an_embedding(policy):
    keras.utils.set_random_seed(0)
    with keras.device("cpu"):
        model = keras.Sequential(
            [
                keras.Input((4,), dtype="int32"),
                keras.layers.Embedding(1100, 16, dtype=policy),
                keras.layers.Flatten(),
                keras.layers.Dense(1, dtype="float32"),
            ]
        )
    optimizer = HierarchicalRNN()
    if policy != "float32":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "mse")
    x = RNG.integers(0, 300, size=(20, 4))
    start = model.layers[0].embeddings.numpy()
    # The last batch is smaller.
    losses = model.fit(x, np.ones((20, 1)), 8, epochs=3, verbose=0)
    losses = losses.history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    moved = np.any(model.layers[0].embeddings.numpy() != start, axis=1)
    np.testing.assert_array_equal(np.flatnonzero(moved), np.unique(x))
