"""Settings that hold for every test, which of them may run side by side, what is not traced.

`make test` runs the suite in several processes (pytest-xdist). The tests of a file stay in one, so
that they share what their file starts; clusters and whole benchmarks, which take all of a machine,
are one unit of work, so that never two of those are under way together.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from tests.leftovers import sweep

# Machines are shared: that inputs were made slowly says nothing about the code.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

UNITS: Final = (
    ("tests/e2e/", "tests/load/chaos/", "tests/load/edge/"),  # need the machine
    ("tests/contract/",),  # share servers
    ("tests/train/",),  # share a trained model, and that torch was imported
)

# Simulations decide so often that tracing them took twice as long as running them; what they decide
# with is covered where it is tested (tests/policies).
UNTRACED: Final = ("tests/load/routing/", "tests/load/scaling/", "tests/load/simulator/")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remove what earlier runs that were killed left behind; once, where there are workers."""
    if not hasattr(session.config, "workerinput"):
        sweep()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Leave simulations out of the measurement of coverage.

    pytest-cov 7's marker `no_cover` does not, in a worker: there two measurements are nested, and
    where it stops the inner one the outer goes on.
    """
    if not item.nodeid.startswith(UNTRACED):
        return (yield)
    tracing = sys.gettrace()
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracing)


@pytest.hookimpl(optionalhook=True)  # unknown where the plugin is switched off
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Hand out units of work, those with the most tests first."""
    from xdist.scheduler import LoadScopeScheduling

    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = unit_of
    return scheduling


def unit_of(nodeid: str) -> str:
    """Return the unit of work that a test belongs to: its file, or what its folder goes with."""
    file = nodeid.partition("::")[0]
    return next((unit[0] for unit in UNITS if file.startswith(unit)), file)
