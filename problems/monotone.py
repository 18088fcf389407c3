"""Monotone transforms of the loss: section 4.1.5."""

import dataclasses

import tensorflow as tf

from problems import draws, safe
from problems.family import per_instance
from problems.transforms import Wrapper


class Monotone(Wrapper):
    """The loss l becomes `curve(l)`; subclasses define it and its `slope`.

    The curve is increasing and curve(0) = 0.
    """

    @property
    def minimum(self):
        """Zero stays zero; any other minimum depends on the instance."""
        return 0.0 if self.inner.minimum == 0.0 else None

    def curve(self, data, loss):
        """The new loss."""
        raise NotImplementedError(f"{type(self).__name__} must define `curve`.")

    def slope(self, data, loss):
        """Derivative of `curve` with respect to the loss."""
        raise NotImplementedError(f"{type(self).__name__} must define `slope`.")

    def full_loss(self, data, params):
        """Losses [B]."""
        return self.curve(data, super().full_loss(data, params))

    def loss(self, data, params, batch):
        """Losses [B] as seen in one step."""
        return self.curve(data, super().loss(data, params, batch))

    def loss_and_gradient(self, data, params, batch):
        """By the chain rule, whatever the wrapped gradient is."""
        loss, gradients = super().loss_and_gradient(data, params, batch)
        slope = self.slope(data, loss)
        return self.curve(data, loss), [
            per_instance(slope, g) * g for g in gradients
        ]


@dataclasses.dataclass(frozen=True)
class Power(Monotone):
    """The loss is raised to a power, one for each instance.

    Losses below 1e-20 count as zero, where the gradient is zero.

    Args:
        inner: the wrapped family.
        low: smallest power.
        high: largest power.
    """

    low: float = 0.5
    high: float = 2.0

    prefix = "power"

    def own(self, seed, count):
        """Powers."""
        return {"power": draws.log_uniform(seed, (count,), self.low, self.high)}

    def curve(self, data, loss):
        """loss^p."""
        return safe.power(loss, data["power"])

    def slope(self, data, loss):
        """p loss^(p - 1)."""
        return safe.power_slope(loss, data["power"])


@dataclasses.dataclass(frozen=True)
class Log1p(Monotone):
    """The loss l becomes log(1 + l)."""

    prefix = "log1p"

    def curve(self, data, loss):
        """log(1 + loss)."""
        del data
        return tf.math.log1p(loss)

    def slope(self, data, loss):
        """1 / (1 + loss)."""
        del data
        return 1.0 / (1.0 + loss)


@dataclasses.dataclass(frozen=True)
class Scaled(Monotone):
    """The loss is multiplied by a log-uniform factor, one for each instance.

    Args:
        inner: the wrapped family.
        low: smallest factor.
        high: largest factor.
    """

    low: float = 1e-3
    high: float = 1e3

    prefix = "scaled"

    def own(self, seed, count):
        """Factors."""
        return {
            "factor": draws.log_uniform(seed, (count,), self.low, self.high)
        }

    def curve(self, data, loss):
        """factor * loss."""
        return data["factor"] * loss

    def slope(self, data, loss):
        """The factor."""
        del loss
        return data["factor"]
