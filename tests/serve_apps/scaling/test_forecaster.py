from __future__ import annotations

import warnings
from pathlib import Path

from serve_apps.scaling import spool
from serve_apps.scaling.ledger import Ledger
from serve_apps.scaling.spool import GatewayCounts, OutlookReader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray 2.60 uses what pydantic is going to remove
    from serve_apps.scaling.forecaster import step


def test_gateways_that_say_nothing_are_no_sign_that_nothing_comes(tmp_path: Path) -> None:
    ledger = Ledger(240.0, 5.0, spare_edge=False)
    reader = OutlookReader(tmp_path, lambda: 13.0)
    step(ledger, tmp_path, 1000.0, 9.0)
    assert reader.read() is None
    spool.write(spool.counts_path(tmp_path, 0), GatewayCounts("a", 10.0))
    step(ledger, tmp_path, 1001.0, 10.0)
    step(ledger, tmp_path, 1020.0, 29.0)  # the gateway has been silent since
    found = reader.read()
    assert found is not None
    assert found.at_s == 10.0
