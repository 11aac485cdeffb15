"""One small Ray cluster for all tests of this folder: two CPUs, no dashboard, nothing sent anywhere, nothing left behind."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster.

    Attributes:
        address: by which another program joins it.
        logs: the folder that it writes its logs to.
    """

    address: str
    logs: Path


@pytest.fixture(autouse=True)
def _quotas_end_with_their_test() -> Iterator[None]:
    yield
    if ray.is_initialized():
        for actor in ray.util.list_named_actors(all_namespaces=True):
            if actor["namespace"] == "pinecone_embed_async":
                ray.kill(ray.get_actor(**actor))


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    # A short path, for sockets are made in it; not pytest's own.
    folder = tempfile.mkdtemp(prefix="ray")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PINECONE_API_KEY", "PINECONE_CONTROLLER_HOST", "RAY_ADDRESS"):
            patch.delenv(name, raising=False)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        # Workers start without those that Ray keeps in reserve.
        patch.setenv("RAY_prestart_worker_first_driver", "0")
        # Memory that others on the machine use is no reason to kill workers.
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")
        context: Any = ray.init(
            num_cpus=2,
            object_store_memory=200 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        try:
            yield Cluster(context.address_info["gcs_address"], Path(os.path.realpath(context.address_info["session_dir"])))
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
