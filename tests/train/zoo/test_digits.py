from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import Corrupt
from train.zoo import digits
from train.zoo.digits import Digits


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    digits.load(root)
    return root


@pytest.fixture
def root(kept: Path, tmp_path: Path) -> Path:
    shutil.copytree(kept / "datasets", tmp_path / "datasets")
    return tmp_path


@pytest.fixture(scope="module")
def data(kept: Path) -> Digits:
    return digits.load(kept)


def test_images_are_scaled_to_one_channel_from_zero_to_one(data: Digits) -> None:
    for split in (data.train, data.test):
        assert split.images.dtype == np.float32
        assert split.images.shape == (len(split.labels), 1, 8, 8)
        assert split.labels.dtype == np.int64
        assert (split.images.min(), split.images.max()) == (0.0, 1.0)


def test_the_split_holds_every_digit_once_four_fifths_for_training(data: Digits) -> None:
    from sklearn.datasets import load_digits

    raw = load_digits()
    assert (len(data.train.labels), len(data.test.labels)) == (1437, 360)
    ours = np.concatenate([data.train.images, data.test.images]).reshape(-1, 64) * 16
    assert sorted(map(tuple, ours)) == sorted(map(tuple, raw.data))


def test_each_class_has_its_share_of_the_test_split(data: Digits) -> None:
    train = np.bincount(data.train.labels, minlength=10)
    test = np.bincount(data.test.labels, minlength=10)
    assert np.abs(test - 0.2 * (train + test)).max() <= 1.0


def test_it_is_written_once_and_read_the_same_afterwards(root: Path, data: Digits) -> None:
    folder = root / "datasets" / digits.NAME
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    again = digits.load(root)
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert (again.name, again.digest) == ("digits-v1", digits.DIGEST)
    assert np.array_equal(again.test.images, data.test.images)
    assert np.array_equal(again.train.labels, data.train.labels)


def test_no_half_written_folder_is_left_beside_it(kept: Path) -> None:
    assert [folder.name for folder in (kept / "datasets").iterdir()] == [digits.NAME]


def test_reading_it_needs_no_scikit_learn(root: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from train.zoo import digits;"
        "digits.load(Path(sys.argv[1])); sys.exit('sklearn' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, str(root)], cwd=Path(digits.__file__).parents[2], check=False
    )
    assert found.returncode == 0


def test_an_image_moved_into_the_test_split_is_noticed(root: Path) -> None:
    file = root / "datasets" / digits.NAME / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["train"][0], manifest["test"][0] = manifest["test"][0], manifest["train"][0]
    file.write_text(json.dumps(manifest))
    with pytest.raises(Corrupt, match="is not what it was") as error:
        digits.load(root)
    assert "remove" in (error.value.hint or "")


def test_a_changed_label_is_noticed_also_when_the_manifest_is_made_to_fit(root: Path) -> None:
    folder = root / "datasets" / digits.NAME
    with np.load(folder / "data.npz") as stored:
        pixels, labels = stored["pixels"], stored["labels"].copy()
    labels[0] = (labels[0] + 1) % 10
    np.savez(folder / "data.npz", pixels=pixels, labels=labels)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": "f" * 64}))
    with pytest.raises(Corrupt, match="is not what it was"):
        digits.load(root)


@pytest.mark.parametrize("at", [0.0, 0.3, 0.5, 0.9])
def test_a_flipped_bit_on_disk_is_noticed(root: Path, at: float) -> None:
    file = root / "datasets" / digits.NAME / "data.npz"
    content = bytearray(file.read_bytes())
    content[int(at * len(content))] ^= 1
    file.write_bytes(content)
    with pytest.raises(Corrupt):
        digits.load(root)


@pytest.mark.parametrize("name", ["data.npz", "manifest.json"])
@pytest.mark.parametrize("size", [0, 100])
def test_a_cut_file_is_noticed(root: Path, name: str, size: int) -> None:
    os.truncate(root / "datasets" / digits.NAME / name, size)
    with pytest.raises(Corrupt, match="cannot be read"):
        digits.load(root)


def test_processes_that_use_it_first_at_the_same_time_all_get_it(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from train.zoo import digits;"
        "print(digits.load(Path(sys.argv[1])).digest)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            cwd=Path(digits.__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    found = [process.communicate()[0].strip() for process in started]
    assert found == [digits.DIGEST] * 2
    assert [folder.name for folder in (tmp_path / "datasets").iterdir()] == [digits.NAME]
