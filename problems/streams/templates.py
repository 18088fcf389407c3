"""Noisy templates, whose Bayes posterior is known exactly."""

import dataclasses
from typing import Any

import tensorflow as tf

from problems import draws
from problems.convex import cross_entropy
from problems.streams.stream import Stream, divergence, even


@dataclasses.dataclass(frozen=True)
class Templates(Stream):
    """Pictures of random templates in Gaussian noise.

    x = t_y + sd z with y uniform. The best prediction from x is Bayes'
    posterior, softmax_k(-|x - t_k|^2 / (2 sd^2)), or for denoising its mean of
    the templates. The noise is such that half the distance between two
    templates is 0.4 to 3 standard deviations.

    Args:
        network: network from a picture to logits, or to a picture.
        classes: number of templates.
        denoise: whether the target is the clean picture, with squared error,
            rather than the class.
        rows: number of rows of the largest minibatch.
        held: number of held-out rows, for the full loss.
    """

    network: Any
    classes: int = 6
    denoise: bool = False
    rows: int = 32
    held: int = 48

    @property
    def name(self) -> str:
        """The name, with the network's."""
        prefix = "stream_denoising" if self.denoise else "stream_templates"
        return f"{prefix}_{self.network.name}"

    @property
    def shapes(self) -> tuple:
        """The shapes of the network."""
        return self.network.shapes

    def draw(self, seed, count):
        """Templates, held rows and their posteriors, sizes, weights."""
        seeds = draws.split(seed, 5)
        size = self.network.inputs
        templates = draws.normal(seeds[0], (count, self.classes, size))
        # The distance of two templates is sqrt(2 size).
        separation = draws.log_uniform(seeds[1], (count, 1, 1), 0.4, 3.0)
        data = {
            "templates": templates,
            "sd": (size / 2.0) ** 0.5 / separation,
            "batch_size": self.sizes_of(seeds[2], count),
            "start": self.network.initial(seeds[3], count),
        }
        held, _ = self._pictures(data, seeds[4], self.held)
        return data | {"held": held, "wanted": self._posterior(data, held)}

    def _pictures(self, data, seed, rows):
        """Pictures [B, rows, size] and their classes."""
        first, second = draws.split(seed, 2)
        count, _, size = data["templates"].shape
        label = draws.integers(first, (count, rows), 0, self.classes)
        clean = tf.gather(data["templates"], label, batch_dims=1)
        noise = draws.normal(second, (count, rows, size))
        return clean + data["sd"] * noise, label

    def _posterior(self, data, x):
        """Logarithms of the classes' probabilities, [B, rows, classes]."""
        templates = data["templates"]
        product = tf.matmul(x, templates, transpose_b=True)
        square = tf.reduce_sum(templates**2, axis=-1)[:, None, :]
        return tf.nn.log_softmax((product - square / 2.0) / data["sd"] ** 2)

    def rows_at(self, data, seed):
        """Pictures, and their classes or the pictures without noise."""
        x, label = self._pictures(data, seed, self.rows)
        if self.denoise:
            return x, tf.gather(data["templates"], label, batch_dims=1)
        return x, label

    def losses(self, data, params, x, y, weights):
        """Losses of every row, [B, rows]."""
        outputs = self.network(params, x, weights)
        if self.denoise:
            return tf.reduce_mean((outputs - y) ** 2, axis=-1)
        return cross_entropy(outputs, y)

    def full_loss(self, data, params):
        """Mean excess over Bayes' posterior on the held rows, [B]."""
        count = data["batch_size"].shape[0]
        outputs = self.network(params, data["held"], even(count, self.held))
        if self.denoise:
            best = tf.exp(data["wanted"]) @ data["templates"]
            return tf.reduce_mean((outputs - best) ** 2, axis=(1, 2))
        return tf.reduce_mean(divergence(data["wanted"], outputs), axis=1)


@dataclasses.dataclass(frozen=True)
class Autoencoder(Stream):
    """Black and white patterns through a bottleneck of sigmoid units.

    A pattern is sign(A z) as zeros and ones, with a random matrix A and few
    latent normal numbers z. The loss is the mean cross entropy of the points:
    it starts on a plateau, where only their frequencies are predicted. Its
    infimum is not known.

    Args:
        network: a `Dense` with as many outputs as inputs.
        latent: number of latent numbers.
        rows: number of rows of the largest minibatch.
        held: number of held-out rows, for the full loss.
    """

    network: Any
    latent: int = 4
    rows: int = 32
    held: int = 48

    @property
    def name(self) -> str:
        """The name, with the network's."""
        return f"stream_autoencoder_{self.network.name}"

    @property
    def shapes(self) -> tuple:
        """The shapes of the network."""
        return self.network.shapes

    def draw(self, seed, count):
        """Matrices, held patterns, sizes and initial weights."""
        seeds = draws.split(seed, 5)
        size = self.network.inputs
        data = {
            "matrix": draws.normal(seeds[0], (count, self.latent, size)),
            "shift": draws.normal(seeds[1], (count, 1, size)),
            "batch_size": self.sizes_of(seeds[2], count),
            "start": self.network.initial(seeds[3], count),
        }
        return data | {"held": self._patterns(data, seeds[4], self.held)}

    def _patterns(self, data, seed, rows):
        count = data["matrix"].shape[0]
        z = draws.normal(seed, (count, rows, self.latent))
        return tf.cast(z @ data["matrix"] + data["shift"] > 0, tf.float32)

    def rows_at(self, data, seed):
        """Patterns, which are their own targets."""
        x = self._patterns(data, seed, self.rows)
        return x, x

    def losses(self, data, params, x, y, weights):
        """Mean cross entropy of the points of every row, [B, rows]."""
        logits = self.network(params, x, weights)
        each = tf.nn.softplus(logits) - logits * y
        return tf.reduce_mean(tf.nn.relu(each), axis=-1)

    def full_loss(self, data, params):
        """The mean on the held rows, [B]."""
        weights = even(data["batch_size"].shape[0], self.held)
        held = data["held"]
        losses = self.losses(data, params, held, held, weights)
        return tf.reduce_mean(losses, axis=1)
