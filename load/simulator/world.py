"""What is simulated: sites, gateways, nodes, links, faults and the requests' deadlines.

`reference()` is the mixed fleet that the benchmarks use: three sites with a Hailo box each, two of
them with a box that computes on its processor, and two replicas in the cloud. Its service times
are stated assumptions of the size that was measured on such parts, its prices those of the default
price book.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from cluster.cost.prices import read_book
from load.simulator.service import Service
from policies.cost import PriceBook, Rates

Discipline = Literal["fifo", "edf"]
CLOUD = "cloud"


@dataclass(frozen=True)
class EngineSpec:
    """A node that serves as the product's engine does (`load.simulator.engine`).

    workers: batches under way at once; is_serial: what runs them computes one after another;
    max_queue, max_wait_s: beyond which it refuses requests.
    """

    workers: int = 1
    is_serial: bool = False
    max_queue: int = 256
    max_wait_s: float = 1.0


@dataclass(frozen=True)
class NodeSpec:
    """A place that computes one batch at a time.

    A batch takes base_s x (fixed x largest work + (1 - fixed) x sum of works); usd_per_s of
    computing, usd_per_byte of moving a request there from another site.

    place: the target that it is a replica of, itself when empty. services: what each model takes
    here; only those that are named are served, any when there are none. way_s: there and back from
    a gateway of any site; that of the sites when None. prior_s: what gateways take a request to
    take here before they learn, base_s when None; spread: of run times here, the world's when None;
    engine: how it serves, as well as can be (`Node`)
    when None.
    """

    name: str
    site: str
    tier: str
    base_s: float
    max_batch: int = 1
    fixed: float = 0.55
    usd_per_s: float = 0.0
    usd_per_byte: float = 0.0
    place: str = ""
    services: Mapping[str, Service] = field(default_factory=dict)
    way_s: float | None = None
    prior_s: float | None = None
    spread: float | None = None
    engine: EngineSpec | None = None

    @property
    def target(self) -> str:
        """The name that gateways know it by."""
        return self.place or self.name

    def serves(self, model: str) -> bool:
        return not self.services or model in self.services

    def usual_work(self, model: str) -> float:
        """Return the work of a usual request of a model, in units of base_s."""
        service = self.services.get(model)
        return service.usual_s / self.base_s if service is not None else 1.0


@dataclass(frozen=True)
class Throttle:
    """A node, or all replicas of a target, slower by a factor from begin_s to end_s.

    every_s: it happens again after so long; 0: once.
    """

    node: str
    begin_s: float
    end_s: float
    factor: float
    every_s: float = 0.0

    def holds(self, now: float) -> bool:
        since_s = now - self.begin_s
        if self.every_s and since_s >= 0.0:
            since_s %= self.every_s
        return 0.0 <= since_s < self.end_s - self.begin_s


@dataclass(frozen=True)
class PriceChange:
    """What a target costs from at_s on; see `NodeSpec`."""

    target: str
    at_s: float
    usd_per_s: float
    usd_per_byte: float


@dataclass(frozen=True)
class Cut:
    """A site that reaches nothing but itself from begin_s to end_s.

    other: the one site that it does not reach; all of them when empty.
    """

    site: str
    begin_s: float
    end_s: float
    other: str = ""

    def separates(self, one: str, two: str) -> bool:
        if self.other:
            return {one, two} == {self.site, self.other}
        return one != two and self.site in (one, two)


@dataclass(frozen=True)
class Start:
    """A node that is not there from the beginning: started at begin_s, it serves cold_s later."""

    node: str
    begin_s: float
    cold_s: float


@dataclass(frozen=True)
class World:
    """All of it. classes: (share, deadline in seconds) of requests; spread: of run times (the
    standard deviation of their logarithm); report_s: between reports of a node.

    lost_s: until the sender of a message that vanished notices; dead_s: of silence until a gateway
    takes a node for dead.

    sites: those with gateways; gateways: how many each of them has, one where it says nothing.
    rtts: there and back between two sites, where the three general times do not say it. gives_up:
    a gateway waits for no answer beyond its deadline; else late answers count as late. calls: that
    a gateway has under way to one replica at most, any number when 0. gateway_s: that a gateway
    works for each request, one after another: a half before it decides, the other at the answer.
    """

    sites: tuple[str, ...]
    nodes: tuple[NodeSpec, ...]
    own_rtt_s: float = 0.003
    other_rtt_s: float = 0.040
    cloud_rtt_s: float = 0.060
    classes: tuple[tuple[float, float], ...] = ((0.7, 0.150), (0.3, 1.0))
    bytes_per_work: float = 2e5
    spread: float = 0.05
    report_s: float = 0.25
    lost_s: float = 0.5
    dead_s: float = 2.0
    throttles: tuple[Throttle, ...] = ()
    cuts: tuple[Cut, ...] = ()
    price_changes: tuple[PriceChange, ...] = ()
    zones: Mapping[str, str] = field(default_factory=dict)
    starts: tuple[Start, ...] = ()
    gateways: Mapping[str, int] = field(default_factory=dict)
    rtts: Mapping[frozenset[str], float] = field(default_factory=dict)
    gives_up: bool = False
    calls: int = 0
    gateway_s: float = 0.0

    @property
    def capacity(self) -> float:
        """Requests of mean work a second without batching."""
        return sum(1.0 / node.base_s for node in self.nodes)

    def rtt_s(self, site: str, other: str) -> float:
        known = self.rtts.get(frozenset((site, other)))
        if known is not None:
            return known
        if site == other:
            return self.own_rtt_s
        return self.cloud_rtt_s if CLOUD in (site, other) else self.other_rtt_s

    def way_s(self, site: str, node: NodeSpec) -> float:
        """Return seconds on the way from a gateway of a site to a node, there and back."""
        return self.rtt_s(site, node.site) if node.way_s is None else node.way_s

    def cut_since(self, site: str, other: str, now: float) -> float | None:
        """Return since when two sites do not reach one another, None when they do."""
        if not self.cuts or site == other:
            return None
        begins = [
            cut.begin_s
            for cut in self.cuts
            if cut.begin_s <= now < cut.end_s and cut.separates(site, other)
        ]
        return min(begins, default=None)

    def edges_s(self) -> list[float]:
        """Return the times at which a fault begins or ends, or a node starts."""
        once = [at for cut in self.cuts for at in (cut.begin_s, cut.end_s)]
        return sorted([*once, *(start.begin_s + start.cold_s for start in self.starts)])


def reference_rates(book: PriceBook | None = None) -> dict[str, Rates]:
    """Return what each node of `reference()` costs. book: the default one when None."""
    book = book or read_book()
    # Between plants requests move over a network that is paid for anyway.
    hailo = book.rates_of("hailo-box", "site", egress_usd_per_gb=0.0)
    pi = book.rates_of("pi", "site", egress_usd_per_gb=0.0)
    cloud = book.rates("cloud", CLOUD)
    return {
        **{f"hailo-{i}": hailo for i in (1, 2, 3)},
        **{f"cpu-{i}": pi for i in (1, 2)},
        **{f"cloud-{i}": cloud for i in (1, 2)},
    }


def reference(book: PriceBook | None = None) -> World:
    """Return the mixed fleet of the benchmarks. book: the default one when None."""
    sites = ("plant-1", "plant-2", "plant-3")
    hailo = [NodeSpec(f"hailo-{i}", site, "edge", 0.046, 8) for i, site in enumerate(sites, 1)]
    cpu = [NodeSpec(f"cpu-{i}", site, "edge", 0.165) for i, site in enumerate(sites[:2], 1)]
    cloud = [NodeSpec(f"cloud-{i}", CLOUD, "cloud", 0.012, 8) for i in (1, 2)]
    rates = reference_rates(book)
    return World(
        sites,
        tuple(
            replace(
                node,
                usd_per_s=rates[node.name].usd_per_s,
                usd_per_byte=rates[node.name].egress_usd_per_byte,
            )
            for node in (*hailo, *cpu, *cloud)
        ),
    )
