"""The servers that a cluster of one node is made of, as processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from prebuilt.testing.engines.bridge import Bridge
from prebuilt.testing.engines.kubernetes.api import KubernetesAPI
from prebuilt.testing.engines.kubernetes.authority import NODE
from prebuilt.testing.engines.kubernetes.node import containerd_config, kubelet_config, network_config
from prebuilt.testing.engines.process import EngineError, find_program, free_port, running
from prebuilt.testing.engines.runtime import fitting_runtime

Server: TypeAlias = contextlib.AbstractContextManager["subprocess.Popen[bytes]"]

_SERVICES = "10.97.1.0/24"  # addresses that nothing here listens on: there is no kube-proxy
_CONTROLLERS = (
    "namespace-controller serviceaccount-controller serviceaccount-token-controller root-ca-certificate-publisher-controller "
    "deployment-controller replicaset-controller job-controller cronjob-controller ttl-after-finished-controller "
    "garbage-collector-controller pod-garbage-collector-controller node-lifecycle-controller taint-eviction-controller "
    "resourcequota-controller"
).split()
_DEFAULT_ACCOUNT = "api/v1/namespaces/default/serviceaccounts/default"
_CNI_PLUGINS = Path("/usr/lib/cni")
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterServers:
    """The servers of a cluster. Each is given as a context manager that enters when the server answers.

    Attributes:
        folder: Of their files; logs are in ``*.log``, keys and tokens in ``pki``, what they log in with in ``*.kubeconfig``.
        bridge: Of the pods.
        api: The server that is to be, as its administrator.
        kube: The program that is all of Kubernetes.
    """

    folder: Path
    bridge: Bridge
    api: KubernetesAPI
    kube: Path

    def containerd(self, pause: str) -> Server:
        """Run containerd; `pause` is the image that holds a pod's namespaces."""
        program = find_program("containerd", brought_by="apt-get install containerd")
        runc = Path(find_program("runc", brought_by="apt-get install runc"))
        if not (_CNI_PLUGINS / "host-local").exists():
            remedy = "apt-get install containernetworking-plugins"
            raise EngineError("find the CNI plugins", at=str(_CNI_PLUGINS), reason="not installed", remedy=remedy)
        (self.folder / "cni").mkdir()
        network = network_config(self.folder, self.bridge)
        (self.folder / "cni" / "10-bridge.conflist").write_text(network, encoding="utf-8")
        runtime = fitting_runtime(self.folder, runc)
        config = containerd_config(self.folder, pause=pause, plugins=_CNI_PLUGINS, runtime=runtime)
        (self.folder / "containerd.toml").write_text(config, encoding="utf-8")
        return running(
            [program, f"--config={self.folder}/containerd.toml", "--log-level=warn"],
            log=self.folder / "containerd.log",
            ready=(self.folder / "containerd.sock").exists,
            # Plugins look for iptables, which is in a folder that an ordinary PATH may lack.
            environ={**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"},
        )

    @contextlib.contextmanager
    def etcd(self) -> Iterator[str]:
        """Run etcd and give its URL."""
        program = find_program("etcd", brought_by="apt-get install etcd-server")
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        command = [
            program,
            "--name=test",
            f"--data-dir={self.folder}/etcd",
            "--unsafe-no-fsync",  # what is in it need not survive the machine
            "--heartbeat-interval=50",
            "--election-timeout=300",
            "--log-level=warn",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=test={peer}",
        ]
        with running(command, log=self.folder / "etcd.log", ready=lambda: True):
            yield client  # the API server waits for it

    def api_server(self, etcd: str) -> Server:
        """Run the API server on `etcd`."""
        keys, (address, port) = self.folder / "pki", self.api.url.removeprefix("https://").split(":")
        return self._kube(
            "apiserver",
            f"--etcd-servers={etcd}",
            f"--bind-address={address}",
            f"--secure-port={port}",
            f"--advertise-address={address}",
            "--endpoint-reconciler-type=none",
            f"--cert-dir={keys}/api",
            f"--tls-cert-file={keys}/api.crt",
            f"--tls-private-key-file={keys}/api.key",
            f"--token-auth-file={keys}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged",
            "--profiling=false",
            "--enable-priority-and-fairness=false",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys}/sa.pub",
            f"--service-account-signing-key-file={keys}/sa.key",
            f"--service-cluster-ip-range={_SERVICES}",
            f"--kubelet-client-certificate={keys}/kubelet-client.crt",
            f"--kubelet-client-key={keys}/kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            ready=self._has_default_namespace,
        )

    def controllers(self) -> Server:
        """Run the controllers that pods, deployments, jobs and namespaces need."""
        keys = self.folder / "pki"
        return self._kube(
            "controller-manager",
            f"--kubeconfig={self.folder}/controllers.kubeconfig",
            "--leader-elect=false",
            "--secure-port=0",
            f"--service-account-private-key-file={keys}/sa.key",
            f"--root-ca-file={keys}/ca.crt",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            f"--controllers={','.join(_CONTROLLERS)}",
        )

    def scheduler(self) -> Server:
        """Run the scheduler."""
        kubeconfig = f"--kubeconfig={self.folder}/scheduler.kubeconfig"
        return self._kube("scheduler", kubeconfig, "--leader-elect=false", "--secure-port=0")

    def kubelet(self) -> Server:
        """Run the kubelet until the node is ready and the default service account is there."""
        folder, address = self.folder, str(self.bridge.address.ip)
        config = kubelet_config(folder, address=address, port=free_port(), authority=folder / "pki" / "ca.crt")
        (folder / "kubelet.json").write_text(config, encoding="utf-8")
        return self._kube(
            "kubelet",
            f"--config={folder}/kubelet.json",
            f"--kubeconfig={folder}/kubelet.kubeconfig",
            f"--hostname-override={NODE}",
            f"--node-ip={address}",
            f"--root-dir={folder}/kubelet",
            f"--cert-dir={folder}/pki/kubelet",
            ready=self._is_ready,
        )

    def _kube(self, name: str, *options: str, ready: Callable[[], bool] = lambda: True) -> Server:
        log = self.folder / f"{name}.log"
        return running([str(self.kube), name, *options], log=log, ready=ready, timeout_s=_TIMEOUT_S)

    def _has_default_namespace(self) -> bool:
        return self._found("api/v1/namespaces/default") is not None

    def _is_ready(self) -> bool:
        node = self._found(f"api/v1/nodes/{NODE}")
        if node is None or node["spec"].get("taints"):
            return False
        conditions = {each["type"]: each["status"] for each in node["status"].get("conditions", ())}
        return conditions.get("Ready") == "True" and self._found(_DEFAULT_ACCOUNT) is not None

    def _found(self, path: str) -> Any | None:  # noqa: ANN401 - JSON
        try:
            return self.api.ask("GET", path)
        except EngineError:
            return None
