"""A spent budget does to a request what its action says; gateways share what they spend."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from edge_runtime.errors import BudgetExceeded
from policies.cost import Action, Budget, Spending
from policies.cost.budget import window
from serve_apps.gateway.budgets import Budgets

T0 = 1_790_000_000.0
TURN = window("hour", T0)[1]


class Wall:
    """Unix seconds that a test sets."""

    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> float:
        return self.now


def gateway(folder: Path, wall: Wall, *budgets: Budget, name: str = "gateway-0") -> Budgets:
    return Budgets(Spending(budgets), folder, name, wall)


def budget(action: Action, usd: float = 1.0) -> Budget:
    return Budget(action, usd, "hour", action, tenant="acme")


async def admit(
    budgets: Budgets, *, tenant: str = "acme", can_wait: bool = False, slack_s: float = 30.0
) -> frozenset[str]:
    return await budgets.admit(tenant, "m", can_wait=can_wait, slack_s=slack_s)


@pytest.fixture
def wall() -> Wall:
    return Wall()


async def test_nobody_is_refused_before_the_budget_is_spent_or_for_that_of_another(
    tmp_path: Path, wall: Wall
) -> None:
    budgets = gateway(tmp_path, wall, budget("refuse"))
    budgets.spending.charge("acme", "m", 0.99, T0)
    assert await admit(budgets) == frozenset()
    budgets.spending.charge("acme", "m", 0.01, T0)
    assert await admit(budgets, tenant="other") == frozenset()
    with pytest.raises(BudgetExceeded) as error:
        await admit(budgets)
    assert error.value.retry_after_s == TURN - T0
    assert "1 dollars for this hour" in error.value.message
    wall.now = TURN
    assert await admit(budgets) == frozenset()


async def test_a_budget_that_only_alerts_lets_everything_pass_and_counts_it(
    tmp_path: Path, wall: Wall
) -> None:
    budgets = gateway(tmp_path, wall, budget("alert"))
    budgets.spending.charge("acme", "m", 2.0, T0)
    assert await admit(budgets) == frozenset()
    assert budgets.actions == {("alert", "alert"): 1}
    assert budgets.shares() == {"alert": 2.0}


async def test_a_budget_that_degrades_leaves_the_edge(tmp_path: Path, wall: Wall) -> None:
    budgets = gateway(tmp_path, wall, budget("degrade"))
    assert await admit(budgets) == frozenset()
    budgets.spending.charge("acme", "m", 1.0, T0)
    assert await admit(budgets) == {"edge"}


async def test_that_no_edge_place_could_serve_is_said_once_and_counted(
    tmp_path: Path, wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    budgets = gateway(tmp_path, wall, budget("degrade"))
    for is_cheap in (False, False, True, False):
        budgets.degraded(is_cheap=is_cheap)
    assert budgets.without_cheap_place == 3
    assert caplog.text.count("no edge place") == 2


async def test_a_batch_request_waits_for_the_turn_where_it_has_the_time_and_others_pass(
    tmp_path: Path, wall: Wall
) -> None:
    budgets = gateway(tmp_path, wall, budget("queue"))
    budgets.spending.charge("acme", "m", 1.0, T0)
    assert await admit(budgets) == frozenset()
    with pytest.raises(BudgetExceeded) as error:
        await admit(budgets, can_wait=True)
    assert error.value.retry_after_s == TURN - T0
    wall.now = TURN - 0.02
    waiting = asyncio.create_task(admit(budgets, can_wait=True))
    await asyncio.sleep(0)
    assert not waiting.done()
    wall.now = TURN
    assert await waiting == frozenset()
    assert budgets.actions == {("queue", "queue"): 2}


async def test_an_exceeded_budget_that_refuses_outweighs_one_that_degrades(
    tmp_path: Path, wall: Wall
) -> None:
    budgets = gateway(tmp_path, wall, budget("degrade"), budget("refuse", usd=2.0))
    budgets.spending.charge("acme", "m", 1.0, T0)
    assert await admit(budgets) == {"edge"}
    budgets.spending.charge("acme", "m", 1.0, T0)
    with pytest.raises(BudgetExceeded):
        await admit(budgets)


async def test_gateways_hold_one_budget_together_and_a_restart_forgets_nothing(
    tmp_path: Path, wall: Wall
) -> None:
    one = gateway(tmp_path, wall, budget("refuse"))
    two = gateway(tmp_path, wall, budget("refuse"), name="gateway-1")
    one.spending.charge("acme", "m", 0.5, T0)
    two.spending.charge("acme", "m", 0.25, T0)
    for _ in range(3):
        await one.exchange()
        await two.exchange()
    assert one.shares() == two.shares() == {"refuse": 0.75}
    again = gateway(tmp_path, wall, budget("refuse"))
    again.restore()
    assert again.shares() == {"refuse": 0.75}
    again.spending.charge("acme", "m", 0.25, T0)
    await again.exchange()
    await two.exchange()
    with pytest.raises(BudgetExceeded):
        await admit(two)


async def test_what_was_spent_last_is_written_when_the_gateway_stops(
    tmp_path: Path, wall: Wall
) -> None:
    one = gateway(tmp_path, wall, budget("refuse"))
    task = asyncio.create_task(one.run())
    await asyncio.sleep(0)
    one.spending.charge("acme", "m", 0.5, T0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    again = gateway(tmp_path, wall, budget("refuse"))
    again.restore()
    assert again.shares() == {"refuse": 0.5}


async def test_shares_that_are_reached_are_logged_once(
    tmp_path: Path, wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    budgets = gateway(tmp_path, wall, budget("alert"))
    budgets.spending.charge("acme", "m", 0.8, T0)
    for _ in range(2):
        await budgets.exchange()
    assert [record.args[1] for record in caplog.records if record.args] == [80.0]  # type: ignore[index]


async def test_a_home_that_cannot_be_written_fails_no_request(
    tmp_path: Path, wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "budgets"
    folder.write_text("a file where the folder should be")
    budgets = gateway(folder, wall, budget("refuse"))
    budgets.restore()
    budgets.spending.charge("acme", "m", 0.5, T0)
    await budgets.exchange()
    await budgets.exchange()
    assert await admit(budgets) == frozenset()
    assert caplog.text.count("cannot be written") == 1
