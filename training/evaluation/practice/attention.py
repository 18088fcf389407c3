"""Transformers: of characters, and of patches of pictures."""

import keras
from keras import layers, ops

from training.evaluation.practice import pictures, text
from training.evaluation.practice.recurrent import next_characters
from training.evaluation.practice.task import (
    DECISION,
    FINAL,
    Task,
    classification,
)
from training.evaluation.rivals import OUTPUT


class Positions(layers.Layer):
    """Adds a learned vector at every position of a sequence."""

    def build(self, shape):
        """Makes one vector per position."""
        self.vectors = self.add_weight(
            shape=shape[1:], initializer="random_normal", name="positions"
        )

    def call(self, x):
        """The sum."""
        return x + self.vectors


def _block(x, width, heads, causal):
    """A pre-norm Transformer block: residual attention and MLP."""
    y = layers.LayerNormalization()(x)
    y = layers.MultiHeadAttention(heads, width // heads)(
        y, y, use_causal_mask=causal
    )
    x = layers.Add()([x, y])
    y = layers.LayerNormalization()(x)
    y = layers.Dense(2 * width, activation="gelu")(y)
    return layers.Add()([x, layers.Dense(width)(y)])


def _characters(length=32, width=48, heads=4, blocks=2):
    inputs = keras.Input((length,), dtype="int32")
    x = Positions()(layers.Embedding(text.CHARACTERS, width)(inputs))
    for _ in range(blocks):
        x = _block(x, width, heads, causal=True)
    x = layers.LayerNormalization()(x)
    return keras.Model(inputs, layers.Dense(text.CHARACTERS, name=OUTPUT)(x))


def _patches(side=16, patch=4, width=48, heads=4, blocks=3):
    inputs = keras.Input((side, side, 3))
    x = layers.Conv2D(width, patch, strides=patch)(inputs)
    x = Positions()(ops.reshape(x, (-1, (side // patch) ** 2, width)))
    for _ in range(blocks):
        x = _block(x, width, heads, causal=False)
    x = layers.LayerNormalization()(layers.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, layers.Dense(10, name=OUTPUT)(x))


def _library():
    return next_characters("".join(text.sources().values()), 32, batch=16)


TASKS = (
    Task(
        name="char_transformer",
        about="Transformer on characters, Python's sources",
        half=DECISION,
        source=_library,
        network=_characters,
        objective=classification(),
        classifies=True,
        compiled=True,
        digest=text.digest_of_sources,
    ),
    Task(
        name="vit",
        about="Vision Transformer, CIFAR-10",
        half=FINAL,
        source=lambda: pictures.classified("cifar10", 16, batch=16),
        network=_patches,
        pictures="cifar10",
        objective=classification(),
        classifies=True,
        compiled=True,
    ),
)
