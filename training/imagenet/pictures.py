"""From the bytes of a JPEG to the picture that the model is given.

Training pictures follow Szegedy et al. 2015, "Going Deeper with Convolutions",
section 6: a crop of random size, shape and place, and a random flip. Colours
are left unchanged. All randomness follows from the given seed.
"""

import tensorflow as tf

AREA = (0.08, 1.0)  # area of the crop, relative to the picture
ASPECT = (3 / 4, 4 / 3)  # width to height
CENTRE = 0.875  # share of the shorter side, for validation


def for_training(jpeg, size: int, seed):
    """A random crop, perhaps flipped, [size, size, 3] in [-1, 1].

    Args:
        jpeg: the file's bytes, a scalar.
        size: width and height.
        seed: two integers.
    """
    seeds = tf.random.split(seed, 2)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.image.extract_jpeg_shape(jpeg),
        # There is no bounding box: the whole picture.
        tf.zeros((1, 0, 4)),
        seeds[0],
        min_object_covered=0.0,
        aspect_ratio_range=ASPECT,
        area_range=AREA,
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    # Only the crop is decoded.
    window = tf.concat([begin[:2], extent[:2]], 0)
    picture = _resized(
        tf.image.decode_and_crop_jpeg(jpeg, window, channels=3), size
    )
    return tf.image.stateless_random_flip_left_right(picture, seeds[1])


def for_validation(jpeg, size: int):
    """The middle of the picture, [size, size, 3] in [-1, 1]."""
    shape = tf.image.extract_jpeg_shape(jpeg)[:2]
    shorter = tf.cast(tf.reduce_min(shape), "float32")
    side = tf.cast(tf.math.ceil(CENTRE * shorter), "int32")
    window = tf.concat([(shape - side) // 2, [side, side]], 0)
    return _resized(
        tf.image.decode_and_crop_jpeg(jpeg, window, channels=3), size
    )


def _resized(picture, size):
    picture = tf.image.resize(picture, (size, size))
    return tf.ensure_shape(picture / 127.5 - 1.0, (size, size, 3))
