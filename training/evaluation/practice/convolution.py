"""Convolutional classifiers: plain, VGG-like, residual."""

import keras
from keras import layers

from training.evaluation.practice import pictures
from training.evaluation.practice.task import (
    DECISION,
    FINAL,
    Task,
    classification,
)
from training.evaluation.rivals import OUTPUT


def _plain():
    """Seven convolutions without any normalization."""
    stack = [
        layers.Conv2D(
            filters, 3, strides=stride, padding="same", activation="relu"
        )
        for filters, stride in (
            (16, 1), (24, 2), (24, 1), (24, 1), (32, 2), (32, 1), (32, 1),
        )
    ]  # fmt: skip
    return keras.Sequential(
        [
            layers.Input((16, 16, 3)),
            *stack,
            layers.Flatten(),
            layers.Dense(10, name=OUTPUT),
        ]
    )


def _vgg():
    """Pairs of convolutions with batch normalization, then pooling."""
    stack = [layers.Input((16, 16, 3))]
    for filters in (12, 24, 48):
        for _ in range(2):
            stack += [
                layers.Conv2D(filters, 3, padding="same", use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
            ]
        stack.append(layers.MaxPooling2D())
    return keras.Sequential(
        [
            *stack,
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(10, name=OUTPUT),
        ]
    )


def _residual(shape, normalization):
    """A ResNet of one block per stage, as in He et al. (2016)."""
    inputs = keras.Input(shape)
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(normalization()(x))
    for filters, stride in ((16, 2), (24, 1), (32, 2)):
        y = layers.Conv2D(
            filters, 3, strides=stride, padding="same", use_bias=False
        )(x)
        y = layers.ReLU()(normalization()(y))
        y = layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
        y = normalization()(y)
        x = layers.Conv2D(filters, 1, strides=stride, use_bias=False)(x)
        x = layers.ReLU()(layers.Add()([normalization()(x), y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name=OUTPUT)(x))


TASKS = (
    Task(
        name="plain_convnet",
        about="ConvNet of 8 layers, not normalized, CIFAR-10",
        half=DECISION,
        source=lambda: pictures.classified("cifar10", 16, batch=16),
        network=_plain,
        pictures="cifar10",
        objective=classification(),
        classifies=True,
    ),
    Task(
        name="resnet_batch",
        about="ResNet with batch normalization, CIFAR-10",
        half=DECISION,
        source=lambda: pictures.classified("cifar10", 16, batch=16),
        network=lambda: _residual((16, 16, 3), layers.BatchNormalization),
        pictures="cifar10",
        objective=classification(),
        classifies=True,
    ),
    Task(
        name="vgg_batch",
        about="VGG-like, batch normalization, dropout, CIFAR-10",
        half=FINAL,
        source=lambda: pictures.classified("cifar10", 16, batch=16),
        network=_vgg,
        pictures="cifar10",
        objective=classification(),
        classifies=True,
    ),
    Task(
        name="resnet_group",
        about="ResNet with group normalization, Fashion-MNIST",
        half=FINAL,
        source=lambda: pictures.classified("fashion_mnist", 14, batch=16),
        network=lambda: _residual(
            (14, 14, 1), lambda: layers.GroupNormalization(8)
        ),
        pictures="fashion_mnist",
        objective=classification(),
        classifies=True,
    ),
)
