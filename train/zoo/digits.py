"""The digits data set as one named version that means the same bytes everywhere.

1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998; UCI), as scikit-learn
carries them, split 80/20 by class with a fixed seed. The first use writes pixels and labels
(`data.npz`) and the split (`manifest.json`) below the home; every later use reads them without
scikit-learn and checks them against the digest that belongs to the name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import Corrupt

NAME: Final = "digits-v1"
DIGEST: Final = "735cb5eb36ea1c43a925b824d7d6a2960aadbde4714b71ab83cc62893559699f"
SEED: Final = 20_240_501
TEST_SHARE: Final = 0.2
CLASSES: Final = 10

_MAX_PIXEL: Final = 16  # pixels are counts of set bits in blocks of 4 x 4
_DATA: Final = "data.npz"
_MANIFEST: Final = "manifest.json"
_UNREADABLE: Final = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    OverflowError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)

Images = NDArray[np.float32]
Labels = NDArray[np.int64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images [n, 1, 8, 8] from 0 to 1 and their labels [n] from 0 to 9."""

    images: Images
    labels: Labels


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """The data set. name: name and version; digest: SHA-256 of pixels, labels and split."""

    name: str
    digest: str
    train: Split
    test: Split


@dataclass(frozen=True, slots=True, eq=False)
class _Content:
    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    train: Indices
    test: Indices

    def digest(self) -> str:
        found = hashlib.sha256()
        for array in (self.pixels, self.labels, self.train, self.test):
            found.update(f"{array.dtype.str}{array.shape}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()


def load(root: Path) -> Digits:
    """Read the data set below a home, writing it there on first use.

    Raises Corrupt when what is there, or what scikit-learn gives, is not this version.
    """
    folder = root / "datasets" / NAME
    if not folder.exists():
        _create(folder)
    content = _read(folder)
    found = content.digest()
    if found != DIGEST:
        raise Corrupt(
            f"the data set {NAME} in {folder} is not what it was",
            hint=f"remove {folder}; it is written again on the next use",
            details={"expected": DIGEST, "found": found},
        )
    images = (content.pixels.astype(np.float32) / np.float32(_MAX_PIXEL))[:, None]
    labels = content.labels.astype(np.int64)
    return Digits(
        NAME,
        found,
        train=Split(images[content.train], labels[content.train]),
        test=Split(images[content.test], labels[content.test]),
    )


def _make() -> _Content:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw = load_digits()
    labels = raw.target.astype(np.uint8)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=SEED
    )
    return _Content(
        raw.images.astype(np.uint8),
        labels,
        np.sort(train).astype(np.int64),
        np.sort(test).astype(np.int64),
    )


def _create(folder: Path) -> None:
    content = _make()
    digest = content.digest()
    if digest != DIGEST:
        raise Corrupt(
            f"this scikit-learn gives other data than {NAME} has",
            hint="install the pinned versions (constraints file), or copy the data set's folder",
            details={"expected": DIGEST, "found": digest},
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=folder.parent))
    try:
        with (made / _DATA).open("wb") as file:
            np.savez_compressed(file, pixels=content.pixels, labels=content.labels)
            file.flush()
            os.fsync(file.fileno())
        with (made / _MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(_manifest(content, digest), file)
            file.flush()
            os.fsync(file.fileno())
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            return  # another process was first; its bytes are checked like ours
        _flush_folder(folder.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _manifest(content: _Content, digest: str) -> Mapping[str, object]:
    return {
        "name": NAME,
        "sha256": digest,
        "source": "scikit-learn load_digits (UCI, optical recognition of handwritten digits)",
        "seed": SEED,
        "test_share": TEST_SHARE,
        "train": content.train.tolist(),
        "test": content.test.tolist(),
    }


def _read(folder: Path) -> _Content:
    try:
        manifest: Any = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        with np.load(folder / _DATA, allow_pickle=False) as data:
            pixels, labels = data["pixels"], data["labels"]
        return _Content(
            pixels,
            labels,
            np.asarray(manifest["train"], dtype=np.int64),
            np.asarray(manifest["test"], dtype=np.int64),
        )
    except _UNREADABLE as error:
        raise Corrupt(
            f"the data set {NAME} in {folder} cannot be read: {error}",
            hint=f"remove {folder}; it is written again on the next use",
        ) from error


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
