from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.e2e.cluster import TestCluster, own_cluster, publish_digits
from train.zoo import digits


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """The cluster that most tests share, with digits served on every tier."""
    with own_cluster() as found:
        found.must("up")
        publish_digits(found)
        found.must("model", "serve", "digits@production", "--placement", "edge,cloud,colocated")
        yield found


@pytest.fixture(scope="package")
def test_set(cluster: TestCluster) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The digits' held-back images and labels."""
    data: Any = digits.load(cluster.home.root)
    return data.test.images.astype(np.float32), data.test.labels


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test that needs the cluster also waits for its start."""
    for item in items:
        if "/e2e/" in item.nodeid and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))
