"""Families of the registry and of the sets, drawn once for all tests."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

import problems

COUNT = 3


def features(part):
    """Classes in a family, and the choices that each of them was given.

    Of a number it only matters whether it is zero, of a string its value.
    """
    if isinstance(part, tuple):
        for one in part:
            yield from features(one)
    elif dataclasses.is_dataclass(part):
        yield type(part)
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if field.name == "name":
                continue
            if isinstance(value, str):
                yield type(part), field.name, value
            elif isinstance(value, (bool, int, float)):
                yield type(part), field.name, bool(value)
            else:
                yield from features(value)


def cases():
    """All families of the registry, and the rows of sets that add a feature.

    Names say where a case comes from. A row is left out if all its features
    occur in earlier cases, since dimensions do not change what is tested.
    """
    found = {name: problems.get(name) for name in problems.names()}
    seen = {x for family in found.values() for x in features(family)}
    for name in problems.set_names():
        for row in problems.meta_training_set(name):
            new = set(features(row.family)) - seen
            if new:
                found[f"{name}/{row.name}"] = row.family
                seen |= new
    return found


CASES = cases()
everywhere = pytest.mark.parametrize("name", CASES)
noise_free = pytest.mark.parametrize(
    "name", [name for name, family in CASES.items() if not family.noisy]
)


@functools.lru_cache
def drawn(name, seed=0):
    """Instances, and two batches."""
    problem = CASES[name].instances(seed, COUNT)
    return problem, problem.batch(11), problem.batch(12)


def wrappers(family):
    """A family and those it wraps, from the outside in."""
    yield family
    while isinstance(family, problems.Wrapper):
        family = family.inner
        yield family


def sample(problem, scale, seed=0):
    """A point of this scale, in the variables before any change of them."""
    rng = np.random.default_rng(seed)
    family, data = problem
    point = [
        tf.constant(scale * rng.normal(size=(COUNT, *shape)), tf.float32)
        for shape in family.shapes
    ]
    for layer in wrappers(family):
        if isinstance(layer, problems.Reparametrized):
            point = [a / b for a, b in zip(point, data["scales"], strict=True)]
        data = data["inner"] if isinstance(layer, problems.Wrapper) else data
    return tuple(point)


def points(name):
    problem = drawn(name)[0]
    found = [problem.start, *(sample(problem, s) for s in (1e-3, 1.0, 10.0))]
    return found if problem.argmin is None else [*found, problem.argmin]


def differs(a, b):
    pairs = zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True)
    return any(np.any(x.numpy() != y.numpy()) for x, y in pairs)


def assert_all_close(a, b, rtol):
    """Relative to the largest entry of each instance and tensor.

    Values that cancel, such as the gradient of a bias before a normalization,
    consist of rounding errors only, so a share of the largest entry of all
    tensors is allowed for them.
    """
    sizes = [np.abs(y) for y in tf.nest.flatten(b)]
    largest = [np.max(s, axis=tuple(range(1, s.ndim))) for s in sizes]
    rounding = 1e-7 * functools.reduce(np.maximum, largest, 0.0)
    for x, y, size in zip(
        tf.nest.flatten(a), tf.nest.flatten(b), largest, strict=True
    ):
        allowed = rtol * size + rounding + 1e-30
        assert np.all(np.abs(x - y) <= np.reshape(
            allowed, (-1,) + (1,) * (y.ndim - 1)
        ))  # fmt: skip


def inside(problem):
    """The problem that a transform was applied to, with the same data."""
    return problems.Problem(problem.family.inner, problem.data["inner"])


def column(values, tensor):
    """[B] in the shape of a [B, ...] tensor, in float64."""
    return np.reshape(values, (-1,) + (1,) * (len(tensor.shape) - 1)).astype(
        "float64"
    )


def assert_near(got, wanted, rtol=1e-5, atol=1e-7):
    got, wanted = tf.nest.flatten(got), tf.nest.flatten(wanted)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol, atol)
