"""Flows on a cluster: where they are deployed from, what became of their pods, and what their images are made of."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.lock import Lock
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.oci.oci_registry import OCIRegistry
from prebuilt.oci.open import open_repository
from prebuilt.oci.reference import parse_reference
from prebuilt.testing.base_image import BaseContents, push_base_image
from prebuilt.testing.engines.kubernetes.cluster import KubernetesCluster
from prebuilt.testing.engines.kubernetes.namespace import Namespace, cluster_namespace
from prebuilt.testing.engines.object_store import ObjectStore, object_store
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.validate import ImageReport, validate

FLOWS = Path(__file__).parent / "flows"
ROLES = Path(__file__).parents[3] / "docs" / "how-to" / "kubernetes-roles.yaml"
PREFIX = "/opt/prebuilt/env"
PATIENCE_S = 1200.0


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod that has ended: its description, and what it printed."""

    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    step: str
    log: str

    @property
    def image(self) -> str:
        """What it was told to run in."""
        return str(self.spec["containers"][0]["image"])

    @property
    def seen(self) -> dict[str, Any]:
        """What its task showed of where it ran."""
        return Judge.seen_in(self.log)[-1]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command printed, both streams together, how it ended, and the pods that it had run."""

    text: str
    code: int
    pods: Sequence[Pod] = ()

    def of(self, step: str) -> list[Pod]:
        """Return the pods of a step, the oldest first."""
        return [pod for pod in self.pods if pod.step == step]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a user deploys from: a folder, what is configured there, and the namespace that pods run in."""

    folder: Path
    namespace: Namespace
    variables: Mapping[str, str]

    @property
    def settings(self) -> Settings:
        """What is configured, for the test to look with."""
        return Settings(dict(self.variables), {})

    def having(self, **variables: str) -> Place:
        """Return the place with more configured."""
        return replace(self, variables={**self.variables, **variables})

    def as_user(self, name: str, *roles: str) -> Place:
        """Return the place of a user who has `roles` of those that are documented, and may do nothing else in the cluster."""
        return self.having(KUBECONFIG=str(self.namespace.user(name, ROLES, *roles)))

    def run(self, flow: str, *arguments: str) -> Outcome:
        """Run a flow's command line to its end."""
        process = subprocess.Popen(
            [sys.executable, str(FLOWS / f"{flow}.py"), "--environment=prebuilt", *arguments],
            cwd=self.folder,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        with process:
            try:
                text, _ = process.communicate(timeout=PATIENCE_S)
            except BaseException:
                # Each task has a process here, which waits for its pod without end, also when the flow's own is gone.
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return Outcome(text=text, code=process.returncode, pods=self.pods())

    def pods(self) -> list[Pod]:
        """Return the pods of the namespace, the oldest first."""
        found = json.loads(self.namespace.kubectl("get", "pods", "--output=json"))["items"]
        found.sort(key=lambda pod: pod["status"].get("startTime", ""))
        return [self._pod(pod) for pod in found]

    def _pod(self, pod: Mapping[str, Any]) -> Pod:
        metadata = pod["metadata"]
        log = self.namespace.kubectl("logs", metadata["name"])
        step = metadata.get("annotations", {}).get("metaflow/step_name", "")
        return Pod(spec=pod["spec"], status=pod["status"], step=step, log=log)


@dataclass(kw_only=True)
class Judge:
    """Reads images that tasks ran in, each once, and compares what tasks saw with them."""

    settings: Settings
    images: dict[str, ImageReport] = field(default_factory=dict)

    def image(self, reference: str, *, base: str, platform: str = "linux/amd64") -> ImageReport:
        """Return an image, all of it read and checked; `base` is the reference of what it stands on."""
        if reference not in self.images:
            on, image, goes_to = parse_reference(base), parse_reference(reference), Platform.parse(platform)
            below = validate(self._open(on.repository), on.identifier, platform=goes_to)
            self.images[reference] = validate(self._open(image.repository), image.identifier, base=below)
        return self.images[reference]

    def lock(self, image: ImageReport) -> Lock:
        """Return the lock that an image was made of, which is kept in the registry."""
        requirements = image.config.labels["metaflow-prebuilt.requirements"]
        data = OCIRegistry(self.settings).documents().get(f"lock-{requirements}")
        assert data is not None
        return Lock.parse(data)

    def check(self, pod: Pod, *, base: str) -> None:
        """Check that a pod ran what was pushed, and that its task found there what is locked, and got nothing itself."""
        ran = pod.status["containerStatuses"][0]["imageID"]  # by any of the names that the node knows the digest by
        assert ran.partition("@")[2] == pod.image.partition("@")[2]
        self.check_task(pod.image, pod.seen, base=base)

    def check_task(self, image: str, seen: Mapping[str, Any], *, base: str) -> None:
        """Check the same by the image that a task ran in, and by what it saw there."""
        repository = self.settings.get("PREBUILT_REGISTRY")
        assert re.fullmatch(rf"{re.escape(str(repository))}@sha256:[0-9a-f]{{64}}", image)
        lock = self.lock(self.image(image, base=base))
        assert set(seen["packages"]) >= {f"{each.name}=={each.version}" for each in lock.packages}
        assert seen["image"] == image
        assert seen["python"] == f"{PREFIX}/bin/python"
        assert seen["newest"] == 0
        assert not {"pip", "conda", "micromamba", "uv"} & set(seen["commands"])

    @staticmethod
    def seen_in(log: str) -> list[dict[str, Any]]:
        """Return what each task that printed to `log` showed of where it ran, in order."""
        return [dict(json.loads(line)) for line in re.findall(r"seen: (.*)", log)]

    def _open(self, name: str) -> Any:
        return open_repository(name, settings=self.settings)


@pytest.fixture(scope="session")
def store(cluster: KubernetesCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Give an S3 that pods reach."""
    with wanted_engine(), object_store(tmp_path_factory.mktemp("store"), address=cluster.address) as store:
        yield store


@pytest.fixture(scope="session")
def environ(cluster: KubernetesCluster, store: ObjectStore, cluster_base: str, tmp_path_factory) -> dict[str, str]:
    """Return what is configured for every user; they share caches."""
    folder = tmp_path_factory.mktemp("users")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("METAFLOW_", "AWS_"))}
    return {
        **kept,
        **store.metaflow_environ,
        **cluster.environ,
        "DOCKER_CONFIG": str(folder / "docker"),
        "METAFLOW_HOME": str(folder / "home"),
        "METAFLOW_USER": "tester",
        "METAFLOW_KUBERNETES_CONTAINER_IMAGE": cluster_base,
        "METAFLOW_KUBERNETES_CPU": "0.1",
        "METAFLOW_KUBERNETES_MEMORY": "512",
        "METAFLOW_KUBERNETES_DISK": "256",
        "METAFLOW_KUBERNETES_SECRETS": "store",
        "METAFLOW_PREBUILT_BUILD_SERVICE": "native",
        "METAFLOW_PREBUILT_CACHE_DIR": str(folder / "cache"),
        "METAFLOW_PREBUILT_REGISTRY": f"{cluster.registry}/flows",
    }


@pytest.fixture(scope="session")
def push_base(cluster: KubernetesCluster) -> Callable[..., str]:
    """Return a function that pushes a base image for both architectures to the cluster's registry; the names are tags."""

    def push(tag: str, **contents: Any) -> str:
        platforms = [Platform.parse(f"linux/{architecture}") for architecture in ("amd64", "arm64")]
        return push_base_image(
            cluster.repository("bases"), tag=tag, platforms=platforms, contents=BaseContents(**contents)
        )

    return push


@pytest.fixture
def place(
    cluster: KubernetesCluster, environ: Mapping[str, str], store: ObjectStore, tmp_path: Path
) -> Iterator[Place]:
    """Give a place whose pods have a namespace of their own, with a secret that opens the store."""
    with cluster_namespace(cluster) as namespace:
        keys = [f"--from-literal={name}={value}" for name, value in store.keys.items()]
        namespace.kubectl("create", "secret", "generic", "store", *keys)
        place = Place(
            folder=tmp_path,
            namespace=namespace,
            variables={**environ, "METAFLOW_KUBERNETES_NAMESPACE": namespace.name},
        )
        yield place.as_user("runner", "metaflow-run")


@pytest.fixture(scope="session")
def judge(environ: Mapping[str, str]) -> Judge:
    """Return one for all tests."""
    return Judge(settings=Settings(dict(environ), {}))
