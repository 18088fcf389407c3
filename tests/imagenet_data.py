"""A tiny ImageNet, made here for the unchanged builder of tensorflow-datasets.

It consists of tars of JPEGs, each with a colour that encodes its number.
"""

import io
import pathlib
import tarfile

import pytest
import tensorflow as tf

SYNSETS = ("n01440764", "n01443537", "n01484850", "n01491361")
EACH, VALIDATION = 6, 5
TRAIN = EACH * len(SYNSETS)


def jpeg(number: int = 0, height: int = 48, width: int = 64) -> bytes:
    """A picture that is brighter to the right, with its number in the blue."""
    x = tf.linspace(0.0, 255.0, width)[None, :, None]
    y = tf.linspace(0.0, 255.0, height)[:, None, None]
    shape = (height, width, 1)
    blue = tf.fill(shape, 10.0 * (number % 25))
    picture = tf.concat(
        [tf.broadcast_to(x, shape), tf.broadcast_to(y, shape), blue], -1
    )
    return tf.io.encode_jpeg(
        tf.cast(picture, "uint8"), quality=100, chroma_downsampling=False
    ).numpy()


def _tar(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


def write_tars(data_dir: pathlib.Path):
    """Writes both archives to where tensorflow-datasets looks for them."""
    manual = data_dir / "downloads" / "manual"
    manual.mkdir(parents=True)
    synsets = {}
    for k, synset in enumerate(SYNSETS):
        pictures = {
            f"{synset}_{n}.JPEG": jpeg(k * EACH + n) for n in range(EACH)
        }
        synsets[f"{synset}.tar"] = _tar(pictures)
    (manual / "ILSVRC2012_img_train.tar").write_bytes(_tar(synsets))
    pictures = {
        f"ILSVRC2012_val_{n + 1:08}.JPEG": jpeg(n) for n in range(VALIDATION)
    }
    (manual / "ILSVRC2012_img_val.tar").write_bytes(_tar(pictures))


def prepare(data_dir: pathlib.Path) -> pathlib.Path:
    """The prepared folder; skips if tensorflow-datasets is not installed."""
    tfds = pytest.importorskip(
        "tensorflow_datasets", reason='needs pip install "hrnn-opt[data]"'
    )
    write_tars(data_dir)
    tfds.builder("imagenet2012", data_dir=data_dir).download_and_prepare()
    return data_dir
