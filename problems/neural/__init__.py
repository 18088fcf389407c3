"""Small networks: never in the set `paper`, some of them in the set `wide`.

The digits networks are Keras models on real pictures, and `OnPictures` is a
family on real pictures: both are for evaluation, and in no set. All others are
families on synthetic data, many instances at once.
"""

from problems.neural.convnet import ConvNet
from problems.neural.digits import digits_convnet, digits_mlp
from problems.neural.mlp import MLP
from problems.neural.on_pictures import OnPictures, pooled
from problems.neural.residual import Residual
from problems.neural.sequence import Bigram, Recurrent

__all__ = [
    "MLP",
    "Bigram",
    "ConvNet",
    "OnPictures",
    "Recurrent",
    "Residual",
    "digits_convnet",
    "digits_mlp",
    "pooled",
]
