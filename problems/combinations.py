"""Several families in one: the multi-task sum of 4.1.5, and a choice."""

import dataclasses
import itertools

import tensorflow as tf

from problems import draws
from problems.family import Family, per_instance


@dataclasses.dataclass(frozen=True)
class Sum(Family):
    """The sum of several families' losses: several tasks at once.

    Args:
        parts: the families.
    """

    parts: tuple

    @property
    def name(self):
        """Names of all parts."""
        return "+".join(part.name for part in self.parts)

    @property
    def shapes(self):
        """Shapes of all parts."""
        return tuple(itertools.chain(*(part.shapes for part in self.parts)))

    @property
    def minimum(self):
        """The sum of the parts' minima; None if one is unknown."""
        minima = [part.minimum for part in self.parts]
        return None if None in minima else sum(minima)

    @property
    def minibatched(self):
        """Whether one of them is."""
        return any(part.minibatched for part in self.parts)

    @property
    def noisy(self):
        """Whether one of them is."""
        return any(part.noisy for part in self.parts)

    def draw(self, seed, count):
        """Every part's data."""
        seeds = draws.split(seed, len(self.parts))
        pairs = zip(self.parts, seeds, strict=True)
        return tuple(part.draw(one, count) for part, one in pairs)

    def start(self, data):
        """Start points."""
        pairs = zip(self.parts, data, strict=True)
        return tuple(itertools.chain(*(part.start(own) for part, own in pairs)))

    def argmin(self, data):
        """Minimisers of all parts; None if one is unknown."""
        pairs = zip(self.parts, data, strict=True)
        points = [part.argmin(own) for part, own in pairs]
        return None if None in points else tuple(itertools.chain(*points))

    def batch(self, data, seed, step=0):
        """Every part's batch."""
        seeds = draws.split(seed, len(self.parts))
        triples = zip(self.parts, data, seeds, strict=True)
        return tuple(part.batch(own, one, step) for part, own, one in triples)

    def full_loss(self, data, params):
        """Losses [B]."""
        return sum(
            part.full_loss(own, mine)
            for part, own, mine in zip(
                self.parts, data, self._share(params), strict=True
            )
        )

    def loss(self, data, params, batch):
        """Losses [B] as seen in one step."""
        return sum(
            part.loss(own, mine, one)
            for part, own, mine, one in zip(
                self.parts, data, self._share(params), batch, strict=True
            )
        )

    def loss_and_gradient(self, data, params, batch):
        """Losses [B] and gradients; every part gives its own."""
        losses, gradients = [], []
        for part, own, mine, one in zip(
            self.parts, data, self._share(params), batch, strict=True
        ):
            loss, gradient = part.loss_and_gradient(own, mine, one)
            losses.append(loss)
            gradients.extend(gradient)
        return sum(losses), gradients

    def _share(self, params):
        """The parameters of each part."""
        left = iter(params)
        return [
            tuple(itertools.islice(left, len(part.shapes)))
            for part in self.parts
        ]


@dataclasses.dataclass(frozen=True)
class Choice(Family):
    """Each instance belongs to one of several families, drawn at random.

    The families have equal shapes. All are computed for every instance and one
    result is kept, so this suits cheap families, which then share one compiled
    program. A family that was not chosen is computed at its own start point,
    where it is finite.

    Args:
        parts: the families, full-batch and without noise.
        name: name of the choice as a family.
    """

    parts: tuple
    name: str

    def __post_init__(self):
        if len({part.shapes for part in self.parts}) != 1:
            raise ValueError(
                "Argument `parts` must be families of equal shapes. Received: "
                f"{[(part.name, part.shapes) for part in self.parts]}"
            )
        if any(part.noisy for part in self.parts):
            raise ValueError(
                "Argument `parts` must be families without minibatches or "
                "noise: wrap the choice instead. Received: "
                f"{[part.name for part in self.parts if part.noisy]}"
            )

    @property
    def shapes(self):
        """The shapes that all parts have."""
        return self.parts[0].shapes

    @property
    def minimum(self):
        """The parts' common minimum; None if they differ or are unknown."""
        minima = {part.minimum for part in self.parts}
        return minima.pop() if len(minima) == 1 else None

    def draw(self, seed, count):
        """The choices, and every family's data."""
        first, *seeds = draws.split(seed, 1 + len(self.parts))
        pairs = zip(self.parts, seeds, strict=True)
        return {
            "choice": draws.integers(first, (count,), 0, len(self.parts)),
            "parts": tuple(part.draw(one, count) for part, one in pairs),
        }

    def start(self, data):
        """The start of the chosen family."""
        return self._select(
            data, [part.start(own) for part, own in self._pairs(data)]
        )

    def argmin(self, data):
        """The minimiser of the chosen family; None if one is unknown."""
        points = [part.argmin(own) for part, own in self._pairs(data)]
        return None if None in points else self._select(data, points)

    def full_loss(self, data, params):
        """Losses [B]."""
        losses = []
        for k, (part, own) in enumerate(self._pairs(data)):
            chosen = data["choice"] == k
            mine = tuple(
                tf.where(per_instance(chosen, tensor), tensor, start)
                for tensor, start in zip(params, part.start(own), strict=True)
            )
            loss = part.full_loss(own, mine)
            losses.append(tf.where(chosen, loss, tf.zeros_like(loss)))
        return sum(losses)

    def _pairs(self, data):
        return zip(self.parts, data["parts"], strict=True)

    def _select(self, data, points):
        """The parameters of the chosen family."""
        result = points[0]
        for k, point in enumerate(points[1:], 1):
            chosen = data["choice"] == k
            result = tuple(
                tf.where(per_instance(chosen, new), new, old)
                for new, old in zip(point, result, strict=True)
            )
        return result
