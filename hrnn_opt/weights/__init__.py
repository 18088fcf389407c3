"""Files of meta-parameters: `.npz` archives, without pickled objects.

A file holds one array for each meta-parameter and a `metadata` string (JSON):
rule version, config, provenance (how they were trained) and a sha256 of all of
this.
"""

import hashlib
import json
import lzma
import os
import pathlib
import struct
import tokenize
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from hrnn_opt.rule import meta_parameters
from hrnn_opt.rule.config import RULE_VERSION, RuleConfig

FOLDER = pathlib.Path(__file__).parent
ALIASES = {"pretrained": "wide"}
"""Which of the meta-trained weights are the default."""


class Weights(NamedTuple):
    """What a weights file holds."""

    config: RuleConfig
    vector: np.ndarray  # flat meta-parameters, float32
    provenance: dict
    sha256: str


def names() -> list[str]:
    """The weights inside the package, and their aliases."""
    return sorted({*ALIASES, *(p.stem for p in FOLDER.glob("*.npz"))})


def find(weights: str | os.PathLike) -> pathlib.Path:
    """The file for a name in the package, or for a path.

    Raises:
        FileNotFoundError: there is neither.
    """
    shipped = FOLDER / f"{ALIASES.get(str(weights), weights)}.npz"
    path = shipped if str(weights) in names() else pathlib.Path(weights)
    if not path.is_file():
        raise FileNotFoundError(
            "Argument `weights` must be None, the path of a weights file "
            f"(.npz), or one of {names()}. Received: weights={weights!r}; "
            f"there is no file {path}"
        )
    return path


def _digest(config: RuleConfig, vector: np.ndarray, provenance: dict) -> str:
    header = json.dumps(
        [RULE_VERSION, config.to_dict(), provenance], sort_keys=True
    )
    data = np.ascontiguousarray(vector, "<f4").tobytes()
    return hashlib.sha256(header.encode() + data).hexdigest()


def save(
    path: str | os.PathLike,
    config: RuleConfig,
    vector,
    provenance: dict | None = None,
) -> str:
    """Writes a weights file, whole or not at all.

    Args:
        path: path of the file; an existing one is replaced.
        config: config that the meta-parameters belong to.
        vector: flat meta-parameters, finite.
        provenance: how they were trained (JSON values).

    Returns:
        The sha256.

    Raises:
        ValueError: the vector's size does not fit, or it is not finite.
    """
    path, provenance = pathlib.Path(path), provenance or {}
    vector = np.asarray(vector, "float32")
    size = meta_parameters.size(config)
    if vector.shape != (size,) or not np.all(np.isfinite(vector)):
        raise ValueError(
            f"Argument `vector` must hold {size} finite numbers for {config}. "
            f"Received: shape {vector.shape}, "
            f"{int(np.sum(~np.isfinite(vector)))} not finite"
        )
    digest = _digest(config, vector, provenance)
    metadata = {
        "rule_version": RULE_VERSION,
        "config": config.to_dict(),
        "provenance": provenance,
        "sha256": digest,
    }
    arrays, start = {}, 0
    for name, shape in meta_parameters.shapes(config).items():
        stop = start + int(np.prod(shape))
        arrays[name] = vector[start:stop].reshape(shape)
        start = stop
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "xb") as file:
            np.savez(file, metadata=np.array(json.dumps(metadata)), **arrays)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return digest


def load(weights: str | os.PathLike) -> Weights:
    """Reads a weights file, and checks all of it.

    Args:
        weights: a name in the package ("pretrained"), or a path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or of another rule version.
    """
    path = find(weights)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        metadata = json.loads(str(arrays.pop("metadata")))
        version = metadata["rule_version"]
    except (
        # What zipfile, its decompressors and NumPy's parser of headers raise.
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
        tokenize.TokenError, SyntaxError, RuntimeError, EOFError, OSError,
        ValueError, LookupError, TypeError, AttributeError, MemoryError,
        OverflowError,
    ) as error:  # fmt: skip
        raise ValueError(
            f"{path} is not a weights file: expected an .npz archive with one "
            "array a meta-parameter and an entry `metadata`. "
            f"Received: {type(error).__name__}: {error}"
        ) from error
    if version != RULE_VERSION:
        raise ValueError(
            f"{path} was trained under rule version {version}; this package "
            f"implements version {RULE_VERSION}"
        )
    try:
        config = RuleConfig.from_dict(metadata["config"])
        shapes = meta_parameters.shapes(config)
        got = {name: array.shape for name, array in arrays.items()}
        if got != shapes:
            raise ValueError(
                f"expected arrays {shapes} for its config. Received: {got}"
            )
        kinds = {str(array.dtype) for array in arrays.values()}
        if kinds != {"float32"}:
            raise ValueError(
                f"expected arrays of float32. Received: {sorted(kinds)}"
            )
        vector = np.concatenate([np.ravel(arrays[name]) for name in shapes])
        provenance, expected = metadata["provenance"], metadata["sha256"]
        digest = _digest(config, vector, provenance)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if digest != expected:
        raise ValueError(
            f"{path} is damaged: expected sha256 {expected}. Received: {digest}"
        )
    return Weights(config, vector, provenance, digest)
