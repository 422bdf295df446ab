"""Puts the Serve applications on a running cluster: cloud and edge inference, then the gateway.

`prime-spark up` runs this as a child process (`python -m serve_apps.deploy`), because a driver
needs Ray and the command line does not. Each step is one JSON line on standard output:
`{"step": "...", "state": "deploying|ready|failed", "detail": "..."}`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from typing import Any, Final

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.schema import ApplicationStatus, LoggingConfig

from cluster.config import Settings, load_settings
from cluster.home import Home
from cluster.nodes import SITE_LABEL, TIER_LABEL
from edge_runtime.errors import PrimeSparkError, Unavailable
from serve_apps.edge_forwarder import EdgeForwarder
from serve_apps.gateway.app import Gateway
from serve_apps.inference import Inference
from serve_apps.replica_router import PATH as ROUTER
from serve_apps.scaling.forecaster import Forecaster

NAMESPACE: Final = "prime-spark"
GATEWAY_ONGOING: Final = 4096  # the front door and the engines bound the work, not Serve
INFERENCE_ONGOING: Final = 1024
READY_TIMEOUT_S: Final = 120.0
POLL_S: Final = 0.1


def main(arguments: list[str] | None = None) -> int:
    """Deploy everything and wait until it runs; 0 when it does."""
    parser = argparse.ArgumentParser(prog="serve_apps.deploy", description=__doc__)
    parser.add_argument("--home", required=True, help="the home whose cluster is running")
    parser.add_argument("--address", default=None, help="the head's address (host:port)")
    options = parser.parse_args(arguments)
    logging.getLogger("ray").setLevel(logging.WARNING)
    settings = load_settings(env=os.environ, overrides={"home": options.home})
    try:
        deploy(settings, options.address)
    except PrimeSparkError as error:
        _say("deploy", "failed", error.message)
        return 1
    return 0


def deploy(settings: Settings, address: str | None) -> None:
    """Run the applications on the cluster at `address`; returns when all of them are ready.

    Raises Unavailable when one fails or is not ready in time.
    """
    ray.init(
        address=address or "auto",
        namespace=NAMESPACE,
        log_to_driver=False,
        configure_logging=False,
        logging_level=logging.WARNING,
    )
    try:
        serve.start(proxy_location="Disabled")
        applications = {"cloud": _inference(settings, "cloud", settings.site)}
        if settings.edge.enabled:
            applications["edge"] = _edge(settings)
        if _is_predictive(settings):
            applications["scaling"] = _forecaster(settings)
        applications["gateway"] = _gateway(settings)
        for name in applications:
            _say(name, "deploying")
        here = str(Home.at(settings.home).logs / "serve")
        serve.run_many(
            [
                serve.RunTarget(
                    application,
                    name=name,
                    route_prefix=None,
                    logging_config=LoggingConfig(
                        log_level="WARNING",  # else it composes a line for every call, to drop it
                        enable_access_log=False,
                        # A box elsewhere has no such path, and keeps them in Ray's session.
                        logs_dir=here if name != "edge" or settings.edge.here else None,
                    ),
                )
                for name, application in applications.items()
            ],
            wait_for_applications_running=False,
            wait_for_ingress_deployment_creation=False,
        )
        # Boxes elsewhere come when they can; the cluster is ready without them.
        _wait(set(applications) - (set() if settings.edge.here else {"edge"}))
    finally:
        ray.shutdown()


def _wait(pending: set[str]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while pending:
        for name, status in serve.status().applications.items():
            if name not in pending:
                continue
            if status.status == ApplicationStatus.RUNNING:
                pending.discard(name)
                _say(name, "ready")
            elif status.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
                raise Unavailable(f"application '{name}' failed: {_why(status)}")
        if pending and time.monotonic() > deadline:
            late = ", ".join(sorted(pending))
            raise Unavailable(f"not ready after {READY_TIMEOUT_S:.0f} s: {late}")
        time.sleep(POLL_S)


def _why(status: Any) -> str:
    messages = [status.message, *(d.message for d in status.deployments.values())]
    return " ".join(" ".join(text.split()) for text in messages if text)[-600:]


def _inference(settings: Settings, tier: str, site: str) -> Any:
    router: dict[str, Any] = {"request_router_class": ROUTER}
    deployment: Any = serve.deployment(  # typed as a decorator even when it is given the class
        Inference,
        name="Inference",
        max_ongoing_requests=INFERENCE_ONGOING,
        max_queued_requests=INFERENCE_ONGOING,
        request_router_config=RequestRouterConfig(**router),
        **_scaling(settings, tier),
        ray_actor_options={
            "num_cpus": 0.1,
            "label_selector": {TIER_LABEL: tier, SITE_LABEL: site},
        },
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=10.0,
        graceful_shutdown_wait_loop_s=0.5,
    )
    return deployment.bind(settings, tier)


def _edge(settings: Settings) -> Any:
    """The forwarder; each edge node has one runtime, and one forwarder is enough for it."""
    deployment: Any = serve.deployment(
        EdgeForwarder,
        name="Inference",
        num_replicas=1,
        max_ongoing_requests=INFERENCE_ONGOING,
        max_queued_requests=INFERENCE_ONGOING,
        ray_actor_options={
            "num_cpus": 0.1,
            "label_selector": {TIER_LABEL: "edge", SITE_LABEL: settings.edge.site},
        },
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=10.0,
        graceful_shutdown_wait_loop_s=0.5,
    )
    return deployment.bind(settings)


def _scaling(settings: Settings, tier: str) -> dict[str, Any]:
    """Return Serve's scaling arguments; where nothing can scale, no handle has to count for it."""
    scale = settings.inference
    most = scale.max_replicas if tier == "cloud" else scale.min_replicas
    if most == scale.min_replicas:
        return {"num_replicas": most}
    config: dict[str, Any] = {
        "min_replicas": scale.min_replicas,
        "initial_replicas": max(1, scale.min_replicas),  # the first start shows what is wrong
        "max_replicas": most,
        "target_ongoing_requests": scale.target_ongoing_requests,
        "upscale_delay_s": scale.upscale_delay_s,
        "downscale_delay_s": scale.downscale_delay_s,
        "downscale_to_zero_delay_s": scale.sleep_after_s,
    }
    if _is_predictive(settings):
        home = Home.at(settings.home)
        config["policy"] = AutoscalingPolicy(
            policy_function="serve_apps.scaling.policy:PredictivePolicy",
            policy_kwargs={
                "settings": settings.model_dump(mode="json"),
                "run": str(home.scaling_run),
                "log": str(home.scaling_log),
            },
        )
        # The rule has delays of its own; Serve would add its on top.
        config |= dict.fromkeys((name for name in config if name.endswith("_delay_s")), 0.0)
    return {"autoscaling_config": AutoscalingConfig(**config)}


def _is_predictive(settings: Settings) -> bool:
    scale = settings.inference
    return scale.scaling == "predictive" and scale.max_replicas > scale.min_replicas


def _forecaster(settings: Settings) -> Any:
    deployment: Any = serve.deployment(
        Forecaster,
        name="Forecaster",
        num_replicas=1,
        # Where the gateways and Serve's controller are: they share files.
        ray_actor_options={
            "num_cpus": 0,
            "label_selector": {TIER_LABEL: "cloud", SITE_LABEL: settings.site},
        },
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=5.0,
        graceful_shutdown_wait_loop_s=0.5,
    )
    return deployment.bind(settings)


def _gateway(settings: Settings) -> Any:
    deployment: Any = serve.deployment(
        Gateway,
        name="Gateway",
        num_replicas=settings.gateway.replicas,
        max_ongoing_requests=GATEWAY_ONGOING,
        ray_actor_options={"num_cpus": 0.1, "label_selector": {TIER_LABEL: "cloud"}},
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=15.0,
        graceful_shutdown_wait_loop_s=0.5,
    )
    return deployment.bind(settings, _version())


def _version() -> str:
    try:
        return distribution_version("prime-spark")
    except PackageNotFoundError:
        return "0"


def _say(step: str, state: str, detail: str = "") -> None:
    sys.stdout.write(json.dumps({"step": step, "state": state, "detail": detail}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
