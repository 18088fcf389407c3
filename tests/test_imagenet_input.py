"""Pictures of ImageNet: crops, order, and source."""

import numpy as np
import pytest
import tensorflow as tf

from tests import imagenet_data
from training.imagenet import pictures, pipeline, source

SIZE = 32
HEIGHT, WIDTH = 120, 160


def corners(picture):
    """Left, right, top and bottom of a crop of `jpeg`, relative to it."""
    red, green = (np.asarray(picture[..., k]) for k in (0, 1))
    places = [red[:, 0], red[:, -1], green[0], green[-1]]
    return [(float(np.mean(place)) + 1) / 2 for place in places]


def test_crops_are_of_the_area_and_shape_that_inception_was_trained_with():
    jpeg = imagenet_data.jpeg(0, HEIGHT, WIDTH)
    seeds = tf.random.split([3, 4], 300)
    crops = [pictures.for_training(jpeg, SIZE, seed) for seed in seeds]
    assert crops[0].shape == (SIZE, SIZE, 3)
    assert max(float(tf.reduce_max(abs(crop))) for crop in crops) <= 1.0
    left, right, top, bottom = np.array([corners(c) for c in crops]).T
    flipped = left > right
    assert 0.4 < np.mean(flipped) < 0.6
    width, height = abs(right - left), bottom - top
    assert (height > 0).all()  # It is never upside down.
    # Resizing loses half a pixel at each end.
    area = width * height
    assert 0.04 < area.min() < 0.15 and 0.8 < area.max() <= 1.0
    # TensorFlow draws the height, not the area, uniformly.
    assert 0.3 < area.mean() < 0.45
    aspect = width * WIDTH / (height * HEIGHT)
    assert 0.68 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.45
    # Crops lie everywhere.
    middle = (left + right) / 2
    assert middle.min() < 0.3 and middle.max() > 0.7


def test_a_crop_follows_from_its_seed():
    jpeg = imagenet_data.jpeg()
    one, same, other = (
        pictures.for_training(jpeg, SIZE, [5, k]) for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01


def test_validation_shows_the_middle():
    jpeg = imagenet_data.jpeg(0, HEIGHT, WIDTH)
    picture = pictures.for_validation(jpeg, SIZE)
    assert picture.shape == (SIZE, SIZE, 3)
    side = 0.875 * HEIGHT
    margin = np.array(
        [(WIDTH - side) / 2 / WIDTH, (HEIGHT - side) / 2 / HEIGHT]
    )
    wanted = [margin[0], 1 - margin[0], margin[1], 1 - margin[1]]
    np.testing.assert_allclose(corners(picture), wanted, atol=0.02)


class InMemory:
    """Records like those of `source`."""

    count = 7

    def __init__(self):
        self._jpegs = [imagenet_data.jpeg(k) for k in range(self.count)]

    def __call__(self, seed=None):
        data = (self._jpegs, range(self.count))
        records = tf.data.Dataset.from_tensor_slices(data)
        if seed is None:
            return records
        return records.shuffle(4, seed=seed, reshuffle_each_iteration=False)


def examples(start, count, seed=1, records=None):
    stream = pipeline.training_examples(records or InMemory(), 8, seed, start)
    got = list(stream.take(count).as_numpy_iterator())
    return [p for p, _ in got], [int(label) for _, label in got]


@pytest.mark.parametrize("start", [1, 7, 10])
def test_a_run_goes_on_with_the_pictures_it_would_have_seen(start):
    whole, labels = examples(0, 21)
    rest, later = examples(start, 21 - start)
    assert later == labels[start:]
    np.testing.assert_array_equal(rest, whole[start:])


def test_every_epoch_has_all_pictures_in_an_order_of_its_own():
    whole, labels = examples(0, 21)
    epochs = [labels[k : k + 7] for k in (0, 7, 14)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(7))
    assert len(set(map(tuple, epochs))) == 3
    # The same picture is cropped differently in each epoch.
    first, second = (whole[k + epochs[k // 7].index(3)] for k in (0, 7))
    assert np.abs(first - second).max() > 0.01
    assert examples(0, 21, seed=2)[1] != labels


def test_the_order_does_not_follow_the_global_seed():
    orders = []
    for seed in (0, 1):  # tf.data fails on 0 with a tensor as seed.
        tf.random.set_seed(seed)
        orders.append(examples(0, 14)[1])
    assert orders[0] == orders[1]


def test_a_folder_without_data_says_what_is_expected_where(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        source.find(str(tmp_path))
    text = str(error.value)
    for words in (
        "Put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar",
        str(tmp_path / "downloads" / "manual"),
        f"tfds build imagenet2012 --data_dir={tmp_path}",
    ):
        assert words in text
    imagenet_data.write_tars(tmp_path)
    with pytest.raises(FileNotFoundError, match="Run:\n    tfds build"):
        source.find(str(tmp_path))


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        source.find()


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    folder = imagenet_data.prepare(tmp_path_factory.mktemp("data"))
    return source.find(str(folder))


def files(records, seed=None):
    """Numbers of the pictures, read from the bytes of their records."""
    return [bytes(jpeg) for jpeg, _ in records(seed).as_numpy_iterator()]


def test_records_are_those_of_the_builder(builder):
    records = source.Records(builder, "train")
    assert records.count == imagenet_data.TRAIN
    ordered, shuffled = files(records), files(records, 3)
    assert sorted(shuffled) == sorted(ordered) and shuffled != ordered
    assert files(records, 3) == shuffled != files(records, 4)
    assert set(ordered) <= set(map(imagenet_data.jpeg, range(24)))
    labels = {int(label) for _, label in records()}
    assert labels == {0, 1, 2, 3}


def test_machines_share_the_records(builder):
    own = [files(source.Records(builder, "train", 2, k)) for k in (0, 1)]
    assert list(map(len, own)) == [12, 12]
    together = own[0] + own[1]
    assert sorted(together) == sorted(files(source.Records(builder, "train")))
    # An uneven rest is left out, so no machine waits for the last batch.
    uneven = [source.Records(builder, "validation", 2, k) for k in (0, 1)]
    assert (
        [len(files(r)) for r in uneven] == [r.count for r in uneven] == [2, 2]
    )


def test_batches_of_the_real_builder(builder):
    def records(machines, machine):
        return source.Records(builder, "train[:8]", machines, machine)

    strategy = tf.distribute.OneDeviceStrategy("CPU:0")

    def batches(step):
        return pipeline.training_batches(strategy, records, 8, 4, 0, step)

    whole = [b for b, _ in zip(batches(0), range(6), strict=False)]
    rest = [b for b, _ in zip(batches(3), range(3), strict=False)]
    assert whole[0][0].shape == (4, 8, 8, 3)
    for (x, y), (again, label) in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(x, again)
        np.testing.assert_array_equal(y, label)


def test_validation_batches_have_every_picture_once(builder):
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    batches = pipeline.validation_batches(
        strategy,
        lambda n, k: source.Records(builder, "validation", n, k),
        8,
        2,
    )
    assert [x.shape[0] for x, _ in batches] == [2, 2, 1]


def test_unknown_splits_and_too_many_machines_are_refused(builder):
    with pytest.raises(ValueError, match="one of train, validation.*'tset'"):
        source.Records(builder, "tset")
    with pytest.raises(ValueError, match="Received: 99 machines"):
        source.Records(builder, "train", 99)
