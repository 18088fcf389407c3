"""Large tables of which each step uses few rows: words, and pairs of words."""

import collections
import functools
import re

import keras
import numpy as np
from keras import layers

from training.evaluation.practice import text
from training.evaluation.practice.sources import Endless, Rows
from training.evaluation.practice.task import (
    DECISION,
    FINAL,
    Task,
    classification,
    regression,
)
from training.evaluation.rivals import OUTPUT

WORDS = 20_000
"""Rows of the table of words; the last one stands for all rarer words."""

_WINDOW = 24
_MODULES = 60


@functools.lru_cache(maxsize=1)
def _words():
    """Words of every module, as indices by frequency."""
    by_module = {
        name: re.findall(r"\w+|[^\w\s]", written)
        for name, written in text.sources().items()
    }
    counts = collections.Counter()
    for words in by_module.values():
        counts.update(words)
    # Ties are broken by the alphabet, not by the order of files.
    order = sorted(counts, key=lambda word: (-counts[word], word))[: WORDS - 1]
    index = {word: k for k, word in enumerate(order)}
    return {
        name: np.array([index.get(w, WORDS - 1) for w in words], np.int32)
        for name, words in by_module.items()
    }


def modules() -> Endless:
    """Words, and which of the largest modules and packages they are from."""
    by_module = _words()
    largest = sorted(by_module, key=lambda name: -len(by_module[name]))
    split = [text.parts(by_module[name], 128) for name in largest[:_MODULES]]

    def make(generator, count, held_out):
        y = generator.integers(0, len(split), count).astype("int32")
        x = [
            text.windows(split[k][int(held_out)], generator, 1, _WINDOW)
            for k in y
        ]
        return np.concatenate(x), y

    return Endless(make, batch=32)


def _pooling():
    return keras.Sequential(
        [
            layers.Input((_WINDOW,), dtype="int32"),
            layers.Embedding(WORDS, 8),
            layers.GlobalAveragePooling1D(),
            layers.Dense(32, activation="relu"),
            layers.Dense(_MODULES, name=OUTPUT),
        ]
    )


_FACTORED = 3_000
_REACH = 4


def pairs() -> Rows:
    """How often frequent words occur near each other, on a log scale."""
    by_module = _words()
    sums = collections.Counter()
    for words in by_module.values():
        for distance in range(1, _REACH + 1):
            left, right = words[:-distance], words[distance:]
            both = (left < _FACTORED) & (right < _FACTORED)
            keys = left[both].astype(int) * _FACTORED + right[both]
            sums.update(keys.tolist())
    keys = np.array(sorted(key for key, n in sums.items() if n > 1))
    logs = np.log([sums[key] for key in keys.tolist()]).astype("float32")
    x = np.stack(np.divmod(keys, _FACTORED), axis=1).astype("int32")
    # Neighbouring keys are alike: every tenth one is held out.
    held = np.arange(len(keys)) % 10 == 9
    y = logs[:, None]
    return Rows(x[~held], y[~held], x[held][:4096], y[held][:4096], 64)


def _factors():
    inputs = keras.Input((2,), dtype="int32")
    first, second = inputs[:, 0], inputs[:, 1]
    product = layers.Dot(1)(
        [layers.Embedding(_FACTORED, 16)(x) for x in (first, second)]
    )
    biases = [layers.Embedding(_FACTORED, 1)(x) for x in (first, second)]
    return keras.Model(inputs, layers.Add()([product, *biases]))


TASKS = (
    Task(
        name="text_embedding",
        about="pooled embedding of 20,000 words, Python's sources",
        half=DECISION,
        source=modules,
        network=_pooling,
        objective=classification(),
        classifies=True,
        digest=text.digest_of_sources,
    ),
    Task(
        name="factorization",
        about="matrix factorization, pairs of 3,000 words",
        half=FINAL,
        source=pairs,
        network=_factors,
        objective=regression(),
        digest=text.digest_of_sources,
    ),
)
