"""The two LSTM optimizers of Figure 3: their problems, and how they are made.

As in Andrychowicz et al. (2016): unrolls of 20 steps, 100 steps per problem on
average, the plain loss, no second derivatives.
"""

import functools

import numpy as np

from problems import Row, pictures
from problems.neural import MLP, ConvNet, OnPictures, pooled
from training.common.results import Results
from training.engine.config import MetaConfig
from training.figures import drawn
from training.figures.budgeted import meta_train
from training.figures.settings import Settings
from training.rules.lstm import LSTMRule

RULE = LSTMRule()

HORIZON = 100
"""Mean number of steps of a problem in meta-training."""

ROWS = 256
SGD_RATES = tuple(float(f"{r:.3g}") for r in np.logspace(-2, 1.5, 8))

CONFIG = MetaConfig(
    segment=20,
    mean_steps=1e-3,
    mean_unrolls=4.0,
    first_mean_unrolls=4.0,
    second_derivatives=False,
    log_objective=False,
    meta_rate=3e-3,
    meta_rate_end=1e-3,
    meta_rate_decay=1000,
    averaging=0.99,
)


@functools.lru_cache(maxsize=1)
def _bank(count: int, data_dir):
    return pictures.load("mnist", count, data_dir)


def problem(kind: str, activation: str, settings: Settings) -> OnPictures:
    """A network on MNIST, with pictures averaged over squares of pixels.

    Args:
        kind: "MLP", with one hidden layer of 20 units on 7 x 7 pixels (the
            first layer's weights are most of the cost), or "ConvNet", on
            14 x 14.
        activation: activation of the hidden layers.
        settings: settings that choose the pictures.
    """
    bank = _bank(settings.pictures, settings.data_dir)
    if kind == "MLP":
        network, side = MLP((49, 20, 10), activation, rows=ROWS), 7
    else:
        side = 14
        network = ConvNet(
            classes=10, rows=ROWS, side=side, activation=activation
        )
    x = pooled(bank.x_train, side)
    return OnPictures(network, x, bank.y_train)


def label(kind: str, activation: str, settings: Settings) -> str:
    """Name of a problem in the finished jobs."""
    return f"{activation} {kind}, {settings.pictures} pictures"


def trained(kind: str, settings: Settings, budget: float):
    """The optimizer meta-trained on the sigmoid network of one kind.

    Returns:
        The meta-parameters, and a dictionary that describes the run.
    """
    family = problem(kind, "sigmoid", settings)
    row = Row(label(kind, "sigmoid", settings), 1.0, family)
    path = settings.out / f"lstm_{kind.lower()}.npz"
    return meta_train(
        RULE, (row,), CONFIG, budget, path, f"LSTM, sigmoid {kind}"
    )


def beside_sgd(kind, vector, settings, count: int, results: Results) -> dict:
    """The LSTM and the best SGD on held-out draws of the LSTM's own problem.

    Returns:
        Median losses after `HORIZON` steps, and SGD's best rate.
    """
    family = problem(kind, "sigmoid", settings)
    name = label(kind, "sigmoid", settings)
    # The rule does not depend on the rate.
    lstm = drawn.learned(f"LSTM {kind}", RULE, vector, (1.0,))
    sgd = drawn.sgd(SGD_RATES)
    own, others = (
        drawn.quantiles(family, name, who, HORIZON, count, results)[1, :, -1]
        for who in (lstm, sgd)
    )
    best = int(np.argmin(others))
    return {
        "lstm": float(own[0]),
        "best_sgd": float(others[best]),
        "best_sgd_rate": SGD_RATES[best],
        "beats_sgd": bool(own[0] < others[best]),
    }
