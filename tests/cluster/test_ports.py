from __future__ import annotations

import os
import socket

import pytest

from cluster.ports import check_free, free_port, holder
from edge_runtime.errors import Conflict, InvalidInput


def test_a_free_port_passes() -> None:
    check_free("127.0.0.1", free_port(), "ports.rest")


def test_a_taken_port_is_named_with_the_process_that_has_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with pytest.raises(Conflict) as caught:
            check_free("127.0.0.1", port, "ports.rest")
    assert f"process {os.getpid()}" in caught.value.message
    assert "PRIME_SPARK_PORTS__REST" in (caught.value.hint or "")


def test_an_address_that_this_machine_does_not_have_is_wrong_input() -> None:
    with pytest.raises(InvalidInput, match="no address"):
        check_free("203.0.113.77", free_port(), "ports.rest")


def test_nobody_holds_a_free_port() -> None:
    assert holder(free_port()) == "a process of another user"
