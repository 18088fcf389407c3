"""Recurrent networks: characters, and noisy waves."""

import keras
import numpy as np
from keras import layers

from training.evaluation.practice import text
from training.evaluation.practice.sources import Endless
from training.evaluation.practice.task import (
    DECISION,
    FINAL,
    Task,
    classification,
    regression,
)
from training.evaluation.rivals import OUTPUT


def next_characters(written: str, length: int, batch: int) -> Endless:
    """Windows of a text, and the same windows one character later.

    Args:
        written: the text.
        length: characters of a window.
        batch: windows of a minibatch.
    """
    kept, held = text.parts(text.indices(written))

    def make(generator, count, held_out):
        sequence = held if held_out else kept
        found = text.windows(sequence, generator, count, length + 1)
        return found[:, :-1], found[:, 1:]

    return Endless(make, batch, held=512)


def _lstm():
    return keras.Sequential(
        [
            layers.Input((24,), dtype="int32"),
            layers.Embedding(text.CHARACTERS, 32),
            layers.LSTM(80, return_sequences=True, unroll=True),
            layers.Dense(text.CHARACTERS, name=OUTPUT),
        ]
    )


def waves(generator, count, held_out):
    """Damped waves with noise, and a later value without noise.

    Returns:
        The first 20 values [count, 20, 1], and the 4th after them [count, 1].
    """
    shape = (count, 1)
    frequency = generator.uniform(0.2, 1.0, shape)
    phase = generator.uniform(0, 2 * np.pi, shape)
    decay = generator.uniform(0.0, 0.05, shape)
    size = generator.uniform(0.5, 2.0, shape)
    n = np.arange(24)
    clean = size * np.exp(-decay * n) * np.sin(frequency * n + phase)
    noisy = clean[:, :20] + 0.2 * generator.normal(size=(count, 20))
    return noisy[..., None].astype("float32"), clean[:, 23:].astype("float32")


def _tiny():
    return keras.Sequential(
        [
            layers.Input((20, 1)),
            layers.SimpleRNN(16, unroll=True),
            layers.Dense(1, name=OUTPUT),
        ]
    )


TASKS = (
    Task(
        name="char_lstm",
        about="LSTM on characters, Python's manual",
        half=DECISION,
        source=lambda: next_characters(text.documentation(), 24, batch=16),
        network=_lstm,
        objective=classification(),
        classifies=True,
        digest=text.digest_of_documentation,
    ),
    Task(
        name="tiny_rnn",
        about="RNN of 16 units foretells noisy waves",
        half=FINAL,
        source=lambda: Endless(waves, batch=32),
        network=_tiny,
        objective=regression(),
    ),
)
