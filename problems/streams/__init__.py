"""Streams of data that never repeat, to train students of many kinds on.

`Labels` and `Values` have a teacher of the student's shape, `Templates` and
`Autoencoder` make pictures, `Text`, `Topics` and `Ratings` use tables of
vectors.
`networks` and `sequences` have the students.
"""

from problems.streams.inputs import Correlated, Words
from problems.streams.networks import Convolutional, Dense
from problems.streams.sequences import BagOfWords, Sequential
from problems.streams.stream import Labels, Stream, Values
from problems.streams.tables import Ratings, Text
from problems.streams.templates import Autoencoder, Templates
from problems.streams.topics import Topics

__all__ = [
    "Autoencoder",
    "BagOfWords",
    "Convolutional",
    "Correlated",
    "Dense",
    "Labels",
    "Ratings",
    "Sequential",
    "Stream",
    "Templates",
    "Text",
    "Topics",
    "Values",
    "Words",
]
