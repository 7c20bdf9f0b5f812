"""The cluster that other tests rely on: it runs pods, holds back whom it should, and leaves nothing behind."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prebuilt.testing.engines.bridge import remove_bridge
from prebuilt.testing.engines.kaniko import VERSION
from prebuilt.testing.engines.kubernetes.cluster import KubernetesCluster
from prebuilt.testing.engines.kubernetes.namespace import Namespace
from prebuilt.testing.engines.process import EngineError, find_program
from prebuilt.testing.served import serving_http
from prebuilt.testing.tar_image import busybox_layer, push_tar_image
from prebuilt.testing.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]

RunPod = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def busybox(cluster: KubernetesCluster) -> str:
    """An image with a shell, by digest."""
    return push_tar_image(cluster.repository("busybox"), [busybox_layer()])


@pytest.fixture
def run_pod(kube_namespace: Namespace, busybox: str) -> RunPod:
    """Return what runs a script in a pod to its end: the phase that it ended in, and its log."""

    def run(script: str, *, image: str = busybox, **container: object) -> tuple[str, str]:
        command = ["sh", "-c", script]
        containers = [{"name": "main", "image": image, "command": command, **container}]
        spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": containers}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "one-"}, "spec": spec}
        created = json.loads(kube_namespace.kubectl("create", "--output=json", "-f-", stdin=json.dumps(pod)))
        name = created["metadata"]["name"]
        ended = eventually(
            lambda: kube_namespace.ended_phase(name),
            within_s=300,
            every_s=0.2,
            said=lambda: kube_namespace.kubectl("describe", "pod", name),
        )
        return ended, kube_namespace.kubectl("logs", name)

    return run


@pytest.fixture
def web_server(cluster: KubernetesCluster) -> Iterator[str]:
    """A server of this process, where pods reach it."""

    class Greeting(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"from the test")

        def log_message(self, *_: object) -> None:
            pass

    with serving_http(Greeting, cluster.address) as url:
        yield f"{url}/"


def test_a_pod_runs_and_its_log_is_read(run_pod: RunPod):
    """A pod of an image in the cluster's registry runs to its end; a failing one fails."""
    assert run_pod("echo hello; id -u") == ("Succeeded", "hello\n0")
    assert run_pod("echo broken; exit 3") == ("Failed", "broken")


def test_pods_reach_the_test_and_the_api_server(run_pod: RunPod, cluster: KubernetesCluster, web_server: str):
    """A server on the cluster's address, its registry, and the API server answer pods."""
    registry = f"http://{cluster.registry}/v2/"
    phase, log = run_pod(f"/bin/busybox wget -q -O - {web_server}; /bin/busybox wget -q -O - {registry}")
    assert (phase, log) == ("Succeeded", "from the test{}")
    host, port = cluster.api.url.removeprefix("https://").split(":")
    assert run_pod(f"echo | /bin/busybox nc -w 5 {host} {port}")[0] == "Succeeded"


def test_images_are_pulled_by_any_name_that_is_mirrored(run_pod: RunPod, cluster: KubernetesCluster, busybox: str):
    """A name that no DNS knows stands for the cluster's registry, and one with no mirror is not pulled."""
    cluster.mirror("images.test", f"http://{cluster.registry}")
    assert run_pod("echo pulled", image=busybox.replace(cluster.registry, "images.test"))[0] == "Succeeded"


def test_kaniko_is_the_release_that_it_says(run_pod: RunPod, kaniko_image: str):
    """The image has Kaniko's own entrypoint, which a pod runs with its arguments."""
    phase, log = run_pod("", image=kaniko_image, command=None, args=["version"])
    assert (phase, log.split()[-1]) == ("Succeeded", VERSION)


def test_memory_limits_hold(run_pod: RunPod):
    """A container that takes more memory than it may is killed."""
    script = "x=$(/bin/busybox dd if=/dev/zero bs=1M count=200 | /bin/busybox tr '\\0' x); echo done"
    phase, log = run_pod(script, resources={"limits": {"memory": "32Mi"}})
    assert phase == "Failed"
    assert "done" not in log


def test_an_account_may_do_what_its_role_says(kube_namespace: Namespace):
    """A user with a Role is refused everything else, with the verb in the refusal."""
    rules = [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list"]}]
    kubeconfig = kube_namespace.account("lister", rules)
    assert kube_namespace.kubectl(f"--kubeconfig={kubeconfig}", "get", "jobs", "--output=name") == ""
    with pytest.raises(EngineError, match='cannot list resource "secrets"'):
        kube_namespace.kubectl(f"--kubeconfig={kubeconfig}", "get", "secrets")


@pytest.mark.usefixtures("cluster")  # where there can be one, there can be bridges
def test_a_bridge_that_a_killed_process_left_is_removed():
    """The interface and its rules go, and removing what is gone is no error: the next cluster begins with that."""
    program = "import time\nfrom prebuilt.testing.engines.bridge import network_bridge\n"
    program += "with network_bridge() as bridge:\n    print(bridge.name, flush=True)\n    time.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        process.kill()
    assert Path("/sys/class/net", name).exists()
    remove_bridge(name)
    remove_bridge(name)
    assert not Path("/sys/class/net", name).exists()
    rules = subprocess.run([find_program("iptables-save", brought_by="iptables")], capture_output=True, check=True)
    assert name.encode() not in rules.stdout
