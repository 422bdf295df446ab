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
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from typing import Any, Final

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig

from cluster.config import Settings, load_settings
from cluster.home import Home
from edge_runtime.errors import PrimeSparkError
from serve_apps.gateway.app import Gateway, engine_defaults
from serve_apps.inference import Inference

TIER_LABEL: Final = "prime-spark/tier"
SITE_LABEL: Final = "prime-spark/site"
NAMESPACE: Final = "prime-spark"
GATEWAY_ONGOING: Final = 4096  # the front door and the engines bound the work, not Serve
INFERENCE_ONGOING: Final = 1024


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
    """Run the applications on the cluster at `address`; returns when all of them are ready."""
    ray.init(
        address=address or "auto",
        namespace=NAMESPACE,
        log_to_driver=False,
        configure_logging=False,
        logging_level=logging.WARNING,
    )
    try:
        serve.start(proxy_location="Disabled")
        inference = [("cloud", settings.site)]
        if settings.edge.enabled:
            inference.append(("edge", settings.edge.site))
        for tier, site in inference:
            _say(f"{tier} inference", "deploying")
            serve.run(_inference(settings, tier, site), name=tier, route_prefix=None)
            _say(f"{tier} inference", "ready")
        _say("gateway", "deploying")
        serve.run(_gateway(settings), name="gateway", route_prefix=None)
        _say("gateway", "ready")
    finally:
        ray.shutdown()


def _inference(settings: Settings, tier: str, site: str) -> Any:
    scale = settings.inference
    deployment = serve.deployment(
        Inference,
        name="Inference",
        max_ongoing_requests=INFERENCE_ONGOING,
        max_queued_requests=INFERENCE_ONGOING,
        autoscaling_config=AutoscalingConfig(
            min_replicas=scale.min_replicas,
            initial_replicas=scale.min_replicas,
            max_replicas=scale.max_replicas if tier == "cloud" else scale.min_replicas,
            target_ongoing_requests=scale.target_ongoing_requests,
            upscale_delay_s=scale.upscale_delay_s,
            downscale_delay_s=scale.downscale_delay_s,
        ),
        ray_actor_options={
            "num_cpus": 0.1,
            "label_selector": {TIER_LABEL: tier, SITE_LABEL: site},
        },
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=10.0,
        graceful_shutdown_wait_loop_s=0.5,
    )
    home = Home.at(settings.home)
    return deployment.bind(str(home.registry), tier, site, engine_defaults(settings))


def _gateway(settings: Settings) -> Any:
    deployment = serve.deployment(
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
    print(json.dumps({"step": step, "state": state, "detail": detail}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
