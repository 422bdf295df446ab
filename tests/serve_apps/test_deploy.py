"""What `deploy` asks of Serve, and how it tells what happens; nothing is started here."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from cluster.config import Settings, load_settings
from cluster.nodes import SITE_LABEL, TIER_LABEL

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray 2.60 uses what pydantic is going to remove
    from ray.serve._private.common import DeploymentStatus, DeploymentStatusTrigger
    from ray.serve.schema import (
        ApplicationStatus,
        ApplicationStatusOverview,
        DeploymentStatusOverview,
    )

    from serve_apps import deploy
    from serve_apps.replica_router import PATH as ROUTER
    from serve_apps.scaling.policy import PredictivePolicy


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    variables = {
        "PRIME_SPARK_SITE": "dc",
        "PRIME_SPARK_EDGE__SITE": "lab",
        "PRIME_SPARK_INFERENCE__MIN_REPLICAS": "2",
        "PRIME_SPARK_INFERENCE__MAX_REPLICAS": "5",
        "PRIME_SPARK_INFERENCE__UPSCALE_DELAY_S": "3",
        "PRIME_SPARK_INFERENCE__DOWNSCALE_DELAY_S": "40",
        "PRIME_SPARK_GATEWAY__REPLICAS": "2",
    }
    return load_settings(env=variables, overrides={"home": str(tmp_path)})


def _deployment(application: Any) -> Any:
    return application._bound_deployment


def test_a_tier_runs_on_nodes_with_its_labels_only(settings: Settings) -> None:
    for tier, site in (("cloud", "dc"), ("edge", "lab")):
        found = _deployment(deploy._inference(settings, tier, site))
        assert found.ray_actor_options["label_selector"] == {TIER_LABEL: tier, SITE_LABEL: site}
        assert found.init_args == (settings, tier)
        assert found._deployment_config.request_router_config.request_router_class == ROUTER


def test_the_cloud_scales_within_the_settings_and_an_edge_node_does_not(
    settings: Settings,
) -> None:
    cloud = _deployment(deploy._inference(settings, "cloud", "dc"))._deployment_config
    scale = cloud.autoscaling_config
    assert (scale.min_replicas, scale.max_replicas) == (2, 5)
    assert (scale.upscale_delay_s, scale.downscale_delay_s) == (3.0, 40.0)
    edge = _deployment(deploy._inference(settings, "edge", "lab"))._deployment_config
    assert (edge.autoscaling_config, edge.num_replicas) == (None, 2)


def test_a_tier_that_may_sleep_starts_awake_and_ends_its_last_replica_late(
    settings: Settings,
) -> None:
    scale = settings.inference.model_copy(update={"min_replicas": 0, "sleep_after_s": 90.0})
    settings = settings.model_copy(update={"inference": scale})
    found = _deployment(deploy._inference(settings, "cloud", "dc"))._deployment_config
    scale = found.autoscaling_config
    assert (scale.min_replicas, scale.initial_replicas, scale.max_replicas) == (0, 1, 5)
    assert (scale.downscale_delay_s, scale.downscale_to_zero_delay_s) == (40.0, 90.0)


def test_predictive_scaling_has_a_policy_and_a_forecaster_beside_it(settings: Settings) -> None:
    assert not deploy._is_predictive(settings)
    scale = settings.inference.model_copy(update={"scaling": "predictive"})
    settings = settings.model_copy(update={"inference": scale})
    found = _deployment(deploy._inference(settings, "cloud", "dc"))._deployment_config
    policy = found.autoscaling_config.policy
    made = policy.get_policy()(**policy.policy_kwargs)
    assert isinstance(made, PredictivePolicy)
    # The rule keeps the delays; Serve must not add its own to them.
    scale = found.autoscaling_config
    delays = (scale.upscale_delay_s, scale.downscale_delay_s, scale.downscale_to_zero_delay_s)
    assert delays == (0.0, 0.0, 0.0)
    forecaster = _deployment(deploy._forecaster(settings))
    assert forecaster._deployment_config.num_replicas == 1
    assert forecaster.ray_actor_options["label_selector"][SITE_LABEL] == "dc"


def test_as_many_gateways_run_as_the_settings_say_and_in_the_cloud(settings: Settings) -> None:
    found = _deployment(deploy._gateway(settings))
    assert found._deployment_config.num_replicas == 2
    assert found.ray_actor_options["label_selector"] == {TIER_LABEL: "cloud"}
    assert found.init_args == (settings, deploy._version())


def test_steps_are_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    deploy._say("cloud", "deploying")
    deploy._say("cloud", "failed", 'it said "no"\nand left')
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        {"step": "cloud", "state": "deploying", "detail": ""},
        {"step": "cloud", "state": "failed", "detail": 'it said "no"\nand left'},
    ]


def test_a_failure_is_told_on_one_line_with_what_the_deployments_say() -> None:
    messages = ["", "the constructor\nraised", "x" * 600 + " at last"]
    deployments = {
        str(number): DeploymentStatusOverview(
            status=DeploymentStatus.DEPLOY_FAILED,
            status_trigger=DeploymentStatusTrigger.REPLICA_STARTUP_FAILED,
            replica_states={},
            message=message,
        )
        for number, message in enumerate(messages)
    }
    failed = ApplicationStatus.DEPLOY_FAILED
    why = deploy._why(ApplicationStatusOverview(failed, "it failed", 0.0, deployments))
    assert why.endswith("x at last")
    assert len(why) == 600
    del deployments["2"]
    why = deploy._why(ApplicationStatusOverview(failed, "it failed", 0.0, deployments))
    assert why == "it failed the constructor raised"
