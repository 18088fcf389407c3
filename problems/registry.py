"""Problems by name."""

import difflib

from problems.classic import FUNCTIONS, LogSumExp
from problems.convex import (
    LogisticRegression,
    Norm,
    Quadratic,
    SoftmaxRegression,
)
from problems.family import Family
from problems.matrices import MatrixFactorization, MatrixInverse, MatrixProduct
from problems.minibatch import MinibatchQuadratic
from problems.neural import MLP, Bigram, ConvNet, Recurrent, Residual
from problems.slow import (
    DependencyChain,
    MinMax,
    OscillatingValley,
    RosenbrockChain,
)
from problems.streams import (
    Autoencoder,
    BagOfWords,
    Correlated,
    Dense,
    Labels,
    Ratings,
    Templates,
    Text,
    Topics,
    Values,
)

_FAMILIES: dict[str, Family] = {}


def register(family: Family) -> Family:
    """Registers a family by its name.

    Raises:
        TypeError: `family` is not a `Family`.
        ValueError: the name is taken.
    """
    if not isinstance(family, Family):
        raise TypeError(
            "Argument `family` must be an instance of problems.Family. "
            f"Received: family={family!r}"
        )
    if family.name in _FAMILIES:
        raise ValueError(
            "Argument `family` must have a name that is not taken. "
            f"Received: family.name={family.name!r}"
        )
    _FAMILIES[family.name] = family
    return family


def names() -> tuple:
    """Names of all families, in the order they were registered."""
    return tuple(_FAMILIES)


def get(name: str) -> Family:
    """The family with this name.

    Raises:
        ValueError: there is no such family; the message lists the nearest
            names.
    """
    if name not in _FAMILIES:
        raise ValueError(unknown("name", name, names()))
    return _FAMILIES[name]


def unknown(argument: str, name, known) -> str:
    """The message for a name that is not known."""
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
    hint = f"The nearest are {near}" if near else f"There are {list(known)}"
    return (
        f"Argument `{argument}` must be a known name. {hint}. "
        f"Received: {argument}={name!r}"
    )


for _family in (
    *FUNCTIONS,
    LogSumExp(),
    Quadratic(5),
    Quadratic(20),
    Quadratic(100),
    Norm(),
    LogisticRegression(),
    LogisticRegression(flipped=0.2),
    SoftmaxRegression(),
    SoftmaxRegression(positive=True),
    MinibatchQuadratic(),
    OscillatingValley(),
    DependencyChain(),
    RosenbrockChain(),
    MinMax(),
    MatrixFactorization(),
    MatrixProduct(),
    MatrixInverse(),
    MLP(activation="sigmoid"),
    MLP(activation="tanh"),
    MLP(activation="relu"),
    MLP((8, 16, 16, 4), activation="gelu"),
    MLP((8, 16, 16, 4), activation="relu", normalized=True),
    MLP((4, 12, 12, 2), activation="tanh", regression=True),
    ConvNet(),
    Residual(),
    Recurrent(),
    Bigram(),
    *(
        family(network, Correlated(network.inputs))
        for family, network in (
            (Labels, Dense((8, 16, 4))),
            (Values, Dense((4, 8, 2), "tanh")),
            (Values, Dense((16, 1))),
        )
    ),
    Templates(Dense((16, 12, 6))),
    Templates(Dense((16, 12, 16)), denoise=True),
    Autoencoder(Dense((12, 6, 12), "sigmoid")),
    Text("dense"),
    Topics(BagOfWords(30, 4, 6, 5), topics=5, length=6),
    Ratings(),
):
    register(_family)
