"""Everything that can be set, with its default, as frozen models; `cluster.config` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, cast, get_args

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from cluster.cost.settings import BudgetsSettings, CostSettings
from cluster.sites import GeoIpSettings, Residency, Sites, check_zones
from edge_runtime.config import (
    Address,
    Count,
    EdgeSettings,
    EngineSettings,
    LimitSettings,
    Port,
    Seconds,
    Section,
    SiteName,
)

if TYPE_CHECKING:
    from policies.routing.ejection import EjectionRules

Objective = Literal["latency", "balanced", "cost"]  # as in `policies.routing`, which needs numpy


def _absolute(text: str) -> str:
    """Nodes run in other folders than the one where a relative home was meant."""
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError as error:
        raise ValueError(str(error)) from None


class Ports(Section):
    """TCP ports on `address` (rest, grpc) and on loopback (dashboard, gcs, edge_*)."""

    rest: Port = 8000
    grpc: Port = 9000
    dashboard: Port = 8265
    gcs: Port = 6379

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        if len({self.rest, self.grpc, self.dashboard, self.gcs}) < 4:
            raise ValueError("two of them are the same")
        return self


class Tls(Section):
    """Certificate chain and private key of the front door (PEM); plain HTTP when unset."""

    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _are_both_set(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate and its key belong together")
        return self


class FrontDoor(Section):
    """Bounds that hold before a request reaches a gateway replica.

    max_in_progress: requests that one replica has at once, for each of the two protocols; more
    wait a moment and are refused.
    """

    max_connections: Count = 4096
    max_in_progress: Count = 256
    header_timeout_s: Seconds = 10.0
    idle_timeout_s: Seconds = 75.0
    server_timeout_s: Seconds = 330.0


class GatewaySettings(Section):
    """replicas: gateways that run; max_replicas: slots behind the front door."""

    replicas: Count = 1
    max_replicas: Count = 4

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.replicas > self.max_replicas:
            raise ValueError("more replicas than max_replicas")
        return self


RuleName = Literal[
    "utility", "learned", "random", "weighted_random", "round_robin", "weighted_round_robin",
    "least_outstanding", "weighted_least_outstanding", "two_choices", "weighted_two_choices",
    "peak_ewma", "weighted_peak_ewma", "shortest_delay", "nearest",
]  # fmt: skip


class EjectionSettings(Section):
    """When a target that fails is left alone for a while.

    consecutive: failures in a row that do it; max_share: of the targets that are up, at most, and
    never the last one; base_s: the first time, longer by that for each repeat.
    """

    enabled: bool = True
    consecutive: Count = 5
    max_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    base_s: Annotated[float, Field(gt=0, le=120)] = 10.0

    def rules(self) -> EjectionRules | None:
        """Return the rules, None where ejection is switched off."""
        from policies.routing.ejection import EjectionRules

        if not self.enabled:
            return None
        return EjectionRules(
            consecutive=self.consecutive, max_share=self.max_share, base_s=self.base_s
        )


class RoutingSettings(Section):
    """How the gateway chooses among targets.

    rule: `utility` unless you know better, `learned` where places change speed or price; objective:
    `latency`, `balanced` or `cost`, for models that no pattern of objectives (`MODEL=OBJECTIVE`, as
    `batch-*=cost`) matches and requests that say none.
    """

    rule: RuleName = "utility"
    objective: Objective = "balanced"
    objectives: tuple[str, ...] = ()
    ejection: EjectionSettings = EjectionSettings()

    @field_validator("objectives")
    @classmethod
    def _are_pairs(cls, objectives: tuple[str, ...]) -> tuple[str, ...]:
        for text in objectives:
            pattern, _, objective = text.partition("=")
            if not pattern or objective not in get_args(Objective):
                known = ", ".join(get_args(Objective))
                raise ValueError(f"'{text}' is no MODEL=OBJECTIVE, with one of {known}")
        return objectives

    def by_model(self) -> tuple[tuple[str, Objective], ...]:
        """Return patterns of model names with their objectives."""
        parts = (text.partition("=") for text in self.objectives)
        return tuple((pattern, cast("Objective", objective)) for pattern, _, objective in parts)


SEASON_STARTS: Final = 9.6


class InferenceSettings(Section):
    """Autoscaling of the cloud tier.

    One replica by default: its engine uses all processors of a machine, and a second one beside
    it would only share them. Raise max_replicas with the number of cloud machines. With
    min_replicas 0 the tier sleeps after sleep_after_s without work, until a request needs it.

    scaling: `reactive` follows the requests in progress, `predictive` a forecast of what will come,
    and the former while that is no good. season_s: after which traffic repeats, 0 to find out;
    start_s: what a new replica takes to serve; utilisation: share of its time that a replica may be
    given by a forecast; budget_replicas: most replicas on average over any hour; spare_edge: plan
    as if the work of the busiest edge site came to the cloud.
    """

    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Count = 1
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 16.0
    upscale_delay_s: Seconds = 3.0
    downscale_delay_s: Seconds = 60.0
    sleep_after_s: Seconds = 300.0
    scaling: Literal["reactive", "predictive"] = "reactive"
    season_s: Annotated[float, Field(ge=0)] = 86400.0
    start_s: Seconds = 10.0
    utilisation: Annotated[float, Field(gt=0, le=1)] = 1.0
    budget_replicas: Annotated[float, Field(ge=1)] | None = None
    spare_edge: bool = False

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is more than max_replicas")
        if self.budget_replicas is not None:
            if self.scaling != "predictive":
                raise ValueError("budget_replicas needs scaling 'predictive'")
            if self.budget_replicas < self.min_replicas:
                raise ValueError("budget_replicas does not pay for min_replicas")
        # As `policies.scaling.Season.of`, which needs numpy.
        if 0 < self.season_s < SEASON_STARTS * self.start_s:
            raise ValueError(f"season_s is {SEASON_STARTS:g} times start_s at least, or 0")
        return self


class RaySettings(Section):
    """cpus: logical CPUs of the head (0: as many as the machine has).

    address: the node address that Ray's processes listen on. On loopback nothing of Ray can be
    reached from outside; nodes of other machines need the address of a trusted network.
    """

    address: Address = "127.0.0.1"
    cpus: Annotated[int, Field(ge=0)] = 0
    object_store_bytes: Annotated[int, Field(ge=78_643_200)] = 200 * 1024 * 1024


class Settings(Section):
    """Everything that can be set. address: where the front door listens.

    sites: where they are; residency: tenants whose requests may be computed in some zones only.
    """

    home: Annotated[str, AfterValidator(_absolute)] = "~/.prime-spark"
    profile: str = "local"
    address: Address = "127.0.0.1"
    site: SiteName = "cloud-1"
    sites: Sites = ()
    residency: Residency = ()
    geoip: GeoIpSettings = GeoIpSettings()
    ports: Ports = Ports()
    tls: Tls = Tls()
    front_door: FrontDoor = FrontDoor()
    gateway: GatewaySettings = GatewaySettings()
    routing: RoutingSettings = RoutingSettings()
    inference: InferenceSettings = InferenceSettings()
    engine: EngineSettings = EngineSettings()
    limits: LimitSettings = LimitSettings()
    edge: EdgeSettings = EdgeSettings()
    ray: RaySettings = RaySettings()
    cost: CostSettings = CostSettings()
    budgets: BudgetsSettings = BudgetsSettings()

    @field_validator("residency")
    @classmethod
    def _has_sites_in_every_zone(cls, rules: Residency, info: ValidationInfo) -> Residency:
        if "sites" in info.data:  # else that is what is wrong
            check_zones(info.data["sites"], rules)
        return rules
