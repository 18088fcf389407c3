"""The streams of the sets, as a table: name, weight, family.

Breadth matters: problems of a kind that a set lacks get worse while those of
the kinds it has get better.
"""

from problems.streams.inputs import Correlated, Words
from problems.streams.networks import Convolutional, Dense
from problems.streams.sequences import BagOfWords, Sequential
from problems.streams.stream import Labels, Values
from problems.streams.tables import Ratings, Text
from problems.streams.templates import Autoencoder, Templates
from problems.streams.topics import Topics


def _labels(network, rows: int = 48, decades: float = 0.0):
    return Labels(network, Correlated(network.inputs, decades), rows)


def _values(network, rows: int = 48, decades: float = 0.0):
    return Values(network, Correlated(network.inputs, decades), rows)


LINEAR = (
    ("stream_linear", 3, _values(Dense((16, 1)))),
    ("stream_linear_unscaled", 3, _values(Dense((10, 1)), decades=2.0)),
    ("stream_logistic", 2, _labels(Dense((24, 2)))),
    ("stream_logistic_unscaled", 4, _labels(Dense((20, 2)), decades=5.0)),
    ("stream_softmax", 3, _labels(Dense((64, 6)))),
)
"""Convex streams, which the set `paper` has, too (section 4.1.3)."""

NETWORKS = (
    ("stream_relu", 5, _labels(Dense((16, 24, 24, 6)))),
    ("stream_relu_deep", 4, _labels(Dense((12, *(16,) * 5, 5)))),
    ("stream_tanh_deep", 6, _labels(Dense((12, *(14,) * 8, 4), "tanh"))),
    ("stream_wide", 5, _labels(Dense((128, 16, 8)), 32)),
    ("stream_wider", 2, _labels(Dense((256, 24, 4)), 16)),
    ("stream_layer", 4, _values(Dense((10, 24, 24, 2), "gelu", "layer"))),
    ("stream_batch", 5, _labels(Dense((16, 20, 20, 5), "relu", "batch"))),
    (
        "stream_residual",
        4,
        _labels(Dense((16, *(16,) * 5, 5), "gelu", "layer", True)),
    ),
    ("stream_values_tanh", 4, _values(Dense((6, 24, 1), "tanh"))),
    ("stream_values_relu", 4, _values(Dense((8, 20, 20, 1)))),
    ("stream_sine", 4, _values(Dense((2, 24, 24, 1), "sine"))),
    ("stream_convolutional", 6, _labels(Convolutional((6, 8, 8), 6), 24)),
    (
        "stream_convolutional_deep",
        4,
        _labels(Convolutional((6, 6, 8, 8, 8, 8), 5), 16),
    ),
    (
        "stream_convolutional_batch",
        5,
        Templates(Convolutional((6, 8, 8), 6, norm="batch")),
    ),
    (
        "stream_convolutional_residual",
        4,
        Templates(Convolutional((8,) * 5, 6, norm="batch", residual=True)),
    ),
    (
        "stream_convolutional_group",
        3,
        _labels(Convolutional((8,) * 4, 5, norm="group", residual=True), 16),
    ),
    ("stream_gru", 4, _labels(Sequential("gru", 6, 5, 12, 4), 24)),
    ("stream_lstm", 4, _values(Sequential("lstm", 5, 5, 10, 1), 24)),
    ("stream_attention", 5, _labels(Sequential("attention", 6, 6, 12, 4), 24)),
    ("stream_bigram", 4, Text("dense", 64, 8, 1, 48, 64)),
    ("stream_text_gru", 4, Text("gru")),
    ("stream_text_lstm", 3, Text("lstm", 32, 8)),
    ("stream_text_attention", 5, Text("attention", 24, 12)),
    ("stream_bag", 5, Labels(BagOfWords(120, 6, 12, 4), Words(120, 6), 32)),
    ("stream_ratings", 5, Ratings()),
    (
        "stream_autoencoder",
        5,
        Autoencoder(Dense((24, 12, 4, 12, 24), "sigmoid")),
    ),
    (
        "stream_denoising",
        4,
        Templates(Dense((36, 24, 12, 24, 36), "relu"), denoise=True),
    ),
    # Thousands of parameters: the tensors above have some 200 elements each.
    ("stream_relu_large", 8, _labels(Dense((96, 44, 44, 10)), 32)),
    (
        "stream_tanh_large",
        8,
        _labels(Dense((64, *(30,) * 6, 10), "tanh"), 32),
    ),
    (
        "stream_convolutional_large",
        6,
        _labels(Convolutional((12, 16, 16), 8), 16),
    ),
    ("stream_topics", 8, Topics(BagOfWords(780, 8, 24, 20, size=0.03))),
)
