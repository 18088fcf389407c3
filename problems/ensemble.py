"""The sets of problems to meta-train on (section 4.1), as tables.

Each row is one family, so one compiled program. The weight is the row's share
of the meta-iterations. Every row has a random linear change of variables and a
random scale of the loss: without them step lengths that suit parameters of size
one are memorized and are useless on networks.
"""

from typing import NamedTuple

from problems.classic import FUNCTIONS, LogSumExp
from problems.combinations import Choice, Sum
from problems.convex import (
    LogisticRegression,
    Norm,
    Quadratic,
    SoftmaxRegression,
)
from problems.family import Family
from problems.matrices import MatrixFactorization, MatrixProduct
from problems.minibatch import MinibatchQuadratic
from problems.monotone import Log1p, Power, Scaled
from problems.neural import MLP, Bigram, ConvNet, Recurrent, Residual
from problems.registry import unknown
from problems.slow import (
    DependencyChain,
    MinMax,
    OscillatingValley,
    RosenbrockChain,
)
from problems.streams.rows import LINEAR, NETWORKS
from problems.transforms import GradientNoise, Reparametrized, SparseGradient


class Row(NamedTuple):
    """One line of a set."""

    name: str
    weight: float  # share of the meta-iterations; those of a set sum to 1
    family: Family


def anywhere(family: Family, decades: float = 0.0) -> Family:
    """Adds the random change of variables and scale that every row has.

    Args:
        family: family to wrap.
        decades: number of decades that the scales of single parameters spread
            over.
    """
    return Scaled(Reparametrized(family, parameter=decades))


def nearby(family: Family) -> Family:
    """As `anywhere`, in a narrower range: networks start within two decades."""
    return Scaled(Reparametrized(family, instance=2.0, tensor=0.5))


def _streams(rows) -> tuple:
    return tuple(
        (name, weight, nearby(family)) for name, weight, family in rows
    )


PLANE = Choice(FUNCTIONS, "plane")
CHAINS = Choice((DependencyChain(), RosenbrockChain(), Norm()), "chains")
TASKS = (PLANE, Quadratic(5), PLANE)
MIXED = (LogisticRegression(10, 128), MinMax(10), MatrixProduct(4, 2))

# name, weight relative to the others, family.
_PAPER = (
    ("plane", 6, anywhere(PLANE)),
    ("plane_noisy", 5, anywhere(GradientNoise(PLANE))),
    ("plane_power", 4, anywhere(Power(PLANE), 2.0)),
    ("log_sum_exp", 4, anywhere(LogSumExp(10, 20))),
    ("quadratic_20", 6, anywhere(Quadratic(20))),
    ("quadratic_20_noisy", 6, anywhere(GradientNoise(Quadratic(20)), 1.0)),
    ("quadratic_100", 3, anywhere(Quadratic(100), 2.0)),
    ("minibatch_quadratic", 5, anywhere(MinibatchQuadratic())),
    ("oscillating_valley", 6, anywhere(OscillatingValley())),
    ("chains", 6, anywhere(CHAINS)),
    ("min_max", 4, anywhere(MinMax())),
    # From here on, more than one tensor: nearly half of the weight.
    ("logistic", 7, anywhere(LogisticRegression())),
    ("logistic_overlapping", 6, anywhere(LogisticRegression(flipped=0.2))),
    ("softmax", 7, anywhere(SoftmaxRegression())),
    ("softmax_wide", 2, anywhere(SoftmaxRegression(99, 20))),
    ("matrix_factorization", 6, anywhere(MatrixFactorization(), 1.0)),
    ("matrix_product_log1p", 5, anywhere(Log1p(MatrixProduct()))),
    ("tasks", 6, anywhere(Sum(TASKS))),
    ("tasks_sparse", 6, anywhere(SparseGradient(Sum(TASKS)))),
    ("mixed_noisy", 6, anywhere(GradientNoise(Sum(MIXED)))),
    # Minibatches of randomly generated data that never end (section 4.1.3).
    *_streams(LINEAR),
)

_NETWORKS = (
    ("mlp_sigmoid", 4, anywhere(MLP(activation="sigmoid"))),
    ("mlp_tanh", 5, anywhere(MLP(activation="tanh"))),
    ("mlp_relu", 7, anywhere(MLP((8, 16, 16, 4), "relu"))),
    ("mlp_relu_large", 3, anywhere(MLP((16, 32, 32, 10), "relu"))),
    ("mlp_gelu", 5, anywhere(MLP((8, 24, 4), "gelu"))),
    ("mlp_normalized", 6, anywhere(MLP((8, 16, 4), "relu", True))),
    (
        "mlp_regression",
        6,
        anywhere(MLP((4, 12, 12, 2), "tanh", regression=True)),
    ),
    (
        "mlp_regression_normalized",
        6,
        anywhere(MLP((10, 24, 24, 1), "gelu", True, regression=True, rows=400)),
    ),
    # Fewer rows than parameters, seen in many minibatches: the noise vanishes
    # only once all rows are memorized.
    (
        "mlp_memorizing",
        10,
        anywhere(MLP((6, 24, 24, 1), "gelu", True, regression=True, rows=128)),
    ),
    (
        "mlp_memorizing_large",
        6,
        anywhere(MLP((10, 32, 32, 1), "gelu", True, regression=True, rows=200)),
    ),
    ("mlp_memorizing_labels", 6, anywhere(MLP((8, 32, 6), "relu", rows=96))),
    ("mlp_sparse", 5, anywhere(MLP((24, 24, 24, 6), "relu", sparse=True))),
    ("convnet", 6, anywhere(ConvNet())),
    ("convnet_large", 2, anywhere(ConvNet((8, 16), 10))),
    ("residual", 1.5, anywhere(Residual())),
    # The head of a large network: many inputs that move logits together.
    (
        "softmax_positive",
        4,
        anywhere(SoftmaxRegression(200, 4, 128, positive=True)),
    ),
    ("recurrent", 5, anywhere(Recurrent())),
    ("bigram", 5, anywhere(Bigram())),
)

KEPT = (
    "plane", "plane_noisy", "quadratic_20", "quadratic_20_noisy",
    "minibatch_quadratic", "oscillating_valley", "logistic_overlapping",
    "matrix_factorization", "tasks_sparse", "mixed_noisy",
    "mlp_relu", "mlp_regression_normalized", "mlp_memorizing",
    "mlp_memorizing_labels", "mlp_sparse", "convnet", "residual", "recurrent",
    "bigram",
)  # fmt: skip
"""Rows other than streams that `wide` keeps, at half their weight, so that
problems which can be solved stay solved."""

# Streams of all kinds, and some problems that are not streams.
_WIDE = (
    *(
        (name, weight / 2, family)
        for name, weight, family in (*_PAPER, *_NETWORKS)
        if name in KEPT
    ),
    *_streams(LINEAR),
    *_streams(NETWORKS),
)

_SETS = {"paper": _PAPER, "wide": _WIDE}


def set_names() -> tuple:
    """Names of the sets."""
    return tuple(_SETS)


def meta_training_set(name: str) -> tuple:
    """The rows of a set.

    Args:
        name: "paper" (section 4.1: no neural network in it) or "wide" (part of
            it, small networks, and streams of all kinds).

    Raises:
        ValueError: no such set.
    """
    if name not in _SETS:
        raise ValueError(unknown("name", name, set_names()))
    rows = _SETS[name]
    total = sum(weight for _, weight, _ in rows)
    return tuple(
        Row(row, weight / total, family) for row, weight, family in rows
    )
