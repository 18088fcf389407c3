"""Texts of several topics, whose Bayes posterior is known exactly."""

import dataclasses
from typing import Any

import tensorflow as tf

from problems import draws
from problems.convex import cross_entropy
from problems.streams.inputs import Words
from problems.streams.stream import Stream, divergence, even


@dataclasses.dataclass(frozen=True)
class Topics(Stream):
    """Which topic the words of a row are from.

    Log frequencies of the words of a topic are those of Zipf's law plus a
    random normal number, of a standard deviation from 0.5 to 2, for each word
    and topic. Topics are equally frequent, so the best prediction is Bayes'
    posterior, the softmax over topics of the sum of the log frequencies of a
    row's words. With small vectors it starts on a plateau, where gradients are
    nearly all noise; most words are rare.

    Args:
        network: network from words to logits, as `sequences.BagOfWords`.
        topics: number of topics.
        length: number of words in a row.
        rows: number of rows of the largest minibatch.
        held: number of held-out rows, for the full loss.
    """

    network: Any
    topics: int = 20
    length: int = 16
    rows: int = 24
    held: int = 48

    @property
    def name(self) -> str:
        """The name, with the network's."""
        return f"stream_topics_{self.network.name}"

    @property
    def shapes(self) -> tuple:
        """The shapes of the network."""
        return self.network.shapes

    def draw(self, seed, count):
        """Frequencies, held rows and their posteriors, sizes, weights."""
        seeds = draws.split(seed, 5)
        words = self.network.vocabulary
        zipf = tf.math.log(Words(words, self.length).frequencies())
        strength = draws.uniform(seeds[0], (count, 1, 1), 0.5, 2.0)
        own = draws.normal(seeds[1], (count, self.topics, words))
        frequencies = tf.nn.log_softmax(zipf + strength * own)
        data = {
            "below": tf.cumsum(tf.exp(frequencies), axis=-1),
            "batch_size": self.sizes_of(seeds[2], count),
            "start": self.network.initial(seeds[3], count),
        }
        held, _ = self._texts(data, seeds[4], self.held)
        # [B, topics, held, length]: log frequency of each word in each topic.
        flat = tf.reshape(held, (count, 1, -1))
        flat = tf.repeat(flat, self.topics, axis=1)
        each = tf.gather(frequencies, flat, batch_dims=2)
        shape = (count, self.topics, self.held, self.length)
        likelihood = tf.reduce_sum(tf.reshape(each, shape), axis=-1)
        wanted = tf.nn.log_softmax(tf.transpose(likelihood, (0, 2, 1)))
        return data | {"held": held, "wanted": wanted}

    def _texts(self, data, seed, rows):
        """Words [B, rows, length], and their topics [B, rows]."""
        first, second = draws.split(seed, 2)
        count, _, words = data["below"].shape
        topic = draws.integers(first, (count, rows), 0, self.topics)
        below = tf.gather(data["below"], topic, batch_dims=1)
        chance = draws.uniform(second, (count, rows, self.length))
        passed = below[:, :, None, :] < chance[..., None]
        word = tf.reduce_sum(tf.cast(passed, tf.int32), axis=-1)
        # Rounding may leave the last sum short of one.
        return tf.minimum(word, words - 1), topic

    def rows_at(self, data, seed):
        """Words and their topics."""
        return self._texts(data, seed, self.rows)

    def losses(self, data, params, x, y, weights):
        """Cross entropy of every row, [B, rows]."""
        return cross_entropy(self.network(params, x, weights), y)

    def full_loss(self, data, params):
        """Mean excess over Bayes' posterior on the held rows, [B]."""
        count = data["batch_size"].shape[0]
        logits = self.network(params, data["held"], even(count, self.held))
        return tf.reduce_mean(divergence(data["wanted"], logits), axis=1)
