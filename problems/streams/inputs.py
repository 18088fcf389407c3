"""Inputs that are drawn anew at every step: rows never repeat."""

import dataclasses

import tensorflow as tf

from problems import draws

NO_FLOOR = -1e30

LATENT = 32
"""Least number of random signs that an input is a mixture of: 2^32 different
rows."""


@dataclasses.dataclass(frozen=True)
class Correlated:
    """Correlated inputs with a non-zero mean, as in practice.

    x = size (mean + M^T s) with random signs s and a random matrix M for each
    instance, whose spectrum falls as a power of the rank. The exponent is
    uniform in [0, 1.2], the norm of the mean relative to the spread in
    [0, 1.5], the size log-uniform from 0.3 to 2. In two of five instances the
    inputs pass a ReLU, so that they are never negative.

    Args:
        size: number of inputs n.
        decades: number of decades over which the scales of single inputs
            spread, log-uniformly, as those of features that are not
            standardised.
    """

    size: int
    decades: float = 0.0

    @property
    def _latent(self) -> int:
        return max(LATENT, min(2 * LATENT, self.size))

    def draw(self, seed, count: int) -> dict:
        """The distribution of `count` instances."""
        seeds = draws.split(seed, 6)
        exponent = draws.uniform(seeds[0], (count, 1, 1), 0.0, 1.2)
        rank = tf.range(1, self._latent + 1, dtype=tf.float32)[:, None]
        spectrum = rank ** (-exponent / 2)
        mix = spectrum * draws.normal(
            seeds[1], (count, self._latent, self.size)
        )
        # The mean variance of an input is one.
        mix *= tf.math.rsqrt(tf.reduce_sum(spectrum**2, axis=1, keepdims=True))
        size = draws.log_uniform(seeds[2], (count, 1, 1), 0.3, 2.0)
        if self.decades:
            half = self.decades / 2
            size *= 10.0 ** draws.uniform(
                seeds[5], (count, 1, self.size), -half, half
            )
        length = draws.uniform(seeds[3], (count, 1, 1), 0.0, 1.5)
        chosen, direction = draws.split(seeds[4], 2)
        mean = length * draws.normal(direction, (count, 1, self.size))
        rectified = draws.uniform(chosen, (count,)) < 0.4
        return {
            "mix": size * mix,
            "mean": size * mean,
            "floor": tf.where(rectified, 0.0, NO_FLOOR),
        }

    def sample(self, data, seed, rows: int):
        """New inputs, [B, rows, n]."""
        count = data["mix"].shape[0]
        signs = draws.signs(seed, (count, rows, self._latent))
        x = signs @ data["mix"] + data["mean"]
        return tf.maximum(x, data["floor"][:, None, None])


@dataclasses.dataclass(frozen=True)
class Words:
    """Words with the frequencies of Zipf's law, as integers [B, rows, length].

    A word's frequency is proportional to 1 / (rank + 2).

    Args:
        vocabulary: number of words.
        length: number of words in a row.
    """

    vocabulary: int
    length: int

    def draw(self, seed, count: int) -> dict:
        """Only their number: all instances have the same distribution."""
        del seed
        return {"instances": tf.zeros((count,))}

    def sample(self, data, seed, rows: int):
        """New words, [B, rows, length]."""
        shape = (data["instances"].shape[0], rows, self.length)
        logits = tf.math.log(self.frequencies())
        return pick(logits, draws.uniform(seed, shape))

    def frequencies(self):
        """Frequencies of the words, [vocabulary]; they sum to 1."""
        rank = tf.range(self.vocabulary, dtype=tf.float32)
        return (1.0 / (rank + 2.0)) / tf.reduce_sum(1.0 / (rank + 2.0))


def pick(logits, uniform):
    """Samples of softmax(logits) [..., K], one for each uniform number [...].

    By inversion of the distribution function: this takes one random number for
    a sample, Gumbel's trick K.
    """
    below = tf.cumsum(tf.nn.softmax(logits), axis=-1)
    passed = tf.cast(below < uniform[..., None], tf.int32)
    # Rounding leaves the last sum short of one.
    last = tf.shape(logits)[-1] - 1
    return tf.minimum(tf.reduce_sum(passed, axis=-1), last)
