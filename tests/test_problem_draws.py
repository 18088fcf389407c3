"""Random numbers: reproducible and fair."""

import numpy as np
import pytest
import tensorflow as tf

from problems import draws, minibatch


def test_an_int_is_a_pair():
    for seed in (0, 7, 2**31 - 1):
        pair = draws.as_seed(seed)
        assert pair.dtype == tf.int32 and pair.shape == (2,)
        again = draws.normal(seed, (5,))
        for same in (pair, pair.numpy(), (seed, 0), tf.cast(pair, tf.int64)):
            np.testing.assert_array_equal(draws.normal(same, (5,)), again)


def test_large_and_negative_seeds_are_different_ones():
    seeds = (0, 1, -1, 2**31, 2**32, 2**31 + 1, 2**61, 3 * 2**32 + 5)
    drawn = {tuple(draws.normal(seed, (3,)).numpy()) for seed in seeds}
    assert len(drawn) == len(seeds)


@pytest.mark.parametrize("seed", [1.5, "1", (1, 2, 3), (1.0, 2.0), None])
def test_bad_seed(seed):
    # None and strings are refused by TensorFlow.
    with pytest.raises((ValueError, TypeError)) as error:
        draws.as_seed(seed)
    if seed not in (None, "1"):
        assert "Argument `seed` must be an int or two" in str(error.value)
        assert f"Received: seed={tf.constant(seed)}" in str(error.value)


def test_split_and_fold_give_other_numbers():
    seeds = [5, *draws.split(5, 4), *(draws.fold(5, n) for n in range(4))]
    drawn = np.array([draws.normal(seed, (2000,)) for seed in seeds])
    apart = np.corrcoef(drawn) - np.eye(len(seeds))
    assert np.all(np.abs(apart) < 5 / 2000**0.5)
    np.testing.assert_array_equal(draws.fold(5, 3), draws.fold(5, 3))


def test_ranges():
    uniform = draws.uniform(1, (20000,), -2.0, 3.0).numpy()
    assert uniform.min() >= -2 and uniform.max() < 3
    assert abs(uniform.mean() - 0.5) < 5 * 5 / (12 * 20000) ** 0.5
    logs = np.log10(draws.log_uniform(2, (20000,), 0.01, 10.0))
    assert logs.min() >= -2 - 1e-6 and logs.max() <= 1 + 1e-6
    assert abs(logs.mean() + 0.5) < 5 * 3 / (12 * 20000) ** 0.5
    integers = draws.integers(3, (5000,), 2, 6).numpy()
    assert set(integers) == {2, 3, 4, 5}


@pytest.mark.parametrize("last", [1, 10, 32, 33, 70])
def test_signs(last):
    many = 4000
    v = draws.signs(4, (2, many // 2, last))
    assert v.shape == (2, many // 2, last) and v.dtype == tf.float32
    v = np.float64(v).reshape((many, last))
    assert set(np.unique(v)) == {-1, 1}
    assert np.all(np.abs(v.mean(0)) < 5 / many**0.5)
    moment = v.T @ v / many
    assert np.all(np.diag(moment) == 1)
    assert np.all(np.abs(moment - np.eye(last)) < 5 / many**0.5)
    # Consecutive rows are not alike, either.
    assert np.all(np.abs(np.mean(v[1:] * v[:-1], 0)) < 5 / (many - 1) ** 0.5)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_orthogonal(size):
    many = 3000
    q = np.float64(draws.orthogonal(6, many, size))
    error = q @ np.swapaxes(q, 1, 2) - np.eye(size)
    assert np.all(np.abs(error) < 3e-6)
    # Uniform: each entry has mean 0 and variance 1 / size.
    deviation = (1 / size / many) ** 0.5
    assert np.all(np.abs(q.mean(0)) < 5 * deviation)
    # The variance of a square is less than 2 / size^2.
    allowed = 5 * 2**0.5 / size / many**0.5
    assert np.all(np.abs((q**2).mean(0) - 1 / size) <= allowed)


def test_batch_sizes():
    sizes = minibatch.batch_sizes(1, 20000).numpy()
    assert sizes.min() == 10 and sizes.max() == 200
    np.testing.assert_array_equal(sizes, minibatch.batch_sizes(1, 20000))
    # Log-uniform: equally many below and above the geometric mean, 44.7.
    wanted = np.log(45 / 10) / np.log(201 / 10)
    assert abs(np.mean(sizes < 45) - wanted) < 5 * 0.5 / 20000**0.5


@pytest.mark.parametrize("rows", [12, 64, 256])
def test_a_minibatch(rows):
    sizes = tf.constant([10, 11, 50, 199, 200] * 200)
    batch = minibatch.in_turn(3, 0, sizes, rows)
    place, weights = batch["rows"].numpy(), np.float64(batch["weights"])
    assert place.shape == weights.shape == (1000, min(200, rows))
    assert place.min() == 0 and place.max() == rows - 1
    # 200 weights, each rounded.
    np.testing.assert_allclose(weights.sum(1), 1, 1e-6)
    np.testing.assert_array_equal((weights > 0).sum(1), np.minimum(sizes, rows))
    assert all(len(set(own)) == len(own) for own in place)
    # Every row is as likely as any other to be the first.
    counts = np.bincount(place[:, 0], minlength=rows)
    assert np.all(np.abs(counts - 1000 / rows) < 5 * (1000 / rows) ** 0.5 + 1)


@pytest.mark.parametrize("rows", [48, 64, 400])
def test_passes(rows):
    size, count, steps = 10, 400, 3 * rows // 10
    sizes = tf.fill((count,), size)
    draw = tf.function(
        lambda k: minibatch.in_turn(3, k, sizes, rows)["rows"],
        jit_compile=True,
    )
    seen = np.stack(
        [draw(tf.constant(k)).numpy()[:, :size] for k in range(steps)]
    )
    seen = np.swapaxes(seen, 0, 1).reshape(count, -1)
    passes = [seen[:, k * rows : (k + 1) * rows] for k in range(2)]
    whole = [[len(set(own)) == rows for own in one] for one in passes]
    # Three of four runs see every row once before any row comes twice.
    assert whole[0] == whole[1]
    assert abs(np.mean(whole[0]) - 0.75) < 5 * 0.44 / count**0.5
    turn = np.array(whole[0])
    first, second = (one[turn] for one in passes)
    # Among some 500 orders, two may be the same.
    assert np.mean(np.all(first == second, axis=1)) < 0.03
    # In the others no minibatch has a row twice, and each is different.
    anew = seen[~turn].reshape(-1, steps, size)
    assert all(len(set(own)) == size for run in anew for own in run)
    different = len(np.unique(anew.reshape(-1, size), axis=0))
    # There are no more than `rows` offsets and some ten strides.
    assert different > 0.9 * min(steps * len(anew), 10 * rows)


def test_mixed_numbers_are_even_and_independent():
    keys = np.arange(1000, dtype=np.int32)[:, None]
    found = draws.mixed(keys, np.arange(50, dtype=np.int32)).numpy()
    assert found.min() >= 0 and len(np.unique(found)) > 49_900
    share = found / 2.0**31
    assert abs(share.mean() - 0.5) < 5 / (12 * found.size) ** 0.5
    for axis in (0, 1):
        near = np.corrcoef(
            np.take(share, range(49), axis).ravel(),
            np.take(share, range(1, 50), axis).ravel(),
        )[0, 1]
        assert abs(near) < 5 / (49 * 50) ** 0.5
