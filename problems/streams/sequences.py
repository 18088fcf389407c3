"""Networks that read sequences: recurrent ones, attention, bags of words.

They have the interface of `networks`. A row of numbers is cut into `length`
parts; the words of a row are looked up in a table.
"""

import dataclasses
import math

import tensorflow as tf

from problems.neural import layers
from problems.streams.networks import initial, normalized

CORES = ("dense", "gru", "lstm", "attention")


def _check_core(core: str):
    if core not in CORES:
        raise ValueError(
            f"Argument `core` must be one of {CORES}. Received: core={core!r}"
        )


def core_shapes(core: str, units: int) -> tuple:
    """Parameters of a layer from `units` to `units` features."""
    _check_core(core)
    if core == "dense":
        return layers.dense_shapes(units, units)
    if core == "attention":
        return (
            (units,), (units,), (units, 3 * units), (units, units),
            (units,), (units,),
            *layers.dense_shapes(units, 2 * units),
            *layers.dense_shapes(2 * units, units),
        )  # fmt: skip
    gates = 3 if core == "gru" else 4
    return ((units, gates * units), (units, gates * units), (gates * units,))


def run_core(core: str, tensors, x, causal: bool):
    """The layer on x [B, rows, length, units], in the same shape.

    Args:
        core: one of `CORES`.
        tensors: iterator over the parameters.
        x: the sequences.
        causal: whether attention sees no later places.
    """
    if core == "dense":
        w, b = next(tensors), next(tensors)
        return tf.tanh(_everywhere(x, w) + b[:, None, None, :])
    if core == "attention":
        return _attention(tensors, x, causal)
    w_x, w_h, b = next(tensors), next(tensors), next(tensors)
    given = _everywhere(x, w_x) + b[:, None, None, :]
    units = x.shape[-1]
    h = c = tf.zeros((*x.shape[:2], units))
    outputs = []
    for step in range(x.shape[2]):
        a = given[:, :, step]
        if core == "gru":
            gates = tf.sigmoid(a[..., : 2 * units] + h @ w_h[..., : 2 * units])
            z, k = gates[..., :units], gates[..., units:]
            new = tf.tanh(a[..., 2 * units :] + (k * h) @ w_h[..., 2 * units :])
            h = z * h + (1.0 - z) * new
        else:
            i, f, o, g = tf.split(a + h @ w_h, 4, axis=-1)
            # A forget gate starts open, as in Keras.
            c = tf.sigmoid(f + 1.0) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
        outputs.append(h)
    return tf.stack(outputs, axis=2)


def _everywhere(x, w):
    """x [B, rows, length, inputs] times w [B, inputs, units]."""
    flat = tf.reshape(x, (x.shape[0], -1, x.shape[-1])) @ w
    return tf.reshape(flat, (*x.shape[:3], w.shape[-1]))


def _attention(tensors, x, causal):
    """A block of a Transformer, normalized before each part, one head."""
    units, length = x.shape[-1], x.shape[2]
    y = normalized(x, None, "layer", tensors)
    q, k, v = tf.split(_everywhere(y, next(tensors)), 3, axis=-1)
    scores = tf.matmul(q, k, transpose_b=True) / math.sqrt(units)
    if causal:
        mask = tf.linalg.band_part(tf.ones((length, length)), -1, 0)
        scores += (mask - 1.0) * 1e9
    x = x + _everywhere(tf.nn.softmax(scores) @ v, next(tensors))
    y = normalized(x, None, "layer", tensors)
    y = _everywhere(y, next(tensors)) + next(tensors)[:, None, None, :]
    y = _everywhere(tf.nn.gelu(y), next(tensors))
    return x + y + next(tensors)[:, None, None, :]


def positions(length: int, units: int):
    """Sines and cosines of the place, [length, units] (Vaswani et al.)."""
    place = tf.range(length, dtype=tf.float32)[:, None]
    rate = 10.0 ** (-2.0 * tf.range((units + 1) // 2, dtype=tf.float32) / units)
    angles = place * rate
    both = tf.stack([tf.sin(angles), tf.cos(angles)], axis=-1)
    return tf.reshape(both, (length, -1))[:, :units]


@dataclasses.dataclass(frozen=True)
class Sequential:
    """Reads a sequence of vectors, and gives one output at the end.

    It consists of a dense layer for each place, a core, and a dense layer that
    reads the last place after a recurrent core, the mean over places after
    attention.

    Args:
        core: "gru", "lstm" or "attention".
        features: number of features of each place.
        length: number of places.
        units: number of units of the core.
        outputs: number of outputs of the last layer.
    """

    core: str
    features: int
    length: int
    units: int
    outputs: int

    def __post_init__(self):
        _check_core(self.core)

    @property
    def name(self) -> str:
        """The name, with the core."""
        return f"sequential_{self.core}"

    @property
    def inputs(self) -> int:
        """Number of features of a row."""
        return self.features * self.length

    @property
    def shapes(self) -> tuple:
        """First layer, core, last layer."""
        return (
            *layers.dense_shapes(self.features, self.units),
            *core_shapes(self.core, self.units),
            *layers.dense_shapes(self.units, self.outputs),
        )

    def initial(self, seed, count: int) -> tuple:
        """Initial parameters of `count` networks."""
        return initial(seed, count, self.shapes)

    def __call__(self, params, x, weights):
        """Outputs [B, rows, outputs]."""
        del weights
        tensors = iter(params)
        x = tf.reshape(x, (*x.shape[:2], self.length, self.features))
        x = _everywhere(x, next(tensors)) + next(tensors)[:, None, None, :]
        if self.core == "attention":
            x += positions(self.length, self.units)
        x = run_core(self.core, tensors, x, causal=False)
        x = tf.reduce_mean(x, 2) if self.core == "attention" else x[:, :, -1]
        return layers.dense(x, next(tensors), next(tensors))


@dataclasses.dataclass(frozen=True)
class BagOfWords:
    """The mean of the words' vectors, a hidden layer, a dense layer.

    Args:
        vocabulary: number of words, most of which occur in few rows.
        units: size of the embedding's vectors.
        hidden: units of the hidden layer.
        outputs: number of outputs of the last layer.
        size: standard deviation of the initial vectors, about.
    """

    vocabulary: int
    units: int
    hidden: int
    outputs: int
    size: float = 0.2

    name = "bag_of_words"

    @property
    def shapes(self) -> tuple:
        """Embedding, hidden layer, last layer."""
        return (
            (self.vocabulary, self.units),
            *layers.dense_shapes(self.units, self.hidden),
            *layers.dense_shapes(self.hidden, self.outputs),
        )

    def initial(self, seed, count: int) -> tuple:
        """Initial parameters; vectors of the embedding are small."""
        table, *others = initial(seed, count, self.shapes)
        return (table * math.sqrt(self.vocabulary) * self.size, *others)

    def __call__(self, params, x, weights):
        """Outputs [B, rows, outputs] of words [B, rows, length]."""
        del weights
        table, *params = params
        # A product with counts: its derivatives are products, too.
        counts = tf.reduce_mean(tf.one_hot(x, self.vocabulary), axis=2)
        tensors = iter(params)
        x = counts @ table
        x = tf.nn.relu(layers.dense(x, next(tensors), next(tensors)))
        return layers.dense(x, next(tensors), next(tensors))
