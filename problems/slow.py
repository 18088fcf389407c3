"""Small problems on which progress is slow: section 4.1.4.

The paper names them without formulas; these are ours.
"""

import dataclasses
import math

import tensorflow as tf

from problems import draws
from problems.family import VectorFamily


@dataclasses.dataclass(frozen=True)
class OscillatingValley(VectorFamily):
    """A winding valley that descends forever along theta_0.

    softplus(-theta_0 / l) + mean_i (theta_i - a_i sin(theta_0 / w + b_i))^2

    The loss falls like exp(-theta_0 / l) on the valley's floor and its
    infimum, zero, lies at infinity; the floor swings by a_i in each of the
    other directions.

    Args:
        dim: number of parameters.
    """

    dim: int = 30
    name: str = "oscillating_valley"

    def draw(self, seed, count):
        """Lengths l and w, amplitudes a, phases b, and start points."""
        seeds = draws.split(seed, 5)
        walls = (count, self.dim - 1)
        return {
            "length": draws.log_uniform(seeds[0], (count,), 0.3, 10.0),
            "wave": draws.log_uniform(seeds[1], (count, 1), 0.1, 1.0),
            "amplitude": draws.uniform(seeds[2], walls, 0.2, 1.0),
            "phase": draws.uniform(seeds[3], walls, 0.0, 2.0 * math.pi),
            "start": (draws.normal(seeds[4], (count, self.dim)),),
        }

    def full_loss(self, data, params):
        """Losses [B]."""
        along, across = params[0][:, :1], params[0][:, 1:]
        floor = data["amplitude"] * tf.sin(along / data["wave"] + data["phase"])
        walls = tf.reduce_mean((across - floor) ** 2, axis=-1)
        return tf.nn.softplus(-along[:, 0] / data["length"]) + walls


@dataclasses.dataclass(frozen=True)
class DependencyChain(VectorFamily):
    """Parameters that count only once those before them are right.

    mean_i (1 - prod_{j <= i} 1 / (1 + u_j^2)) with u = theta - c: while the
    first is far off, the gradient of all others is close to zero.

    Args:
        dim: number of parameters.
    """

    dim: int = 20
    name: str = "dependency_chain"

    def draw(self, seed, count):
        """Centres and start points."""
        centre, start = draws.split(seed, 2)
        shape = (count, self.dim)
        return {
            "centre": draws.normal(centre, shape),
            "start": (2.0 * draws.normal(start, shape),),
        }

    def full_loss(self, data, params):
        """Losses [B]."""
        offset = params[0] - data["centre"]
        logs = tf.cumsum(tf.math.log1p(offset**2), axis=-1)
        return -tf.reduce_mean(tf.math.expm1(-logs), axis=-1)

    def argmin(self, data):
        """The centre."""
        return (data["centre"],)


@dataclasses.dataclass(frozen=True)
class RosenbrockChain(VectorFamily):
    """Rosenbrock's function of a sequence: each pair is strongly coupled.

    mean_i ((1 - theta_i)^2 + k (theta_{i+1} - theta_i^2)^2), k from 1 to 100.

    Args:
        dim: number of parameters.
    """

    dim: int = 20
    name: str = "rosenbrock_chain"

    def draw(self, seed, count):
        """Strengths k and start points."""
        strength, start = draws.split(seed, 2)
        return {
            "strength": draws.log_uniform(strength, (count, 1), 1.0, 100.0),
            "start": (draws.normal(start, (count, self.dim)),),
        }

    def full_loss(self, data, params):
        """Losses [B]."""
        x, following = params[0][:, :-1], params[0][:, 1:]
        terms = (1.0 - x) ** 2 + data["strength"] * (following - x**2) ** 2
        return tf.reduce_mean(terms, axis=-1)

    def argmin(self, data):
        """All ones."""
        return (tf.ones_like(data["start"][0]),)


@dataclasses.dataclass(frozen=True)
class MinMax(VectorFamily):
    """max(u)^2 + min(u)^2 of u = theta - c: two parameters move at a time.

    Args:
        dim: number of parameters.
    """

    dim: int = 20
    name: str = "min_max"

    def draw(self, seed, count):
        """Centres and start points."""
        centre, start = draws.split(seed, 2)
        shape = (count, self.dim)
        return {
            "centre": draws.normal(centre, shape),
            "start": (draws.normal(start, shape),),
        }

    def full_loss(self, data, params):
        """Losses [B]."""
        offset = params[0] - data["centre"]
        return (
            tf.reduce_max(offset, axis=-1) ** 2
            + tf.reduce_min(offset, axis=-1) ** 2
        )

    def argmin(self, data):
        """The centre."""
        return (data["centre"],)
