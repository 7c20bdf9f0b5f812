"""What goes wrong on a real cluster, in its own words: each is told soon, by name, and leaves nothing behind."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from prebuilt.core.settings import Settings
from prebuilt.kaniko import KanikoBuildService
from prebuilt.testing.engines.kubernetes.cluster import KubernetesCluster
from prebuilt.testing.engines.kubernetes.namespace import Namespace
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth
from prebuilt.testing.relay import relay

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]

ROLE = Path(__file__).parents[3] / "docs" / "how-to" / "kaniko-role.yaml"
RULES: list[dict[str, Any]] = yaml.safe_load(ROLE.read_text())["rules"]
VERBS = [
    (rule["apiGroups"], resource, verb) for rule in RULES for resource in rule["resources"] for verb in rule["verbs"]
]


class User:
    """Somebody who may do what the documented Role says."""

    def __init__(self, namespace: Namespace, base: str, monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
        self.namespace, self._base, self._monkeypatch = namespace, base, monkeypatch
        self.settings = {
            "INSECURE_REGISTRIES": namespace.cluster.address,
            "KANIKO_NAMESPACE": namespace.name,
            "KANIKO_CPU": "50m",
            "KANIKO_MEMORY": "512Mi",
            "KANIKO_TIMEOUT": "120",
            **settings,
        }
        self.said: list[str] = []

    def may(self, rules: list[dict[str, Any]]) -> None:
        """Log in as somebody with other rules."""
        kubeconfig = self.namespace.account(f"user-{time.monotonic_ns()}", rules)
        self._monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

    def build(self, run: str = "", *, name: str = "trouble", **changes: Any) -> bool:
        """Build a small Dockerfile with a ``RUN`` of Python, if there is one."""
        settings = {**self.settings, **changes.pop("settings", {})}
        service = KanikoBuildService(
            Settings({f"METAFLOW_PREBUILT_{key}": value for key, value in settings.items()}, {})
        )
        step = f"RUN {json.dumps(['python3', '-c', run])}\n" if run else ""
        call: dict[str, Any] = {
            "dockerfile": f"FROM {self._base}\n{step}COPY file /file\n",
            "context_files": {"file": "text"},
            "image_tag": f"{self.namespace.cluster.registry}/{name}:tag",
            "push_credentials": {},
            "echo": self.said.append,
        }
        return service.build_and_push(**{**call, **changes})

    @property
    def left(self) -> str:
        """What builds left, after the garbage collector had its time."""
        kinds = "jobs,pods,secrets,configmaps"
        for _ in range(60):
            found = self.namespace.kubectl("get", kinds, "--output=name", "--selector=metaflow-prebuilt/build")
            if not found:
                return ""
            time.sleep(0.5)
        return found


@pytest.fixture
def user(
    kube_namespace: Namespace, cluster_base: str, kaniko_image: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[User]:
    """Somebody with the documented Role; nothing is left of their builds."""
    user = User(kube_namespace, cluster_base, monkeypatch, KANIKO_IMAGE=kaniko_image)
    user.may(RULES)
    yield user
    assert user.left == ""


def test_a_dockerfile_is_built(user: User):
    """The documented Role is enough, for logins that go along, too."""
    login = {"username": "me", "password": "s3cret"}
    assert user.build("print('a step ran')", push_credentials=login)
    assert any("a step ran" in line for line in user.said)
    assert not any("s3cret" in line for line in user.said)


@pytest.mark.parametrize(
    ("groups", "resource", "verb"), VERBS, ids=lambda value: str(value) if isinstance(value, str) else ""
)
def test_each_verb_of_the_role_is_needed(user: User, groups: list[str], resource: str, verb: str):
    """Without one of them, it is named, with its resource."""
    rules = [
        {"apiGroups": group, "resources": [other], "verbs": [each]}
        for group, other, each in VERBS
        if (group, other, each) != (groups, resource, verb)
    ]
    user.may(rules)
    built = user.build(push_credentials={"username": "me", "password": "s3cret"})
    assert built == ((resource, verb) == ("jobs", "delete"))
    assert any(f"grant the verb {verb} on {resource}" in line for line in user.said)
    if verb == "delete":
        user.namespace.kubectl("delete", "jobs", "--all")


def test_namespace_is_missing(user: User):
    """A namespace that is not there; with RBAC, the API says no more than that it is forbidden there."""
    user._monkeypatch.setenv("KUBECONFIG", str(user.namespace.cluster.kubeconfig))
    assert not user.build(settings={"KANIKO_NAMESPACE": "nowhere"})
    assert "there is no such namespace" in user.said[-1]


def test_service_account_is_missing(user: User):
    """The Job cannot make its pod."""
    assert not user.build(settings={"KANIKO_SERVICE_ACCOUNT": "nobody"})
    assert "METAFLOW_PREBUILT_KANIKO_SERVICE_ACCOUNT" in user.said[-1]


def test_quota_is_exceeded(user: User):
    """So it is where the namespace has no room."""
    user.namespace.kubectl("create", "quota", "tiny", "--hard=requests.memory=64Mi,pods=5")
    assert not user.build()
    assert "exceeded quota: tiny" in user.said[-1]


def test_secret_is_missing(user: User):
    """The kubelet cannot mount it."""
    assert not user.build(settings={"KANIKO_SECRET_NAME": "regcred"})
    assert "there is no Secret regcred" in user.said[-1]


def test_secret_is_of_another_type(user: User):
    """It has no .dockerconfigjson."""
    user.namespace.kubectl("create", "secret", "generic", "regcred", "--from-literal=config.json={}")
    assert not user.build(settings={"KANIKO_SECRET_NAME": "regcred"})
    assert "not of the type kubernetes.io/dockerconfigjson" in user.said[-1]


def test_secret_of_the_settings_pushes(user: User):
    """One that is there opens a registry."""
    auth = RegistryAuth(scheme="basic", users={"me": "s3cret"})
    with InMemoryRegistry(auth=auth, address=user.namespace.cluster.address) as guarded:
        options = (f"--docker-server={guarded.host}", "--docker-username=me", "--docker-password=s3cret")
        user.namespace.kubectl("create", "secret", "docker-registry", "regcred", *options)
        tag = guarded.repository("team/image") + ":tag"
        assert user.build(settings={"KANIKO_SECRET_NAME": "regcred"}, image_tag=tag), user.said
        user.said.clear()
        assert not user.build(image_tag=tag)
        assert "METAFLOW_PREBUILT_KANIKO_SECRET_NAME" in user.said[-1]


def test_kaniko_image_cannot_be_pulled(user: User):
    """It is told within seconds, with the registry's answer."""
    began_s = time.monotonic()
    assert not user.build(settings={"KANIKO_IMAGE": f"{user.namespace.cluster.registry}/absent:1"})
    assert "ImagePullBackOff" in user.said[-1]
    assert "not found" in user.said[-1]
    assert time.monotonic() - began_s < 60


def test_base_image_cannot_be_pulled_in_the_pod(user: User):
    """Kaniko's own words, and the setting."""
    absent = f"{user.namespace.cluster.registry}/absent:1"
    assert not user.build(dockerfile=f"FROM {absent}\nCOPY file /file\n")
    assert "absent" in user.said[-1]
    assert "METAFLOW_PREBUILT_BASE_IMAGE" in user.said[-1]


def test_memory_runs_out(user: User):
    """The exit code is explained."""
    assert not user.build(
        "x = bytearray(1 << 30); x[::4096] = b'x' * len(x[::4096])", settings={"KANIKO_MEMORY": "128Mi"}
    )
    assert "METAFLOW_PREBUILT_KANIKO_MEMORY" in user.said[-1]


def test_no_node_has_so_much(user: User):
    """The scheduler's words, after the time that the setting gives."""
    assert not user.build(settings={"KANIKO_CPU": "500", "KANIKO_PENDING_TIMEOUT": "2"})
    assert "Insufficient cpu" in user.said[-1]


def test_time_is_up(user: User):
    """The cluster stops a build that takes too long."""
    assert not user.build("import time; time.sleep(600)", settings={"KANIKO_TIMEOUT": "8"})
    assert "longer than 8 s" in user.said[-1]


def _once(user: User, word: str, act: Callable[[], Any]) -> threading.Thread:
    """Act as soon as a line with `word` was said."""

    def wait() -> None:
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s and not any(word in line for line in list(user.said)):
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_somebody_deletes_the_job(user: User):
    """It is said that somebody did."""
    acting = _once(user, "begun", lambda: user.namespace.kubectl("delete", "jobs", "--all"))
    assert not user.build("import time; print('begun', flush=True); time.sleep(60)")
    acting.join()
    assert "somebody else deleted the Job" in user.said[-1]


def test_api_server_is_gone_for_ten_seconds(user: User, cluster: KubernetesCluster, tmp_path: Path):
    """A build whose API server is away in the middle goes on; every line is there, and none twice."""
    host, port = cluster.api.url.removeprefix("https://").split(":")
    import os

    kubeconfig = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    with relay(f"{host}:{port}") as line:
        kubeconfig["clusters"][0]["cluster"]["server"] = f"https://{line.address}"
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(kubeconfig))
        user._monkeypatch.setenv("KUBECONFIG", str(path))

        def cut() -> None:
            line.up_bytes_per_s = line.down_bytes_per_s = 0
            time.sleep(10)
            line.up_bytes_per_s = line.down_bytes_per_s = None

        acting = _once(user, "count 10", cut)
        assert user.build("import time\nfor n in range(100): print('count', n, flush=True); time.sleep(0.2)"), user.said
        acting.join()
    counted = [text for text in user.said if text.startswith("count ")]
    assert counted == [f"count {number}" for number in range(100)]


def test_eight_builds_at_once(user: User):
    """Each gets its own image."""
    with ThreadPoolExecutor(8) as pool:
        built = pool.map(lambda n: user.build(name=f"eight/{n}", context_files={"file": f"of {n}"}), range(8))
        assert list(built) == [True] * 8
    for number in range(8):
        assert user.namespace.cluster.repository(f"eight/{number}").resolve("tag") is not None
