"""The values of every family, against the usual formulas in float64."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import linprog

import problems
from problems.convex import coupling
from tests.problem_references import REFERENCES

PI = math.pi
# Constants from the literature: points and values, with minima subtracted.
POINTS = {
    "rosenbrock": {(1, 1): 0, (-1.2, 1): 24.2, (0, 0): 1, (2, 2): 401},
    "ackley": {(0, 0): 0, (1, 1): 3.6253849, (1, 0): 2.6375281},
    "beale": {(3, 0.5): 0, (0, 0): 14.203125, (1, 2): 126.453125},
    "booth": {(1, 3): 0, (0, 0): 74, (-1, 2): 41},
    "styblinski_tang": {
        (-2.903534, -2.903534): 0,
        (0, 0): 78.33233,
        (2.746803, 2.746803): 78.33233 - 50.05889,  # a local minimum
    },
    "matyas": {(0, 0): 0, (1, 1): 0.04, (1, -1): 1, (10, 10): 4},
    "branin": {
        (-PI, 12.275): 0,
        (PI, 2.275): 0,
        (9.42478, 2.475): 0,
        (0, 0): 55.602113 - 0.397887,
    },
    "michalewicz": {
        (2.20290552, PI / 2): 0,
        (0, 0): 1.8013034,
        (-1, PI + 2): 1.8013034 + 1 + 4,  # outside of its square
    },
}


def instance(nest, i):
    """Instance i of a nest [B, ...], in float64."""
    return tf.nest.map_structure(lambda t: np.float64(t[i]), nest)


def random_point(family, count, scale=1.0):
    rng = np.random.default_rng(5)
    return tuple(
        tf.constant(scale * rng.normal(size=(count, *shape)), tf.float32)
        for shape in family.shapes
    )


def test_every_family_has_a_row():
    assert set(REFERENCES) == set(problems.names())
    assert set(POINTS) == {f.name for f in problems.classic.FUNCTIONS}


@pytest.mark.parametrize("name", POINTS)
def test_known_points(name):
    points, values = zip(*POINTS[name].items(), strict=True)
    problem = problems.get(name).instances(0, len(points))
    params = (tf.constant(points, tf.float32),)
    # 3e-6: the literature's minima have six digits after the point.
    np.testing.assert_allclose(problem.full_loss(params), values, 1e-6, 3e-6)
    # Ours are exact: below what float32 can distinguish from zero, and the
    # known minimiser is where we say it is.
    assert np.all(problem.full_loss(problem.argmin).numpy() <= 1e-10)
    nearest = np.min(np.abs(problem.argmin[0][0] - np.array(points)), 0)
    np.testing.assert_allclose(nearest, 0, atol=1e-5)


@pytest.mark.parametrize("name", REFERENCES)
def test_full_loss(name):
    family = problems.get(name)
    problem = family.instances(3, 2)
    for params in (
        problem.start,
        random_point(family, 2),
        random_point(family, 2, 0.1),
    ):
        got = problem.full_loss(params).numpy()
        wanted = [
            REFERENCES[name](instance(problem.data, i), instance(params, i))
            for i in range(2)
        ]
        # float32 against float64: 1e-5 of the loss; 3e-6 is for minima of six
        # digits and for what cancels in networks' logits.
        np.testing.assert_allclose(got, wanted, 1e-5, 3e-6)


SETS = [n for n in REFERENCES if isinstance(problems.get(n), problems.DataSet)]


@pytest.mark.parametrize("name", SETS)
def test_minibatch_loss_is_the_mean_over_its_rows(name):
    family = problems.get(name)
    problem = family.instances(4, 3)
    batch = problem.batch(6)
    got = problem.loss(problem.start, batch).numpy()
    for i in range(3):
        data = instance(problem.data, i)
        size = min(int(data["batch_size"]), family.rows)
        rows = np.unique(batch["rows"][i][batch["weights"][i] > 0])
        assert len(rows) == size
        data |= {"x": data["x"][rows], "y": data["y"][rows]}
        wanted = REFERENCES[name](data, instance(problem.start, i))
        np.testing.assert_allclose(got[i], wanted, 1e-5)


def test_minibatch_quadratic_is_a_mean_of_squared_products():
    problem = problems.get("minibatch_quadratic").instances(4, 3)
    batch = problem.batch(6)
    got = problem.loss(problem.start, batch)
    for i in range(3):
        data, start = instance(problem.data, i), problem.start[0][i]
        signs = batch["signs"][i][: int(data["batch_size"])]
        v = [data["matrix"].T @ s for s in np.float64(signs)]
        wanted = np.mean(np.square(v @ np.float64(start)))
        np.testing.assert_allclose(got[i], wanted, 1e-5)


@pytest.mark.parametrize("dim", [1, 2, 20])
@pytest.mark.parametrize("kappa", [1.0, 1e2, 1e4])
def test_condition_number_is_the_one_asked_for(dim, kappa):
    log = math.log10(kappa)
    matrix = np.float64(coupling(7, 5, dim, log, log))
    eigenvalues = np.linalg.eigvalsh(np.swapaxes(matrix, 1, 2) @ matrix)
    # 1e-6 of the largest: U is orthogonal to within float32.
    if dim > 1:
        np.testing.assert_allclose(eigenvalues[:, -1], 1, 1e-5)
        np.testing.assert_allclose(eigenvalues[:, 0], 1 / kappa, 1e-2, 1e-6)
    assert np.all(eigenvalues > 0.9 / kappa)
    assert np.all(eigenvalues < 1 + 1e-5)


def test_condition_numbers_spread_over_the_range():
    matrix = np.float64(problems.get("quadratic_20").draw(1, 200)["matrix"])
    values = np.linalg.svd(matrix, compute_uv=False)
    kappa = 2 * np.log10(values[:, 0] / values[:, -1])
    assert kappa.min() > -1e-3 and kappa.max() < 4.01
    # Uniform in [0, 4]: mean 2, standard deviation 4 / sqrt(12), 5 sigma.
    assert abs(kappa.mean() - 2) < 5 * 4 / math.sqrt(12 * 200)


def separator(differences):
    """The smallest max-norm w with w . difference >= 1, or None."""
    n = differences.shape[1]
    # Variables w and t: minimise t subject to |w_i| <= t.
    bound = -np.ones((n, 1))
    result = linprog(
        np.eye(n + 1)[n],
        np.block(
            [
                [-differences, np.zeros((len(differences), 1))],
                [np.eye(n), bound],
                [-np.eye(n), bound],
            ]
        ),
        np.concatenate([-np.ones(len(differences)), np.zeros(2 * n)]),
        bounds=(None, None),
    )
    return result.x[:n] if result.status == 0 else None


@pytest.mark.parametrize("overlap", [False, True])
def test_classes_are_separable_unless_labels_are_flipped(overlap):
    name = "logistic_regression" + ("_overlapping" if overlap else "")
    data = problems.get(name).draw(2, 6)
    margins = []
    for i in range(6):
        x, y = np.float64(data["x"][i]), np.float64(data["y"][i])
        w = separator(y[:, None] * np.hstack([x, np.ones((len(x), 1))]))
        assert (w is None) == overlap
        if not overlap:
            margins.append(1 / np.linalg.norm(w[:-1]))
    if not overlap:
        assert min(margins) > 0 and max(margins) > 0.2


def test_softmax_classes_are_separable():
    data = instance(problems.get("softmax_regression").draw(2, 1), 0)
    rows = []
    for x, label in zip(data["x"], data["y"].astype(int), strict=True):
        for other in set(range(5)) - {label}:
            row = np.zeros((5, 11))
            row[label], row[other] = [*x, 1], [*-x, -1]
            rows.append(row.ravel())
    assert separator(np.array(rows)) is not None


def test_oscillating_valley_falls_to_zero_on_its_floor():
    problem = problems.get("oscillating_valley").instances(0, 20)
    data = {k: np.float64(v) for k, v in problem.data.items() if k != "start"}
    for lengths, loss in ((0, math.log(2)), (3, 0.0485874), (30, 0)):
        along = np.float32(lengths * data["length"])[:, None]
        angle = along / data["wave"] + data["phase"]
        floor = data["amplitude"] * np.sin(angle)
        point = tf.constant(np.hstack([along, floor]), tf.float32)
        got = problem.full_loss((point,))
        # Angles up to 3,000 have an error of 1e-4 in float32, here squared.
        np.testing.assert_allclose(got, loss, 1e-5, 1e-7)


def test_matrices_to_invert():
    data = problems.get("matrix_inverse").draw(8, 20)
    matrix, inverse = np.float64(data["matrix"]), np.float64(data["inverse"])
    values = np.linalg.svd(matrix, compute_uv=False)
    assert values.min() > 0.1 - 1e-5 and values.max() < 1 + 1e-5
    assert values.min() < 0.15 and values.max() > 0.9
    np.testing.assert_allclose(inverse @ matrix - np.eye(6), 0, atol=1e-5)
