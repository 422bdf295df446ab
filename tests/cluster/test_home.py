"""The folder of an installation is private, complete, and short enough for sockets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.home import Home
from edge_runtime.errors import Unavailable

SOCKET_PATH_BYTES = 107


@pytest.fixture
def long_home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / ("long-" * 30) / "home")
    yield home
    if home.run.is_symlink():
        home.run.unlink()
    shutil.rmtree(home.run, ignore_errors=True)


def _run(home: Home) -> Path:
    home.root.mkdir(parents=True)
    return home.run


def test_a_new_home_is_private(long_home: Home) -> None:
    home = Home.at(long_home.root)
    home.make_run()
    for folder in (home.root, home.identity, home.logs, home.run):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    assert Home.at(home.root) == home


def test_a_short_home_keeps_everything_inside() -> None:
    home = Home(Path("/var/lib/prime-spark"))
    assert home.run == home.root / "run"


@pytest.mark.parametrize("length", [1, 20, 31, 32, 33, 100, 1000])
def test_sockets_fit_into_the_kernels_limit_however_long_the_home_is(length: int) -> None:
    home = Home(Path("/" + "h" * (length - 1)))
    longest_of_ray = home.ray / ("s" * 42) / "sockets" / "plasma_store_1"
    for path in (longest_of_ray, home.gateway_http_socket(99), home.gateway_grpc_socket(99)):
        assert len(os.fsencode(path)) <= SOCKET_PATH_BYTES


def test_long_homes_have_run_folders_of_their_own_that_do_not_depend_on_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Home(tmp_path / ("a" * 50)), Home(tmp_path / ("b" * 50))
    before = one.run
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert one.run == before
    assert one.run != two.run


def test_a_run_folder_that_others_can_enter_is_refused(long_home: Home) -> None:
    _run(long_home).mkdir(mode=0o700)
    long_home.run.chmod(0o750)
    with pytest.raises(Unavailable, match="not private") as refused:
        Home.at(long_home.root).make_run()
    assert refused.value.hint == f"chmod 700 {long_home.run}"


def test_a_link_where_the_run_folder_should_be_is_not_followed(
    long_home: Home, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    _run(long_home).symlink_to(precious)
    with pytest.raises(Unavailable, match="not a folder"):
        Home.at(long_home.root).make_run()
    assert list(precious.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_run_folder_of_somebody_else_is_refused(long_home: Home) -> None:
    _run(long_home).mkdir(mode=0o700)
    os.chown(long_home.run, 65534, -1)
    with pytest.raises(Unavailable, match="another user"):
        Home.at(long_home.root).make_run()


def test_an_identity_folder_that_others_can_enter_is_refused(long_home: Home) -> None:
    Home.at(long_home.root).identity.chmod(0o755)
    with pytest.raises(Unavailable, match="identity is not private"):
        Home.at(long_home.root)


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    for root in (file, file / "home", "~nobody-has-this-name/home"):
        with pytest.raises(Unavailable, match="cannot be used") as refused:
            Home.at(root)
        assert "PRIME_SPARK_HOME" in str(refused.value.hint)


def test_opening_a_home_makes_nothing_outside_of_it(long_home: Home) -> None:
    assert not Home.at(long_home.root).run.exists()


def test_no_two_things_have_the_same_place(tmp_path: Path) -> None:
    home = Home(tmp_path)
    places = [
        home.config,
        home.registry,
        home.datasets,
        home.logs,
        home.signing_key,
        home.jwks,
        home.api_keys,
        home.ray_token,
        home.ray,
        home.state,
        home.lock,
        home.front_door,
        *(home.gateway_lock(slot) for slot in range(2)),
        *(home.gateway_http_socket(slot) for slot in range(2)),
        *(home.gateway_grpc_socket(slot) for slot in range(2)),
    ]
    assert len(set(places)) == len(places)
