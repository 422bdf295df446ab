from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.registry import Action, EmbeddedRegistry
from edge_runtime.errors import Corrupt
from tests.train.zoo.conftest import Site, quiet
from train.zoo import digits, recipe
from train.zoo.publish import ZOO, publish

ROOT = Path(recipe.__file__).parents[2]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_published_version_says_what_it_is_and_what_it_was_made_from(site: Site) -> None:
    version = site.registry.resolve("digits", None)
    assert version.version == site.published.version
    assert version.card.dataset == "digits-v1"
    assert version.card.metrics["accuracy"] >= 0.98
    assert version.card.metrics["parity_max_difference"] <= 1e-4
    assert version.card.provenance["dataset_sha256"] == digits.DIGEST
    assert version.card.provenance["recipe_sha256"].startswith(version.version[1:])
    assert version.created_by == "ada"
    (image,), (logits,) = version.signature.inputs, version.signature.outputs
    assert (image.name, image.datatype, image.shape) == ("image", "FP32", (-1, 1, 8, 8))
    assert (logits.name, logits.shape) == ("logits", (-1, 10))


def test_publishing_moves_production_and_the_history_says_who(site: Site) -> None:
    moved = [e for e in site.registry.history("digits") if e.action is Action.ALIAS_MOVED]
    assert [(e.actor, e.alias, e.previous) for e in moved] == [("ada", "production", None)]


def test_publishing_again_reuses_the_version_and_does_nothing(site: Site) -> None:
    before = site.registry.history("digits")
    again = publish("digits", site.root, site.registry, actor="bob", force=False, progress=quiet)
    assert not again.is_new
    assert (again.version, again.digest) == (site.published.version, site.published.digest)
    assert site.registry.history("digits") == before


def test_reusing_a_version_imports_no_torch(site: Site) -> None:
    script = (
        "import sys; from train.zoo.publish import main;"
        "code = main(['digits', '--home', sys.argv[1], '--json']);"
        "sys.exit(code or 'torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    found = _run("-c", script, str(site.root))
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["version"] == site.published.version
    assert json.loads(found.stdout)["is_new"] is False
    assert found.stderr == ""


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    home = tmp_path_factory.mktemp("mlp")
    strict = ("-W", "error::UserWarning")
    return home, _run(*strict, "-m", "train.zoo.publish", "mlp", "--home", str(home))


def test_the_command_makes_a_model_without_a_warning(
    mlp: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    home, made = mlp
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""
    version = EmbeddedRegistry(home / "registry").resolve("mlp", None)
    assert version.version in made.stdout
    assert version.card.metrics["accuracy"] > 0.95
    assert [spec.shape for spec in version.signature.inputs] == [(-1, 64)]


def test_production_comes_back_to_the_version_published_last(site: Site) -> None:
    registry, ours = site.registry, site.published.version
    registry.set_alias("digits", "production", None, expected=ours, actor="eve")
    again = publish("digits", site.root, registry, actor="ada", force=False, progress=quiet)
    assert again.previous is None
    assert registry.aliases("digits")["production"] == ours


def test_forced_training_that_gives_the_same_model_keeps_the_version(
    mlp: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    home, _ = mlp
    registry = EmbeddedRegistry(home / "registry")
    before = registry.versions("mlp")
    forced = publish("mlp", home, registry, actor="ada", force=True, progress=quiet)
    assert not forced.is_new
    assert registry.versions("mlp") == before


def test_a_damaged_artifact_is_not_published_again(
    mlp: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(mlp[0], home)
    registry = EmbeddedRegistry(home / "registry")
    file = registry.artifact_path(registry.resolve("mlp", None).artifacts[0])
    file.chmod(0o600)
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(Corrupt):
        publish("mlp", home, registry, actor="ada", force=False, progress=quiet)
    found = _run("-m", "train.zoo.publish", "mlp", "--home", str(home))
    assert found.returncode == 1
    assert "was not published" in found.stdout
    assert "Traceback" not in found.stderr


def test_the_heavy_network_is_marked_as_good_for_latency_only() -> None:
    assert ZOO["resnet18"].notes == ("latency only: random weights",)


def test_a_version_is_named_by_code_data_and_libraries() -> None:
    base = recipe.provenance(("cnn.py", "fit.py"), digits.DIGEST)
    assert base == recipe.provenance(("fit.py", "cnn.py"), digits.DIGEST)
    others = [
        recipe.provenance(("cnn.py",), digits.DIGEST),
        recipe.provenance(("cnn.py", "fit.py"), None),
        recipe.Provenance(base.code, base.dataset, {**base.libraries, "torch": "0"}),
    ]
    assert len({base.version, *(other.version for other in others)}) == 4
