"""What goes wrong on a real cluster, in its own words: each is told soon, by name, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from prebuilt.testing.engines.kubernetes.cluster import KubernetesCluster
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth
from prebuilt.testing.relay import relay
from prebuilt.testing.validate import inspect_image

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]

ROLE = Path(__file__).parents[4] / "docs" / "how-to" / "kaniko-role.yaml"
VERBS = [
    (rule["apiGroups"], resource, verb)
    for rule in yaml.safe_load(ROLE.read_text())["rules"]
    for resource in rule["resources"]
    for verb in rule["verbs"]
]


def test_a_dockerfile_is_built(user: Any):
    """The documented Role is enough, for logins that go along, too."""
    login = {"username": "me", "password": "s3cret"}
    assert user.build("print('a step ran')", push_credentials=login)
    assert any("a step ran" in line for line in user.said)
    assert not any("s3cret" in line for line in user.said)


@pytest.mark.parametrize(
    ("groups", "resource", "verb"), VERBS, ids=lambda value: str(value) if isinstance(value, str) else ""
)
def test_each_verb_of_the_role_is_needed(user: Any, groups: list[str], resource: str, verb: str):
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


def test_namespace_is_missing(user: Any):
    """A namespace that is not there; whoever has a Role is told no more than that it is forbidden there."""
    assert not user.having(KANIKO_NAMESPACE="nowhere").build()
    assert "or set METAFLOW_PREBUILT_KANIKO_NAMESPACE" in user.said[-1]
    user.goes_by(user.namespace.cluster.kubeconfig)
    assert not user.having(KANIKO_NAMESPACE="nowhere").build()
    assert "there is no such namespace" in user.said[-1]


def test_service_account_is_missing(user: Any):
    """The Job cannot make its pod."""
    assert not user.having(KANIKO_SERVICE_ACCOUNT="nobody").build()
    assert "METAFLOW_PREBUILT_KANIKO_SERVICE_ACCOUNT" in user.said[-1]


def test_quota_is_exceeded(user: Any):
    """So it is where the namespace has no room."""
    user.namespace.kubectl("create", "quota", "tiny", "--hard=requests.memory=64Mi,pods=5")
    assert not user.build()
    assert "exceeded quota: tiny" in user.said[-1]


def test_more_than_a_limit_range_allows(user: Any):
    """The setting to change is named."""
    limits = [{"type": "Container", "max": {"memory": "64Mi"}}]
    body = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "tiny"}, "spec": {"limits": limits}}
    user.namespace.kubectl("create", "--filename=-", stdin=json.dumps(body))
    assert not user.build()
    assert "maximum memory usage per Container is 64Mi" in user.said[-1]
    assert "set METAFLOW_PREBUILT_KANIKO_CPU, _MEMORY or _DISK" in user.said[-1]


def test_secret_is_missing(user: Any):
    """The kubelet cannot mount it."""
    assert not user.having(KANIKO_SECRET_NAME="regcred").build()
    assert "there is no Secret regcred" in user.said[-1]


def test_secret_is_of_another_type(user: Any):
    """It has no .dockerconfigjson."""
    user.namespace.kubectl("create", "secret", "generic", "regcred", "--from-literal=config.json={}")
    assert not user.having(KANIKO_SECRET_NAME="regcred").build()
    assert "not of the type kubernetes.io/dockerconfigjson" in user.said[-1]


def test_secret_of_the_settings_pushes(user: Any):
    """One that is there opens a registry."""
    auth = RegistryAuth(scheme="basic", users={"me": "s3cret"})
    with InMemoryRegistry(auth=auth, address=user.namespace.cluster.address) as guarded:
        options = (f"--docker-server={guarded.host}", "--docker-username=me", "--docker-password=s3cret")
        user.namespace.kubectl("create", "secret", "docker-registry", "regcred", *options)
        tag = guarded.repository("team/image") + ":tag"
        assert user.having(KANIKO_SECRET_NAME="regcred").build(image_tag=tag), user.said
        user.said.clear()
        assert not user.build(image_tag=tag)
        assert "METAFLOW_PREBUILT_KANIKO_SECRET_NAME" in user.said[-1]


def test_kaniko_image_cannot_be_pulled(user: Any):
    """It is told within seconds, with the registry's answer."""
    began_s = time.monotonic()
    assert not user.having(KANIKO_IMAGE=f"{user.namespace.cluster.registry}/absent:1").build()
    assert "ImagePullBackOff" in user.said[-1]
    assert "not found" in user.said[-1]
    assert time.monotonic() - began_s < 60


def test_base_image_cannot_be_pulled_in_the_pod(user: Any):
    """Kaniko's own words, and the setting."""
    absent = f"{user.namespace.cluster.registry}/absent:1"
    assert not user.build(dockerfile=f"FROM {absent}\nCOPY file /file\n")
    assert "absent" in user.said[-1]
    assert "METAFLOW_PREBUILT_BASE_IMAGE" in user.said[-1]


def test_memory_runs_out(user: Any):
    """Of a step: what it had is said, and the setting."""
    assert not user.having(KANIKO_MEMORY="128Mi").build("x = bytearray(1 << 30); x[::4096] = b'x' * len(x[::4096])")
    assert "out of memory: it had 128Mi" in user.said[-1]
    assert "METAFLOW_PREBUILT_KANIKO_MEMORY" in user.said[-1]


def test_kaniko_itself_is_killed(user: Any):
    """As the kernel kills it for want of memory: its exit code is explained."""
    acting = user.once("begun", user.kill_kaniko)
    assert not user.build("import time; print('begun', flush=True); time.sleep(300)")
    acting.join()
    assert "out of memory: it had 512Mi and was killed (exit code 137" in user.said[-1]
    assert "METAFLOW_PREBUILT_KANIKO_MEMORY" in user.said[-1]


def test_no_node_has_so_much(user: Any):
    """The scheduler's words, after the time that the setting gives."""
    assert not user.having(KANIKO_CPU="500", KANIKO_PENDING_TIMEOUT="8").build()
    assert "Insufficient cpu" in user.said[-1]


def test_time_is_up(user: Any):
    """The cluster stops a build that takes too long."""
    assert not user.having(KANIKO_TIMEOUT="8").build("import time; time.sleep(600)")
    assert "longer than 8 s" in user.said[-1]


def test_somebody_deletes_the_job(user: Any):
    """It is said that somebody did."""
    acting = user.once("begun", lambda: user.namespace.kubectl("delete", "jobs", "--all"))
    assert not user.build("import time; print('begun', flush=True); time.sleep(300)")
    acting.join()
    assert "somebody else deleted the Job" in user.said[-1]


def test_api_server_is_gone_for_ten_seconds(user: Any, cluster: KubernetesCluster, tmp_path: Path):
    """A build whose API server is away in the middle goes on; every line is there, and none twice."""
    host, port = cluster.api.url.removeprefix("https://").split(":")
    kubeconfig = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    with relay(f"{host}:{port}") as line:
        kubeconfig["clusters"][0]["cluster"]["server"] = f"https://{line.address}"
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(kubeconfig))
        user.goes_by(path)

        def cut() -> None:
            line.up_bytes_per_s = line.down_bytes_per_s = 0
            time.sleep(10)
            line.up_bytes_per_s = line.down_bytes_per_s = None

        acting = user.once("count 10", cut)
        assert user.build("import time\nfor n in range(100): print('count', n, flush=True); time.sleep(0.2)"), user.said
        acting.join()
    counted = [text for text in user.said if text.startswith("count ")]
    assert counted == [f"count {number}" for number in range(100)]


def test_eight_builds_at_once(user: Any):
    """Each gets the image of its own context."""
    cluster = user.namespace.cluster

    def build(number: int) -> bool:
        tag = f"{cluster.registry}/eight/{number}:tag"
        return user.build(image_tag=tag, context_files={"file": f"of {number}"})

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(build, range(8))) == [True] * 8
    for number in range(8):
        built = inspect_image(cluster.repository(f"eight/{number}"), "tag", foreign=True).tree["file"]
        assert built.digest == f"sha256:{hashlib.sha256(f'of {number}'.encode()).hexdigest()}"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_deploy_ends_in_the_middle(user: Any, how: signal.Signals):
    """Ctrl-C deletes the Job with its pod; where the process is killed, the Job ends in its time, and the cluster deletes it."""
    with user.having(KANIKO_KEEP="1").start("import time; print('begun', flush=True); time.sleep(600)") as process:
        assert any("begun" in line for line in process.stdout)
        process.send_signal(how)
        process.communicate(timeout=300)
    assert process.returncode != 0
    jobs = json.loads(user.namespace.kubectl("get", "jobs", "--output=json"))["items"]
    if how == signal.SIGINT:
        assert jobs == []
        return
    (job,) = jobs
    assert job["spec"]["activeDeadlineSeconds"] == 600
    soon = json.dumps({"spec": {"activeDeadlineSeconds": 1}})  # the rest of its time is over
    user.namespace.kubectl("patch", "job", job["metadata"]["name"], f"--patch={soon}")


def test_no_node_of_the_platform(user: Any):
    """The scheduler's words are shown at once, and end the build after the time that the setting gives."""
    assert not user.having(KANIKO_PENDING_TIMEOUT="8").build(target_platform="linux/arm64")
    assert any(line.startswith("FailedScheduling: ") for line in user.said)
    assert "didn't match Pod's node affinity/selector" in user.said[-1]
