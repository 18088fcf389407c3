"""The registry, the meta-training sets, and any optimizer on a problem."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import problems
from hrnn_opt import HierarchicalRNN
from problems import neural, registry, streams
from problems.convex import Quadratic


class Parabola(problems.Family):
    """A user's own family."""

    name = "parabola"
    shapes = ((3,),)

    def draw(self, seed, count):
        return {"start": (problems.draws.normal(seed, (count, 3)),)}

    def full_loss(self, data, params):
        return tf.reduce_sum(params[0] ** 2, axis=-1)


@pytest.fixture
def parabola():
    family = problems.register(Parabola())
    yield family
    del registry._FAMILIES["parabola"]


def test_own_family(parabola):
    assert problems.names()[-1] == "parabola"
    assert problems.get("parabola") is parabola
    problem = parabola.instances(seed=0, count=4)
    batch = problem.batch(seed=1)
    loss, (gradient,) = problem.loss_and_gradient(problem.start, batch)
    start = problem.start[0].numpy()
    np.testing.assert_allclose(loss, np.sum(start**2, axis=1), 1e-6)
    np.testing.assert_array_equal(gradient, 2 * start)
    assert problem.argmin is None and parabola.dimension == 3
    wrapped = problems.Scaled(problems.Reparametrized(parabola))
    assert np.all(np.isfinite(wrapped.instances(0, 2).full_loss((start[:2],))))
    with pytest.raises(ValueError, match=r"not taken.*'parabola'"):
        problems.register(Parabola())
    assert problems.get("parabola") is parabola


@pytest.mark.parametrize("family", [Parabola, "parabola", None])
def test_only_families_are_registered(family):
    before = problems.names()
    with pytest.raises(TypeError, match=r"`family`.*problems\.Family") as error:
        problems.register(family)
    assert f"Received: family={family!r}" in str(error.value)
    assert problems.names() == before


def test_a_family_must_define_its_parts():
    for call in (
        lambda f: f.draw(0, 1),
        lambda f: f.full_loss({}, ()),
    ):
        with pytest.raises(NotImplementedError, match="Family must define"):
            call(problems.Family())


def test_unknown_names():
    with pytest.raises(ValueError, match="nearest are") as error:
        problems.get("rosenbrok")
    assert "'rosenbrock'" in str(error.value)
    assert "Received: name='rosenbrok'" in str(error.value)
    with pytest.raises(ValueError, match="There are") as error:
        problems.get("zzz")
    assert all(name in str(error.value) for name in problems.names())
    with pytest.raises(ValueError, match="nearest are") as error:
        problems.meta_training_set("papers")
    assert "['paper']" in str(error.value)
    assert "Received: name='papers'" in str(error.value)
    with pytest.raises(ValueError, match="Received: name=3"):
        problems.get(3)


def inside(family):
    """A family and all those that it consists of."""
    yield family
    parts = [family.inner] if hasattr(family, "inner") else []
    for part in (*parts, *getattr(family, "parts", ())):
        yield from inside(part)


def is_neural(row):
    """Whether it has a network, or a student of more than one layer."""
    return any(
        type(part).__module__.startswith(neural.__name__)
        or (isinstance(part, streams.Stream) and not is_linear(part))
        for part in inside(row.family)
    )


def is_linear(stream):
    network = getattr(stream, "network", None)
    return isinstance(network, streams.Dense) and len(network.widths) == 2


@pytest.mark.parametrize("name", problems.set_names())
def test_sets(name):
    rows = problems.meta_training_set(name)
    assert len({row.name for row in rows}) == len(rows)
    weights = [row.weight for row in rows]
    assert min(weights) > 0
    np.testing.assert_allclose(sum(weights), 1, 1e-12)
    several = [row.weight for row in rows if len(row.family.shapes) > 1]
    assert sum(several) >= 1 / 3
    assert all(2 <= row.family.dimension <= 7000 for row in rows)
    for row in rows:
        kinds = [type(part) for part in inside(row.family)]
        assert problems.Reparametrized in kinds and problems.Scaled in kinds


def test_which_sets_have_networks():
    assert problems.set_names() == ("paper", "wide")
    paper, wide = map(problems.meta_training_set, problems.set_names())
    assert len(paper) <= 25
    assert not any(map(is_neural, paper))
    networks = [row for row in wide if is_neural(row)]
    assert 0 < sum(row.weight for row in networks) < 1
    # The others are part of the set of the paper.
    rest = {row.name: row.family for row in wide if not is_neural(row)}
    assert rest.items() <= {row.name: row.family for row in paper}.items()
    # Most of its problems never end.
    endless = [row for row in wide if row.name.startswith("stream_")]
    assert sum(row.weight for row in endless) > 0.5


@pytest.mark.parametrize("kind", ["digits_convnet", "digits_mlp"])
def test_digits_networks_are_for_evaluation_only(kind):
    model = getattr(neural, kind)(seed=1)
    assert isinstance(model, keras.Model)
    wanted = {"digits_convnet": (8, 13_178), "digits_mlp": (6, 26_122)}[kind]
    tensors = model.trainable_variables
    assert (len(tensors), model.count_params()) == wanted
    assert model(np.zeros((2, 8, 8, 1), "float32")).shape == (2, 10)
    again, other = (getattr(neural, kind)(seed=s) for s in (1, 2))
    kernel = tensors[0].numpy()
    np.testing.assert_array_equal(again.trainable_variables[0], kernel)
    assert np.any(other.trainable_variables[0].numpy() != kernel)
    # No registry entry or set has networks of their size or real pictures.
    shapes = tuple(tuple(tensor.shape) for tensor in tensors)
    families = [problems.get(name) for name in problems.names()]
    for name in problems.set_names():
        families += [row.family for row in problems.meta_training_set(name)]
    for family in families:
        assert all(part.shapes != shapes for part in inside(family))


@pytest.mark.parametrize("name", ["rosenbrock", "logistic_regression"])
def test_minimize_with_adam(name):
    def losses(seed=3):
        optimizer = keras.optimizers.Adam(0.03)
        return problems.minimize(problems.get(name), optimizer, 40, seed)

    got = losses()
    assert got.shape == (41,) and np.all(np.isfinite(got))
    assert got[-1] < 0.5 * got[0]
    np.testing.assert_array_equal(losses(), got)
    assert np.any(losses(4) != got)


def test_minimize_takes_adams_steps():
    # By hand: Adam's first step is the learning rate times the sign.
    family = Quadratic(5)
    rate = 0.1
    got = problems.minimize(family, keras.optimizers.Adam(rate), 1, 3)
    drawn, _ = problems.draws.split(3, 2)
    problem = family.instances(drawn, 1)
    _, (gradient,) = problem.loss_and_gradient(problem.start, ())
    moved = problem.start[0] - rate * np.sign(gradient)
    wanted = [problem.full_loss((p,))[0] for p in (problem.start[0], moved)]
    np.testing.assert_allclose(got, wanted, 1e-5)


class Slope(Parabola):
    """The same slope everywhere, so a step of SGD shows its gradient."""

    def full_loss(self, data, params):
        return tf.reduce_sum(params[0], axis=-1)


def test_minimize_draws_every_step_anew():
    def steps(family):
        optimizer = keras.optimizers.SGD(1.0)
        return np.diff(problems.minimize(family, optimizer, 6))

    np.testing.assert_allclose(steps(Slope()), -3, 1e-5)
    assert len(set(np.round(steps(problems.GradientNoise(Slope())), 3))) == 6


@pytest.mark.filterwarnings("ignore:HierarchicalRNN trains at an attended")
def test_minimize_with_the_learned_optimizer():
    optimizer = HierarchicalRNN(weights=None, seed=0)
    got = problems.minimize(problems.get("matrix_product"), optimizer, 5)
    assert got.shape == (6,) and np.all(np.isfinite(got))
    assert len(set(got)) == 6
