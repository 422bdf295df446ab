"""The gateway's metrics: decisions and targets, read at scrape time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_runtime.engine import Engine
from edge_runtime.engine.metrics import EngineCollector
from edge_runtime.protocol.body import ByteBudget
from edge_runtime.protocol.gate import Gate
from policies.cost import PARTS
from serve_apps.gateway.budgets import Budgets
from serve_apps.gateway.decisions import DecisionLog
from serve_apps.gateway.ledger import Ledger
from serve_apps.gateway.shadows import Shadows
from serve_apps.gateway.targets import TargetTable
from serve_apps.scaling.spool import Outlook


class GatewayCollector(Collector):
    """Yields what the dispatcher and the target table know."""

    def __init__(
        self, log: DecisionLog, targets: TargetTable, budget: ByteBudget, gate: Gate
    ) -> None:
        self._log = log
        self._targets = targets
        self._budget = budget
        self._gate = gate

    def collect(self) -> Iterator[Metric]:
        labels = ("target", "reason", "outcome")
        attempts = CounterMetricFamily(
            "prime_spark_gateway_attempts", "Requests sent to a target.", labels=labels
        )
        seconds = CounterMetricFamily(
            "prime_spark_gateway_attempt_seconds", "Seconds until they ended.", labels=labels
        )
        for key, count in self._log.counts.items():
            attempts.add_metric(key, count)
            seconds.add_metric(key, self._log.taken_s[key])
        yield attempts
        yield seconds
        yield CounterMetricFamily(
            "prime_spark_gateway_decisions",
            "Decisions where a request goes, or that it goes nowhere.",
            value=self._log.decisions,
        )
        yield CounterMetricFamily(
            "prime_spark_gateway_decision_seconds",
            "Seconds that they took, the look at the engine beside the gateway included.",
            value=self._log.deciding_s,
        )
        up = GaugeMetricFamily(
            "prime_spark_gateway_target_up",
            "1 while the target answers, or sleeps.",
            labels=("target",),
        )
        ejected = GaugeMetricFamily(
            "prime_spark_gateway_target_ejected",
            "1 while it gets no requests because it failed too many.",
            labels=("target",),
        )
        now_ejected = self._targets.ejections.now()
        for target in self._targets:
            up.add_metric((target.name,), float(target.is_up))
            ejected.add_metric((target.name,), float(target.name in now_ejected))
        yield up
        yield ejected
        yield GaugeMetricFamily(
            "prime_spark_gateway_body_bytes", "Request bodies held now.", value=self._budget.used
        )
        yield GaugeMetricFamily(
            "prime_spark_gateway_requests_in_progress",
            "Inference requests in progress now.",
            value=self._gate.in_progress,
        )
        yield CounterMetricFamily(
            "prime_spark_gateway_shed",
            "Requests refused because the gateway was behind with them.",
            value=self._gate.refused,
        )


class SleepCollector(Collector):
    """Yields who sleeps, how often and how long starts took, and who waited for them."""

    def __init__(self, targets: TargetTable) -> None:
        self._targets = targets

    def collect(self) -> Iterator[Metric]:
        asleep = GaugeMetricFamily(
            "prime_spark_gateway_target_asleep",
            "1 while no replica runs, and one starts when a request needs it.",
            labels=("target",),
        )
        wakes = CounterMetricFamily(
            "prime_spark_gateway_wakes", "Times that a target was woken.", labels=("target",)
        )
        starting = CounterMetricFamily(
            "prime_spark_gateway_wake_seconds", "Seconds until it was up.", labels=("target",)
        )
        waits = CounterMetricFamily(
            "prime_spark_gateway_wake_waits",
            "Requests that waited for a start, by how that ended.",
            labels=("target", "outcome"),
        )
        waited = CounterMetricFamily(
            "prime_spark_gateway_wake_wait_seconds", "Seconds that they waited.", labels=("target",)
        )
        for target in self._targets:
            if target.sleep is not None:
                asleep.add_metric((target.name,), float(target.sleep.is_asleep))
                wakes.add_metric((target.name,), target.sleep.wakes)
                starting.add_metric((target.name,), target.sleep.starting_s)
                waited.add_metric((target.name,), target.sleep.waited_s)
                for outcome, count in target.sleep.waits.items():
                    waits.add_metric((target.name, outcome), count)
        yield from (asleep, wakes, starting, waits, waited)


class CostCollector(Collector):
    """Yields what serving cost, what became of the request log, and how budgets stand."""

    def __init__(self, ledger: Ledger, budgets: Budgets) -> None:
        self._ledger = ledger
        self._budgets = budgets

    def collect(self) -> Iterator[Metric]:
        usd = CounterMetricFamily(
            "prime_spark_gateway_cost_usd", "Dollars by part.", labels=("target", "part")
        )
        joules = CounterMetricFamily(
            "prime_spark_gateway_energy_joules", "Energy of computing.", labels=("target",)
        )
        carbon = CounterMetricFamily(
            "prime_spark_gateway_carbon_grams", "CO2 equivalent of it.", labels=("target",)
        )
        for target, cost in self._ledger.costs.items():
            for part in PARTS:
                usd.add_metric((target, part), getattr(cost, part))
            joules.add_metric((target,), cost.joules)
            carbon.add_metric((target,), cost.carbon_g)
        yield usd
        yield joules
        yield carbon
        log = self._ledger.log
        for what, count in (
            ("written", log.written if log else 0),
            ("dropped", log.dropped if log else 0),
        ):
            yield CounterMetricFamily(
                f"prime_spark_gateway_request_log_{what}",
                f"Records of the request log that were {what}.",
                value=count,
            )
        share = GaugeMetricFamily(
            "prime_spark_gateway_budget_spent_ratio",
            "Spent of a budget in its window, by all gateways.",
            labels=("budget",),
        )
        for name, spent in self._budgets.shares().items():
            share.add_metric((name,), spent)
        yield share
        actions = CounterMetricFamily(
            "prime_spark_gateway_budget_actions",
            "Requests that met a spent budget.",
            labels=("budget", "action"),
        )
        for key, count in self._budgets.actions.items():
            actions.add_metric(key, count)
        yield actions
        yield CounterMetricFamily(
            "prime_spark_gateway_budget_without_cheap_place",
            "Requests that a budget sent to the edge, and no edge place could serve.",
            value=self._budgets.without_cheap_place,
        )


class ShadowCollector(Collector):
    """Yields what came of copies of requests."""

    def __init__(self, shadows: Shadows) -> None:
        self._shadows = shadows

    def collect(self) -> Iterator[Metric]:
        found = CounterMetricFamily(
            "prime_spark_gateway_shadows",
            "Copies of requests by what came of them.",
            labels=("model", "version", "outcome"),
        )
        for key, count in self._shadows.counts.items():
            found.add_metric(key, count)
        yield found


class ScalingCollector(Collector):
    """Yields what the forecaster says. outlook: reads it, None where there is none."""

    def __init__(self, outlook: Callable[[], Outlook | None]) -> None:
        self._outlook = outlook

    def collect(self) -> Iterator[Metric]:
        work = GaugeMetricFamily(
            "prime_spark_scaling_work_ratio",
            "Work for the cloud tier, in replicas that it keeps fully busy.",
            labels=("when",),
        )
        usable = GaugeMetricFamily(
            "prime_spark_scaling_forecast_usable", "1 while scaling may follow the forecast."
        )
        found = self._outlook()
        if found is not None and found.capacity > 0:
            work.add_metric(("now",), found.fast_rate / found.capacity)
            work.add_metric(("expected",), found.peak / found.capacity)
            usable.add_metric((), float(not found.why_not))
        yield work
        yield usable


def metrics_text(
    engine: Engine,
    log: DecisionLog,
    targets: TargetTable,
    budget: ByteBudget,
    gate: Gate,
    ledger: Ledger,
    budgets: Budgets,
    shadows: Shadows,
    outlook: Callable[[], Outlook | None] = lambda: None,
) -> Callable[[], tuple[bytes, str]]:
    """Return what `/metrics` answers with, over a registry of its own (nothing global)."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(engine))
    registry.register(GatewayCollector(log, targets, budget, gate))
    registry.register(SleepCollector(targets))
    registry.register(CostCollector(ledger, budgets))
    registry.register(ShadowCollector(shadows))
    registry.register(ScalingCollector(outlook))
    return lambda: (generate_latest(registry), CONTENT_TYPE_LATEST)
