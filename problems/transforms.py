"""Transforms of the gradient and of the variables: sections 4.1.3 and 4.1.5.

Each wraps a family and is a family itself, so transforms can be nested. Data
are a dict of the wrapped family's data ("inner") and the transform's own.
"""

import dataclasses

import tensorflow as tf

from problems import draws
from problems.family import Family, per_instance


@dataclasses.dataclass(frozen=True)
class Wrapper(Family):
    """A family that delegates everything; transforms override a part.

    Args:
        inner: the wrapped family.
    """

    inner: Family

    # What `name` adds to that of the wrapped family.
    prefix = "wrapped"

    @property
    def name(self):
        """Names of the transform and of what it is applied to."""
        return f"{self.prefix}({self.inner.name})"

    @property
    def shapes(self):
        """The shapes of the wrapped family."""
        return self.inner.shapes

    @property
    def minimum(self):
        """The minimum of the wrapped family."""
        return self.inner.minimum

    @property
    def minibatched(self):
        """As the wrapped family."""
        return self.inner.minibatched

    @property
    def noisy(self):
        """As the wrapped family."""
        return self.inner.noisy

    def own(self, seed, count) -> dict:
        """The transform's own data."""
        del seed, count
        return {}

    def draw(self, seed, count):
        """The wrapped family's data and the transform's own."""
        inner, own = draws.split(seed, 2)
        return {"inner": self.inner.draw(inner, count), **self.own(own, count)}

    def start(self, data):
        """Start points."""
        return self.inner.start(data["inner"])

    def argmin(self, data):
        """Minimisers, where known."""
        return self.inner.argmin(data["inner"])

    def batch(self, data, seed, step=0):
        """What is random in one step."""
        return self.inner.batch(data["inner"], seed, step)

    def full_loss(self, data, params):
        """Losses [B]."""
        return self.inner.full_loss(data["inner"], params)

    def loss(self, data, params, batch):
        """Losses [B] as seen in one step."""
        return self.inner.loss(data["inner"], params, batch)

    def loss_and_gradient(self, data, params, batch):
        """Losses and gradients as seen in one step."""
        return self.inner.loss_and_gradient(data["inner"], params, batch)


def _noise_seeds(family, seed, step):
    """Seeds of the wrapped family's run and of each tensor's numbers."""
    first, *others = draws.split(seed, 1 + len(family.shapes))
    return first, *(draws.fold(one, step) for one in others)


@dataclasses.dataclass(frozen=True)
class GradientNoise(Wrapper):
    """Normal noise is added to every entry of the gradient.

    Its standard deviation, one for each instance, is log-uniform.

    Args:
        inner: the wrapped family.
        low: smallest standard deviation.
        high: largest standard deviation.
    """

    low: float = 0.1
    high: float = 2.0

    prefix = "noisy"
    noisy = True

    def own(self, seed, count):
        """Standard deviations."""
        return {"sd": draws.log_uniform(seed, (count,), self.low, self.high)}

    def batch(self, data, seed, step=0):
        """The wrapped family's batch, and the noise."""
        first, *seeds = _noise_seeds(self, seed, step)
        count = data["sd"].shape[0]
        noise = tuple(
            draws.normal(one, (count, *shape))
            for one, shape in zip(seeds, self.shapes, strict=True)
        )
        return {"inner": super().batch(data, first, step), "noise": noise}

    def loss(self, data, params, batch):
        """Losses [B] without noise, which only the gradient has."""
        return super().loss(data, params, batch["inner"])

    def loss_and_gradient(self, data, params, batch):
        """Losses [B], and gradients with noise."""
        loss, gradients = super().loss_and_gradient(
            data, params, batch["inner"]
        )
        return loss, [
            g + per_instance(data["sd"], g) * noise
            for g, noise in zip(gradients, batch["noise"], strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class SparseGradient(Wrapper):
    """A share of the gradient's entries is zero, drawn anew in every step.

    Args:
        inner: the wrapped family.
        low: smallest share of zeros; one is drawn for each instance.
        high: largest share.
    """

    low: float = 0.5
    high: float = 0.99

    prefix = "sparse"
    noisy = True

    def own(self, seed, count):
        """Shares of zeros."""
        return {"zeros": draws.uniform(seed, (count,), self.low, self.high)}

    def batch(self, data, seed, step=0):
        """The wrapped family's batch, and masks of 0 and 1."""
        first, *seeds = _noise_seeds(self, seed, step)
        count = data["zeros"].shape[0]
        masks = []
        for one, shape in zip(seeds, self.shapes, strict=True):
            drawn = draws.uniform(one, (count, *shape))
            zeros = per_instance(data["zeros"], drawn)
            masks.append(tf.cast(drawn >= zeros, tf.float32))
        inner = super().batch(data, first, step)
        return {"inner": inner, "masks": tuple(masks)}

    def loss(self, data, params, batch):
        """Losses [B], which the masks do not affect."""
        return super().loss(data, params, batch["inner"])

    def loss_and_gradient(self, data, params, batch):
        """Losses [B], and masked gradients."""
        loss, gradients = super().loss_and_gradient(
            data, params, batch["inner"]
        )
        return loss, [
            g * mask for g, mask in zip(gradients, batch["masks"], strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class Reparametrized(Wrapper):
    """A linear change of variables: the optimizer sees theta / scale.

    log10 of the scale is the sum of three uniform numbers: one for each
    instance, one for each tensor and one for each parameter, each with a width
    of so many decades around zero.

    Args:
        inner: the wrapped family.
        instance: decades for the instances.
        tensor: decades for the tensors.
        parameter: decades for the parameters.
    """

    instance: float = 5.0
    tensor: float = 1.0
    parameter: float = 0.0

    prefix = "reparametrized"

    def own(self, seed, count):
        """A scale for every parameter."""
        tensors = len(self.shapes)
        first, second, *seeds = draws.split(seed, 2 + tensors)

        def decades(seed, shape, width):
            return draws.uniform(seed, shape, -width / 2.0, width / 2.0)

        shared = decades(first, (count, 1), self.instance)
        shared += decades(second, (count, tensors), self.tensor)
        scales = []
        for t, shape in enumerate(self.shapes):
            log10 = decades(seeds[t], (count, *shape), self.parameter)
            log10 += per_instance(shared[:, t], log10)
            scales.append(10.0**log10)
        return {"scales": tuple(scales)}

    def start(self, data):
        """In the new variables."""
        return self._divide(super().start(data), data)

    def argmin(self, data):
        """In the new variables."""
        point = super().argmin(data)
        return None if point is None else self._divide(point, data)

    def full_loss(self, data, params):
        """Losses [B]."""
        return super().full_loss(data, self._multiply(params, data))

    def loss(self, data, params, batch):
        """Losses [B] as seen in one step."""
        return super().loss(data, self._multiply(params, data), batch)

    def loss_and_gradient(self, data, params, batch):
        """By the chain rule, the gradient is multiplied by the scales."""
        loss, gradients = super().loss_and_gradient(
            data, self._multiply(params, data), batch
        )
        return loss, self._multiply(gradients, data)

    @staticmethod
    def _multiply(tensors, data):
        pairs = zip(tensors, data["scales"], strict=True)
        return tuple(tensor * scale for tensor, scale in pairs)

    @staticmethod
    def _divide(tensors, data):
        pairs = zip(tensors, data["scales"], strict=True)
        return tuple(tensor / scale for tensor, scale in pairs)
