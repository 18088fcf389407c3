"""Embeddings: texts of a Markov chain, and ratings.

Most rows of a table get no gradient in most steps.
"""

import dataclasses

import tensorflow as tf

from problems import draws
from problems.convex import cross_entropy
from problems.neural import layers
from problems.streams.inputs import Words, pick
from problems.streams.networks import initial
from problems.streams.sequences import core_shapes, positions, run_core
from problems.streams.stream import Stream, divergence


@dataclasses.dataclass(frozen=True)
class Text(Stream):
    """Prediction of the next word of a text, at every place.

    The text is a Markov chain of second order: log probabilities of the next
    word are those of Zipf's law plus a random number for each pair with the
    last word and one for each pair with the last but one. So the excess is
    exactly the mean of KL(chain || student) over places. A student of the core
    "dense" sees the last word only, and cannot reach 0.

    Args:
        core: one of `sequences.CORES`.
        vocabulary: number of words.
        units: number of units of the embedding and of the core.
        length: number of places to predict in a row.
        rows: number of rows of the largest minibatch.
        held: number of held-out rows, for the full loss.
    """

    core: str
    vocabulary: int = 24
    units: int = 10
    length: int = 5
    rows: int = 12
    held: int = 16

    @property
    def name(self) -> str:
        """The name, with the core and the vocabulary."""
        return f"stream_text_{self.core}_{self.vocabulary}"

    @property
    def shapes(self) -> tuple:
        """Embedding, core, output layer."""
        return (
            (self.vocabulary, self.units),
            *core_shapes(self.core, self.units),
            *layers.dense_shapes(self.units, self.vocabulary),
        )

    def draw(self, seed, count):
        """Chains, held texts, sizes and initial weights."""
        seeds = draws.split(seed, 6)
        words = self.vocabulary
        zipf = tf.math.log(Words(words, 1).frequencies())
        strength = draws.uniform(seeds[0], (count, 2, 1, 1), 0.3, 2.5)
        pairs = strength * draws.normal(seeds[1], (count, 2, words, words))
        table, *others = initial(seeds[3], count, self.shapes)
        data = {
            "last": zipf + pairs[:, 0],
            "before": pairs[:, 1],
            "batch_size": self.sizes_of(seeds[2], count),
            # Vectors of size one, whatever the vocabulary.
            "start": (table * words**0.5 * 0.5, *others),
        }
        x, _, wanted = self._text(data, seeds[4], self.held)
        return data | {"held": x, "wanted": wanted}

    def _text(self, data, seed, rows):
        """Words, the words after them, and the latter's log probabilities."""
        count, words = data["last"].shape[:2]
        chance = draws.uniform(seed, (self.length + 2, count, rows))
        zipf = tf.math.log(Words(words, 1).frequencies())
        before, last = pick(zipf, chance[0]), pick(zipf, chance[1])
        x, y, wanted = [], [], []
        for place in range(self.length):
            x.append(last)
            logits = tf.one_hot(last, words) @ data["last"]
            logits += tf.one_hot(before, words) @ data["before"]
            wanted.append(tf.nn.log_softmax(logits))
            before, last = last, pick(logits, chance[place + 2])
            y.append(last)
        return tf.stack(x, 2), tf.stack(y, 2), tf.stack(wanted, 2)

    def rows_at(self, data, seed):
        """Words and the words after them, [B, rows, length]."""
        return self._text(data, seed, self.rows)[:2]

    def _logits(self, params, x):
        """Logits of the next word, [B, rows, length, words]."""
        table, *others = params
        count, rows, length = x.shape
        # A product with one-hot rows: its derivatives are products, too.
        flat = tf.reshape(x, (count, -1))
        vectors = tf.one_hot(flat, self.vocabulary) @ table
        vectors = tf.reshape(vectors, (count, rows, length, self.units))
        if self.core == "attention":
            vectors += 0.5 * positions(length, self.units)
        tensors = iter(others)
        h = run_core(self.core, tensors, vectors, causal=True)
        h = tf.reshape(h, (count, -1, self.units))
        logits = layers.dense(h, next(tensors), next(tensors))
        return tf.reshape(logits, (count, rows, length, -1))

    def losses(self, data, params, x, y, weights):
        """Mean cross entropy of the places of every row, [B, rows]."""
        logits = self._logits(params, x)
        logits = tf.reshape(logits, (x.shape[0], -1, self.vocabulary))
        each = cross_entropy(logits, tf.reshape(y, (x.shape[0], -1)))
        return tf.reduce_mean(tf.reshape(each, x.shape), axis=-1)

    def full_loss(self, data, params):
        """Mean divergence over the held places, [B]."""
        logits = self._logits(params, data["held"])
        return tf.reduce_mean(divergence(data["wanted"], logits), axis=(1, 2))


@dataclasses.dataclass(frozen=True)
class Ratings(Stream):
    """Two tables of vectors whose products are ratings, with noise.

    A rating is u_i . v_j + a_i + b_j + sd z. Users and items come with the
    frequencies of Zipf's law. The full loss is the expected squared distance
    of the ratings without noise, over all pairs.

    Args:
        users: rows of the first table.
        items: rows of the second.
        units: number of units of a vector.
        rows: number of rows of the largest minibatch.
    """

    users: int = 60
    items: int = 40
    units: int = 4
    rows: int = 48
    held: int = 0
    name: str = "stream_ratings"

    minimum = 0.0

    @property
    def shapes(self) -> tuple:
        """Two tables of vectors and two of single numbers."""
        return (
            (self.users, self.units),
            (self.items, self.units),
            (self.users,),
            (self.items,),
        )

    def draw(self, seed, count):
        """True tables, noise, sizes and initial tables."""
        seeds = draws.split(seed, 7)

        def table(seed, shape, size):
            return size * draws.normal(seed, (count, *shape))

        one = self.units**-0.25
        true = [
            table(seed, shape, size)
            for seed, shape, size in zip(
                seeds[:4], self.shapes, (one, one, 0.3, 0.3), strict=True
            )
        ]
        first, second = draws.split(seeds[4], 2)
        zeros = [tf.zeros((count, *shape)) for shape in self.shapes[2:]]
        return {
            "true": tuple(true),
            "sd": draws.log_uniform(seeds[5], (count,), 0.05, 1.0),
            "batch_size": self.sizes_of(seeds[6], count),
            "start": (
                table(first, self.shapes[0], 0.1),
                table(second, self.shapes[1], 0.1),
                *zeros,
            ),
        }

    def _frequencies(self):
        words = Words(self.users, 1), Words(self.items, 1)
        return [one.frequencies() for one in words]

    def _ratings(self, params, x):
        """Ratings of pairs x [B, rows, 2]: [B, rows]."""
        u, v, a, b = params
        user = tf.one_hot(x[..., 0], self.users)
        item = tf.one_hot(x[..., 1], self.items)
        both = tf.reduce_sum((user @ u) * (item @ v), axis=-1)
        return both + tf.linalg.matvec(user, a) + tf.linalg.matvec(item, b)

    def rows_at(self, data, seed):
        """Pairs and their ratings."""
        first, second, third = draws.split(seed, 3)
        shape = (data["sd"].shape[0], self.rows)
        pairs = [
            pick(tf.math.log(frequencies), draws.uniform(seed, shape))
            for seed, frequencies in zip(
                (first, second), self._frequencies(), strict=True
            )
        ]
        x = tf.stack(pairs, axis=-1)
        noise = data["sd"][:, None] * draws.normal(third, shape)
        return x, self._ratings(data["true"], x) + noise

    def losses(self, data, params, x, y, weights):
        """Squared error of every rating, [B, rows]."""
        return (self._ratings(params, x) - y) ** 2

    def _all(self, params):
        u, v, a, b = params
        product = tf.matmul(u, v, transpose_b=True)
        return product + a[:, :, None] + b[:, None, :]

    def full_loss(self, data, params):
        """Expected squared distance without noise, [B]."""
        users, items = self._frequencies()
        square = (self._all(params) - self._all(data["true"])) ** 2
        return tf.einsum("bij,i,j->b", square, users, items)

    def argmin(self, data):
        """The true tables."""
        return data["true"]
