"""A cluster of one node: etcd, API server, controllers, scheduler, containerd, kubelet, all real, Ready in seconds."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from prebuilt.core.settings import Settings
from prebuilt.oci.containers.lock_file import locked
from prebuilt.oci.open import open_repository
from prebuilt.oci.repository import Repository
from prebuilt.testing.engines.bridge import Bridge, network_bridge, remove_bridge
from prebuilt.testing.engines.cache import engine_cache
from prebuilt.testing.engines.kubernetes.api import KubernetesAPI
from prebuilt.testing.engines.kubernetes.authority import ClusterAuthority
from prebuilt.testing.engines.kubernetes.node import clear_node, left_as_it_was, refuse_other_kubelets, stop_containers
from prebuilt.testing.engines.kubernetes.programs import kubernetes_programs
from prebuilt.testing.engines.kubernetes.servers import ClusterServers
from prebuilt.testing.engines.process import EngineError, free_port
from prebuilt.testing.engines.registry import distribution_registry

_FOLDER = "prebuilt-k8s-"
_BRIDGE = "bridge"  # the file with its name, for who clears away what is left of a cluster
_TIMEOUT_S = 600.0
# Fixed, whatever the kubelet and CNI are told. Those that were there before stay.
_SYSTEM_FOLDERS = (Path("/var/lib/kubelet"), Path("/var/lib/cni"), Path("/var/log/containers"))


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesCluster:
    """A cluster whose node is ready. Pods reach the test, the API server and the world by address; there is no cluster DNS.

    Attributes:
        api: Its server, as the administrator. Pods reach it at this URL, too.
        kubeconfig: The administrator's, for ``KUBECONFIG``.
        program: ``kubectl``.
        bridge: Of the pods.
        registry: ``address:port`` of a registry with plain HTTP that the test, the node and the pods all know by this name.
        folder: Of its files; logs are in ``*.log``.
    """

    api: KubernetesAPI
    kubeconfig: Path
    program: Path
    bridge: Bridge
    registry: str
    folder: Path

    @property
    def address(self) -> str:
        """Where a server of the test has to listen for pods to reach it."""
        return str(self.bridge.address.ip)

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Return what ``kubectl`` prints, as the administrator, without the line's end.

        Raises:
            EngineError: It failed; the message has its output.
        """
        command = [str(self.program), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        if done.returncode:
            raise EngineError(f"run kubectl {' '.join(arguments)}", reason=f"{done.stdout}{done.stderr}"[-4000:])
        return done.stdout.strip()

    @property
    def environ(self) -> dict[str, str]:
        """Variables that have commands, Metaflow's and ours among them, use the cluster and its registry."""
        return {"KUBECONFIG": str(self.kubeconfig), "METAFLOW_PREBUILT_INSECURE_REGISTRIES": self.registry}

    def repository(self, name: str) -> Repository:
        """Return a repository of the registry, for the test to push to."""
        return open_repository(f"{self.registry}/{name}", settings=Settings(self.environ, {}))

    def mirror(self, name: str, url: str) -> None:
        """Have the node pull images called `name`/… from the registry at `url`. It counts from the next pull on."""
        folder = self.folder / "certs.d" / name
        folder.mkdir(parents=True, exist_ok=True)
        # containerd 1.6 ignores the file without a table of a host.
        text = f'server = "{url}"\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'
        (folder / "hosts.toml").write_text(text, encoding="utf-8")


@contextlib.contextmanager
def kubernetes_cluster() -> Iterator[KubernetesCluster]:
    """Give a cluster with nothing in it, for the time of the body. Needs root. There is one on a machine at a time: others wait.

    What a test run that was killed left behind is cleared away first.

    Raises:
        EngineError: A program is missing or cannot be built, this process is not root, or a server does not start.
    """
    programs = kubernetes_programs()
    if os.geteuid() != 0:
        raise EngineError("start a cluster", reason="this process is not root")
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(engine_cache() / ".kubernetes.lock"))
        for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
            clear_node(left)
            if (left / _BRIDGE).exists():
                remove_bridge((left / _BRIDGE).read_text(encoding="ascii"))
            shutil.rmtree(left)
        refuse_other_kubelets()
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix=_FOLDER, ignore_cleanup_errors=True))
        folder = Path(name)
        stack.enter_context(left_as_it_was(*_SYSTEM_FOLDERS))
        stack.callback(clear_node, folder)
        yield stack.enter_context(_running_cluster(folder, programs))


@contextlib.contextmanager
def _running_cluster(folder: Path, programs: Path) -> Iterator[KubernetesCluster]:
    with contextlib.ExitStack() as stack:
        bridge = stack.enter_context(network_bridge())
        (folder / _BRIDGE).write_text(bridge.name, encoding="ascii")
        address, port = str(bridge.address.ip), free_port()
        authority = ClusterAuthority.make(folder / "pki", [address, "127.0.0.1"])
        api = KubernetesAPI(
            url=f"https://{address}:{port}", authority=folder / "pki" / "ca.crt", token=authority.tokens["admin"]
        )
        cluster = KubernetesCluster(
            api=api,
            kubeconfig=folder / "admin.kubeconfig",
            program=_link(folder / "kubectl", programs / "kube"),
            bridge=bridge,
            registry=stack.enter_context(distribution_registry(folder / "registry", address=address)),
            folder=folder,
        )
        _write_kubeconfigs(cluster, authority)
        cluster.mirror(cluster.registry, f"http://{cluster.registry}")
        servers = ClusterServers(folder=folder, bridge=bridge, api=api, kube=programs / "kube")
        stack.enter_context(servers.containerd(_pause_image(cluster, programs / "pause")))
        stack.callback(stop_containers, folder)
        etcd = stack.enter_context(servers.etcd())
        stack.enter_context(servers.api_server(etcd))
        stack.enter_context(servers.controllers())
        stack.enter_context(servers.scheduler())
        stack.enter_context(servers.kubelet())
        yield cluster


def _link(link: Path, program: Path) -> Path:
    link.symlink_to(program)  # the program becomes what it is called
    return link


def _write_kubeconfigs(cluster: KubernetesCluster, authority: ClusterAuthority) -> None:
    for name, token in authority.tokens.items():
        file = cluster.folder / f"{name}.kubeconfig"
        file.touch(mode=0o600)
        file.write_text(replace(cluster.api, token=token).kubeconfig(), encoding="utf-8")


def _pause_image(cluster: KubernetesCluster, program: Path) -> str:
    """Push the image that holds a pod's namespaces; return its reference."""
    from prebuilt.testing.tar_image import TarLayer, push_tar_image

    layer = TarLayer().add("pause", data=program.read_bytes(), mode=0o755)
    return push_tar_image(cluster.repository("pause"), [layer], entrypoint=["/pause"])
