"""The nine test functions of section 4.1.1.

Formulas, domains and minima are those of Surjanovic and Bingham's Virtual
Library of Simulation Experiments (2013), rearranged into sums of terms that
are never negative, so that the minimum is zero in float32 too. Each docstring
has the usual form first, then ours.
"""

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

from problems import draws, safe
from problems.family import Family, VectorFamily


def rosenbrock(x, y):
    """(1 - x)^2 + 100 (y - x^2)^2."""
    return (1.0 - x) ** 2 + 100.0 * (y - x**2) ** 2


def ackley(x, y):
    """-20 exp(-0.2 rho) - exp((cos 2 pi x + cos 2 pi y) / 2) + e + 20.

    With rho = sqrt((x^2 + y^2) / 2). Ours: 20 (1 - exp(-0.2 rho))
    + e (1 - exp(-sin^2 pi x - sin^2 pi y)). At the minimum, a cone's tip, the
    gradient is set to zero.
    """
    rho = safe.sqrt(0.5 * (x**2 + y**2))
    waves = tf.sin(math.pi * x) ** 2 + tf.sin(math.pi * y) ** 2
    return -20.0 * tf.math.expm1(-0.2 * rho) - math.e * tf.math.expm1(-waves)


def beale(x, y):
    """Sum of (1.5 - x + x y)^2, (2.25 - x + x y^2)^2, (2.625 - x + x y^3)^2."""
    return (
        (1.5 - x + x * y) ** 2
        + (2.25 - x + x * y**2) ** 2
        + (2.625 - x + x * y**3) ** 2
    )


def booth(x, y):
    """(x + 2 y - 7)^2 + (2 x + y - 5)^2."""
    return (x + 2.0 * y - 7.0) ** 2 + (2.0 * x + y - 5.0) ** 2


# Where t^4 - 16 t^2 + 5 t is least: the smallest root of 4 t^3 - 32 t + 5.
STYBLINSKI_TANG = -2.903534027771177


def styblinski_tang(x, y):
    """(x^4 - 16 x^2 + 5 x + y^4 - 16 y^2 + 5 y) / 2 + 78.33233.

    The quartic of each coordinate has a double root at a = -2.9035340 once its
    minimum is subtracted. Ours: (t - a)^2 ((t + a)^2 + 2 a^2 - 16) / 2.
    """
    a = STYBLINSKI_TANG

    def term(t):
        return 0.5 * (t - a) ** 2 * ((t + a) ** 2 + (2.0 * a * a - 16.0))

    return term(x) + term(y)


def matyas(x, y):
    """0.26 (x^2 + y^2) - 0.48 x y. Ours: (x - y)^2 / 4 + (x + y)^2 / 100."""
    return 0.25 * (x - y) ** 2 + 0.01 * (x + y) ** 2


def branin(x, y):
    """(y - b x^2 + c x - 6)^2 + 10 (1 - t) cos x + 10 - 0.397887.

    With b = 5.1 / (4 pi^2), c = 5 / pi, t = 1 / (8 pi). Ours:
    (...)^2 + 20 (1 - t) cos^2(x / 2).
    """
    b, c, t = 5.1 / (4.0 * math.pi**2), 5.0 / math.pi, 1.0 / (8.0 * math.pi)
    valley = y - b * x**2 + c * x - 6.0
    return valley**2 + 20.0 * (1.0 - t) * tf.cos(0.5 * x) ** 2


# Where sin(x) sin(x^2 / pi)^20 is largest in [0, pi], and its value there.
MICHALEWICZ_X, MICHALEWICZ_PEAK = 2.20290552014618, 0.80130341009855


def michalewicz(x, y):
    """-sin(x) sin(x^2 / pi)^20 - sin(y) sin(2 y^2 / pi)^20 + 1.8013034.

    It is defined on [0, pi]^2; further out it falls below its minimum. Our
    rule: outside, the value at the nearest point of the square plus the
    squared distance to it. The largest value of the second term is 1.
    """

    def term(t, i, peak):
        inside = tf.clip_by_value(t, 0.0, math.pi)
        wave = tf.sin(inside) * tf.sin(i * inside**2 / math.pi) ** 20
        # The difference of two rounded numbers may be -6e-8: cut at 0.
        return tf.maximum(peak - wave, 0.0) + (t - inside) ** 2

    return term(x, 1.0, MICHALEWICZ_PEAK) + term(y, 2.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Function2D(Family):
    """A function of two variables, from a random point of its usual domain.

    Args:
        name: name of the function.
        function: a function of x and y, [B] each; never negative.
        low: lower corner of the usual domain, where instances start.
        high: its upper corner.
        minimiser: a point where the function is zero.
    """

    name: str
    function: Callable
    low: tuple
    high: tuple
    minimiser: tuple

    shapes = ((2,),)

    def draw(self, seed, count):
        """Start points, uniform in the domain."""
        unit = draws.uniform(seed, (count, 2))
        low, high = tf.constant(self.low), tf.constant(self.high)
        return {"start": (low + (high - low) * unit,)}

    def full_loss(self, data, params):
        """The function at [B, 2]."""
        del data
        return self.function(params[0][:, 0], params[0][:, 1])

    def argmin(self, data):
        """The minimiser, once for each instance."""
        return (tf.zeros_like(data["start"][0]) + tf.constant(self.minimiser),)


@dataclasses.dataclass(frozen=True)
class LogSumExp(VectorFamily):
    """log sum_j exp(a_j . (theta - c)) over rows a_j that come as +-a_j.

    That is log(mean_j cosh(a_j . (theta - c))) once its minimum, log(2 terms),
    is subtracted: zero at theta = c.

    Args:
        dim: number of parameters.
        terms: number of rows; at least `dim`, for a single minimum.
    """

    dim: int = 2
    terms: int = 4
    name: str = "log_sum_exp"

    def draw(self, seed, count):
        """Normal rows, centres and start points."""
        rows, centre, start = draws.split(seed, 3)
        return {
            "rows": draws.normal(rows, (count, self.terms, self.dim)),
            "centre": draws.normal(centre, (count, self.dim)),
            "start": (3.0 * draws.normal(start, (count, self.dim)),),
        }

    def full_loss(self, data, params):
        """Losses [B]."""
        offset = params[0] - data["centre"]
        return safe.log_mean_cosh(tf.linalg.matvec(data["rows"], offset))

    def argmin(self, data):
        """The centre."""
        return (data["centre"],)


FUNCTIONS = (
    Function2D("rosenbrock", rosenbrock, (-2.0, -2.0), (2.0, 2.0), (1.0, 1.0)),
    Function2D("ackley", ackley, (-5.0, -5.0), (5.0, 5.0), (0.0, 0.0)),
    Function2D("beale", beale, (-4.5, -4.5), (4.5, 4.5), (3.0, 0.5)),
    Function2D("booth", booth, (-10.0, -10.0), (10.0, 10.0), (1.0, 3.0)),
    Function2D(
        "styblinski_tang",
        styblinski_tang,
        (-5.0, -5.0),
        (5.0, 5.0),
        (STYBLINSKI_TANG, STYBLINSKI_TANG),
    ),
    Function2D("matyas", matyas, (-10.0, -10.0), (10.0, 10.0), (0.0, 0.0)),
    Function2D("branin", branin, (-5.0, 0.0), (10.0, 15.0), (math.pi, 2.275)),
    Function2D(
        "michalewicz",
        michalewicz,
        (0.0, 0.0),
        (math.pi, math.pi),
        (MICHALEWICZ_X, math.pi / 2.0),
    ),
)
