from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.train.zoo.conftest import Site, quiet, run
from train.zoo import cnn
from train.zoo.cnn import DigitsCnn
from train.zoo.export import TOLERANCE, Unfit, check_parity, export
from train.zoo.fit import Recipe
from train.zoo.mlp import DigitsMlp


class FixedBatch(nn.Module):
    """Mixes the rows of a batch, so it answers differently for another number of rows."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0, keepdim=True)


class WholeBatch(nn.Module):
    """One answer for a whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=0, keepdim=True)


@pytest.fixture(scope="module")
def perceptron() -> nn.Module:
    return DigitsMlp().eval()


@pytest.fixture(scope="module")
def exported(perceptron: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "mlp.onnx"
    export(perceptron, torch.zeros(2, 64), "x", path)
    return path


def test_the_published_file_is_right_about_98_of_100_test_images(site: Site) -> None:
    logits = run(site.artifact, "image", site.data.test.images)
    accuracy = float((logits.argmax(axis=1) == site.data.test.labels).mean())
    assert accuracy >= 0.98
    assert site.published.metrics["accuracy"] == accuracy


@pytest.mark.parametrize("rows", [1, 2, 17, 360])
def test_any_number_of_rows_gives_each_row_its_own_answer(site: Site, rows: int) -> None:
    images = site.data.test.images
    together = run(site.artifact, "image", images[:rows])
    assert together.shape == (rows, 10)
    alone = np.concatenate([run(site.artifact, "image", images[i : i + 1]) for i in range(3)])
    assert np.allclose(together[:3], alone[:rows], atol=1e-4)


def test_the_batch_is_a_named_free_dimension_of_input_and_output(site: Site) -> None:
    graph = onnx.load(site.artifact).graph
    for value in (graph.input[0], graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [graph.input[0].name, graph.output[0].name] == ["image", "logits"]


def test_an_artifact_is_one_file_that_says_nothing_of_the_machine(exported: Path) -> None:
    assert [file.name for file in exported.parent.iterdir()] == ["mlp.onnx"]
    content = exported.read_bytes()
    assert b".py" not in content
    assert str(Path(torch.__file__).parent).encode() not in content
    assert onnx.load(exported, load_external_data=False).opset_import[0].version == 20


def test_exporting_again_gives_the_same_bytes(
    perceptron: nn.Module, exported: Path, tmp_path: Path
) -> None:
    export(perceptron, torch.zeros(3, 64), "x", tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == exported.read_bytes()


def test_exporting_prints_and_warns_nothing(
    perceptron: nn.Module,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    export(perceptron, torch.zeros(2, 64), "x", tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []


def test_a_sample_of_one_row_is_refused_because_it_may_fix_the_batch(
    perceptron: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="two rows"):
        export(perceptron, torch.zeros(1, 64), "x", tmp_path / "model.onnx")


def test_a_network_without_a_row_for_each_row_is_unfit(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="not a batch"):
        export(WholeBatch().eval(), torch.zeros(2, 64), "x", tmp_path / "model.onnx")


def test_file_and_network_agree_within_the_tolerance(perceptron: nn.Module, exported: Path) -> None:
    rows = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    parity = check_parity(perceptron, exported, "x", rows)
    assert parity.max_difference <= TOLERANCE
    with torch.inference_mode():
        assert np.allclose(parity.logits, perceptron(rows).numpy(), atol=TOLERANCE)


def test_a_file_of_other_weights_is_unfit(exported: Path) -> None:
    with pytest.raises(Unfit, match="differs by"):
        check_parity(DigitsMlp().eval(), exported, "x", torch.ones(2, 64))


def test_a_file_that_answers_nan_is_unfit(perceptron: nn.Module, exported: Path) -> None:
    rows = torch.full((2, 64), float("nan"))
    with pytest.raises(Unfit, match="nan"):
        check_parity(perceptron, exported, "x", rows)


def test_a_file_with_another_shape_of_answers_is_unfit(exported: Path) -> None:
    with pytest.raises(Unfit, match="answers"):
        check_parity(nn.Linear(64, 1).eval(), exported, "x", torch.ones(2, 64))


def test_training_twice_gives_the_same_weights_whatever_was_drawn_before(site: Site) -> None:
    short = Recipe(seed=3, epochs=1, batch_size=256, learning_rate=0.01)
    first = cnn.train(site.data, quiet, short).state_dict()
    threads = torch.get_num_threads()
    torch.rand(11)
    second = cnn.train(site.data, quiet, short).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_progress_is_told_up_to_the_last_step(site: Site) -> None:
    told: list[tuple[int, int]] = []
    short = Recipe(seed=3, epochs=2, batch_size=512, learning_rate=0.01)
    cnn.train(site.data, lambda done, total: told.append((done, total)), short)
    assert told == [(step, 6) for step in range(1, 7)]


def test_the_digits_network_takes_images_of_any_batch_in_torch_too() -> None:
    assert DigitsCnn().eval()(torch.zeros(5, 1, 8, 8)).shape == (5, 10)
