"""What gateways spent, told in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.cost.spending import read_spent, write_spent
from policies.cost import Spent

SAID = {"all": Spent("day", 1_790_000_000.0, 0.1 + 0.2), "a": Spent("month", 0.0, 3.0)}


def test_what_a_gateway_wrote_is_what_the_others_read(tmp_path: Path) -> None:
    folder = tmp_path / "budgets"
    assert read_spent(folder) == {}
    write_spent(folder, "gateway-0", SAID)
    write_spent(folder, "gateway-1", {})
    write_spent(folder, "gateway-1", {"all": SAID["all"]})
    assert read_spent(folder) == {"gateway-0": SAID, "gateway-1": {"all": SAID["all"]}}


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b'{"v": 2, "spent": {}}', b"\xff", b'{"v": 1}',
        b'{"v": 1, "spent": {"all": {"period": "day", "begin": 1}}}',
        b'{"v": 1, "spent": {"all": {"period": "year", "begin": 1, "usd": 1}}}',
        b'{"v": 1, "spent": {"all": {"period": "day", "begin": 1, "usd": "much"}}}',
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_says_nothing_and_spoils_no_other(
    tmp_path: Path, text: bytes
) -> None:
    write_spent(tmp_path, "gateway-0", SAID)
    (tmp_path / "gateway-1.json").write_bytes(text)
    assert read_spent(tmp_path) == {"gateway-0": SAID, "gateway-1": {}}
