"""A recurrent network and an embedding."""

import dataclasses

import tensorflow as tf

from problems import draws
from problems.convex import cross_entropy
from problems.minibatch import DataSet, data_set
from problems.neural import layers


@dataclasses.dataclass(frozen=True)
class Recurrent(DataSet):
    """A tanh RNN that must tell at the end which class the sequence began with.

    The first input is a point of one of a few clusters, all later ones are
    noise.

    Args:
        inputs: size of each input.
        units: size of the hidden state.
        length: length of the sequences.
        classes: number of clusters.
        rows: number of rows of each data set.
    """

    inputs: int = 4
    units: int = 12
    length: int = 6
    classes: int = 3
    rows: int = 64
    name: str = "recurrent"

    minimum = None

    @property
    def shapes(self):
        """Weights of input, recurrence (and biases), output (and biases)."""
        return (
            (self.inputs, self.units),
            *layers.dense_shapes(self.units, self.units),
            *layers.dense_shapes(self.units, self.classes),
        )

    def draw(self, seed, count):
        """Sequences, labels, minibatch sizes and initial weights."""
        points, noise, start, rest = draws.split(seed, 4)
        first, y = layers.clusters(
            points, count, self.rows, self.classes, (1, self.inputs)
        )
        later = draws.normal(
            noise, (count, self.rows, self.length - 1, self.inputs)
        )
        x = tf.concat([first, later], axis=2)
        start = layers.weights(start, count, self.shapes)
        return data_set(rest, x, y, start)

    def losses(self, params, x, y):
        """Losses of every sequence, [B, rows]."""
        w_x, w_h, b_h, w_y, b_y = params
        h = tf.zeros((*x.shape[:2], self.units))
        for step in range(self.length):
            h = tf.tanh(x[:, :, step] @ w_x + layers.dense(h, w_h, b_h))
        return cross_entropy(layers.dense(h, w_y, b_y), y)


@dataclasses.dataclass(frozen=True)
class Bigram(DataSet):
    """An embedding and a softmax that predict the next word of a text.

    Words have Zipf's frequencies: in most minibatches most rows of the
    embedding get no gradient at all.

    Args:
        words: size of the vocabulary.
        units: size of the embedding.
        rows: number of rows of each data set.
    """

    words: int = 50
    units: int = 6
    rows: int = 200
    name: str = "bigram"

    minimum = None

    @property
    def shapes(self):
        """Embedding, and weights and biases of the softmax."""
        return (
            (self.words, self.units),
            *layers.dense_shapes(self.units, self.words),
        )

    def draw(self, seed, count):
        """Words, the words after them, minibatch sizes, initial weights."""
        word, table, follow, start, rest = draws.split(seed, 5)
        rank = tf.range(1, self.words + 1, dtype=tf.float32)
        zipf = -tf.math.log(rank)

        def choose(seed, logits):
            """Samples of softmax(logits), by Gumbel's trick."""
            gumbel = -tf.math.log(-tf.math.log(draws.uniform(
                seed, (count, self.rows, self.words), 1e-7, 1.0 - 1e-7
            )))  # fmt: skip
            return tf.argmax(logits + gumbel, -1, output_type=tf.int32)

        x = choose(word, zipf)
        shape = (count, self.words, self.words)
        after = zipf + 2.0 * draws.normal(table, shape)
        y = choose(follow, tf.gather(after, x, batch_dims=1))
        start = layers.weights(start, count, self.shapes)
        return data_set(rest, x, y, start)

    def losses(self, params, x, y):
        """Losses of every word, [B, rows]."""
        embedding, w, b = params
        # A product with one-hot rows: its derivatives are products, too.
        chosen = tf.one_hot(x, self.words) @ embedding
        return cross_entropy(layers.dense(chosen, w, b), y)
