from __future__ import annotations

import json
from pathlib import Path

from serve_apps.scaling import spool
from serve_apps.scaling.spool import GatewayCounts, Outlook, OutlookReader


def test_what_was_written_is_read_and_old_counts_are_left_out(tmp_path: Path) -> None:
    counts = GatewayCounts(
        "a", 10.0, {"m": {"cloud": 3}}, {"m": 0.02}, 2, 0.5, 0.1, {"m": 3}, waiting=1
    )
    spool.write(spool.counts_path(tmp_path, 0), counts)
    spool.write(spool.counts_path(tmp_path, 1), GatewayCounts("b", 4.0))
    assert spool.read_counts(tmp_path, 11.0, fresh_s=5.0) == {"gateway-0.json": counts}


def test_files_that_are_damaged_or_newer_do_no_harm(tmp_path: Path) -> None:
    spool.counts_path(tmp_path, 0).write_text("{")
    spool.counts_path(tmp_path, 1).write_text("[1]")
    newer = {"life": "c", "at_s": 10.0, "colour": "blue"}
    spool.counts_path(tmp_path, 2).write_text(json.dumps(newer))
    found = spool.read_counts(tmp_path, 10.0, fresh_s=5.0)
    assert found == {"gateway-2.json": GatewayCounts("c", 10.0)}


def test_a_forecast_is_read_until_it_is_stale(tmp_path: Path) -> None:
    now = [100.0]
    reader = OutlookReader(tmp_path, lambda: now[0])
    assert reader.read() is None
    spool.write(spool.forecast_path(tmp_path), Outlook(100.0, peak=1.0))
    assert reader.read() == Outlook(100.0, peak=1.0)
    spool.write(spool.forecast_path(tmp_path), Outlook(101.0, peak=2.0))
    now[0] = 101.5
    assert reader.read() == Outlook(101.0, peak=2.0)
    now[0] = 101.0 + spool.STALE_S + 0.1
    assert reader.read() is None


def test_a_forecast_that_is_damaged_is_none(tmp_path: Path) -> None:
    reader = OutlookReader(tmp_path, lambda: 100.0)
    for text in ("", "{", "3", "{}"):
        spool.forecast_path(tmp_path).write_text(text)
        assert reader.read() is None
