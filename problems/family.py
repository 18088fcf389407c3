"""What a problem is: a family that draws B instances at once.

Parameters are a tuple of tensors [B, *shape], one for each of `shapes`. The
data of B instances are a dict (or another nest) of tensors with the same
leading axis. All shapes are static, and everything that is random comes from a
seed: one traced or compiled function serves every draw.
"""

import math
from typing import Any, NamedTuple

import tensorflow as tf

from problems import draws


class Family:
    """Problems of one shape. Subclasses define `draw` and `full_loss`.

    Attributes:
        name: name in the registry.
        shapes: shapes of the parameters' tensors, without the leading B.
        minimum: the infimum of `full_loss`, None if it is not known.
        minibatched: whether `loss` sees only part of the data.
        noisy: whether loss and gradient of a step differ from those of
            `full_loss`, by minibatches, noise or missing entries.
    """

    name: str
    shapes: tuple
    minimum: float | None = 0.0
    minibatched: bool = False
    noisy: bool = False

    @property
    def sizes(self) -> tuple:
        """Number of parameters of each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def dimension(self) -> int:
        """Number of parameters."""
        return sum(self.sizes)

    def draw(self, seed, count: int):
        """Data of `count` instances, with the start points as "start"."""
        raise NotImplementedError(f"{type(self).__name__} must define `draw`.")

    def full_loss(self, data, params):
        """Losses [B], on all data and without noise; never negative."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `full_loss`."
        )

    def start(self, data) -> tuple:
        """Parameters to start from."""
        return data["start"]

    def batch(self, data, seed, step=0) -> Any:
        """What is random in one step: minibatches, noise, masks.

        Args:
            data: data of the instances.
            seed: seed of a run.
            step: number of the step in the run.
        """
        del data, seed, step
        return ()

    def loss(self, data, params, batch):
        """Losses [B] as seen in one step."""
        del batch
        return self.full_loss(data, params)

    def loss_and_gradient(self, data, params, batch):
        """Losses [B] and gradients as seen in one step.

        Noise and sparsity of the gradient appear only here. The result can be
        differentiated again, also with respect to `params`.
        """
        with tf.GradientTape() as tape:
            tape.watch(params)
            loss = self.loss(data, params, batch)
        gradients = tape.gradient(
            loss, params, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return loss, gradients

    def argmin(self, data) -> tuple | None:
        """Parameters where `full_loss` is `minimum`; None if unknown."""
        del data
        return None

    def instances(self, seed, count: int = 1) -> "Problem":
        """`count` drawn instances, together with their data."""
        return Problem(self, self.draw(seed, count))

    def flatten(self, params):
        """Tuple of [B, *shape] to [B, N], one tensor after another."""
        count = params[0].shape[0]
        flat = [tf.reshape(tensor, (count, -1)) for tensor in params]
        return flat[0] if len(flat) == 1 else tf.concat(flat, axis=-1)

    def unflatten(self, flat) -> tuple:
        """[B, N] to the tuple: the inverse of `flatten`."""
        parts = [flat]
        if len(self.shapes) > 1:
            parts = tf.split(flat, self.sizes, axis=-1)
        return tuple(
            tf.reshape(part, (flat.shape[0], *shape))
            for part, shape in zip(parts, self.shapes, strict=True)
        )


class VectorFamily(Family):
    """Problems of one vector of `dim` parameters."""

    dim: int

    @property
    def shapes(self):
        """One vector."""
        return ((self.dim,),)


class Problem(NamedTuple):
    """Drawn instances of a family: its functions with the data filled in."""

    family: Family
    data: Any

    @property
    def start(self) -> tuple:
        """See `Family.start`."""
        return self.family.start(self.data)

    @property
    def argmin(self) -> tuple | None:
        """See `Family.argmin`."""
        return self.family.argmin(self.data)

    def batch(self, seed, step=0) -> Any:
        """See `Family.batch`."""
        return self.family.batch(self.data, seed, step)

    def loss(self, params, batch):
        """See `Family.loss`."""
        return self.family.loss(self.data, params, batch)

    def full_loss(self, params):
        """See `Family.full_loss`."""
        return self.family.full_loss(self.data, params)

    def loss_and_gradient(self, params, batch):
        """See `Family.loss_and_gradient`."""
        return self.family.loss_and_gradient(self.data, params, batch)


def per_instance(values, tensor):
    """[B] shaped to be used with a tensor [B, ...]."""
    return tf.reshape(values, (-1,) + (1,) * (len(tensor.shape) - 1))


def drawer(family: Family, count: int):
    """A traced function from a seed [2] to the data of `count` instances."""
    draw = tf.function(lambda seed: family.draw(seed, count))
    traced = draw.get_concrete_function(tf.TensorSpec((2,), tf.int32))
    return lambda seed: traced(draws.as_seed(seed))
