"""Namespaces of a test's own, and users who may do in them what a Role says, and nothing else."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prebuilt.testing.engines.kubernetes.cluster import KubernetesCluster
from prebuilt.testing.engines.process import EngineError

_RBAC = "rbac.authorization.k8s.io"
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A namespace whose default service account is there.

    Attributes:
        cluster: Where it is.
        name: Of it.
        kubeconfig: The administrator's, with this namespace.
    """

    cluster: KubernetesCluster
    name: str
    kubeconfig: Path

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Return what ``kubectl`` prints, as the administrator, in this namespace."""
        return self.cluster.kubectl(f"--namespace={self.name}", *arguments, stdin=stdin)

    def objects(self, kinds: str, selector: str) -> list[str]:
        """Return ``kind/name`` of each object of `kinds`, separated by commas, that has the labels of `selector`."""
        return self.kubectl("get", kinds, "--output=name", f"--selector={selector}").split()

    def ended_phase(self, pod: str) -> str | None:
        """Return the phase in which a pod has ended, or None while it has not."""
        phase = self.kubectl("get", "pod", pod, "--output=jsonpath={.status.phase}")
        return phase if phase in {"Succeeded", "Failed"} else None

    def account(self, name: str, rules: Sequence[Mapping[str, Any]]) -> Path:
        """Make a service account that may do what `rules` say, as a Role has them; return the kubeconfig of a user who is it."""
        metadata = {"metadata": {"name": name}}
        api, core, rbac = self.cluster.api, f"api/v1/namespaces/{self.name}", f"apis/{_RBAC}/v1/namespaces/{self.name}"
        api.ask("POST", f"{core}/serviceaccounts", metadata)
        api.ask("POST", f"{rbac}/roles", {**metadata, "rules": list(rules)})
        subject = {"kind": "ServiceAccount", "name": name, "namespace": self.name}
        role = {"apiGroup": _RBAC, "kind": "Role", "name": name}
        api.ask("POST", f"{rbac}/rolebindings", {**metadata, "roleRef": role, "subjects": [subject]})
        return self.login(name)

    def user(self, name: str, manifest: Path, *roles: str) -> Path:
        """Make a service account that has `roles` of a manifest; return the kubeconfig of a user who is it."""
        self.kubectl("apply", f"--filename={manifest}")
        self.kubectl("create", "serviceaccount", name)
        for role in roles:
            account = f"--serviceaccount={self.name}:{name}"
            self.kubectl("create", "rolebinding", f"{name}-{role}", f"--role={role}", account)
        return self.login(name)

    def login(self, account: str) -> Path:
        """Return a kubeconfig of a user who is a service account that is there."""
        path = f"api/v1/namespaces/{self.name}/serviceaccounts/{account}/token"
        token = self.cluster.api.ask("POST", path, {"spec": {}})["status"]["token"]
        return _write_kubeconfig(self.cluster, self.name, account, token)


@contextlib.contextmanager
def cluster_namespace(cluster: KubernetesCluster, prefix: str = "test") -> Iterator[Namespace]:
    """Give a new namespace. It is deleted afterwards with all that is in it; nothing waits for the end of that.

    Raises:
        EngineError: The cluster refused, or its controllers do not run.
    """
    name = f"{prefix}-{secrets.token_hex(3)}"
    cluster.api.ask("POST", "api/v1/namespaces", {"metadata": {"name": name}})
    try:
        _wait_for(cluster, f"api/v1/namespaces/{name}/serviceaccounts/default")
        _wait_for(cluster, f"api/v1/namespaces/{name}/configmaps/kube-root-ca.crt")
        kubeconfig = _write_kubeconfig(cluster, name, "admin", cluster.api.token)
        yield Namespace(cluster=cluster, name=name, kubeconfig=kubeconfig)
    finally:
        cluster.api.ask("DELETE", f"api/v1/namespaces/{name}")


def _wait_for(cluster: KubernetesCluster, path: str) -> None:
    deadline_s = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            cluster.api.ask("GET", path)
        except EngineError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)
        else:
            return


def _write_kubeconfig(cluster: KubernetesCluster, namespace: str, user: str, token: str) -> Path:
    file = cluster.folder / f"{namespace}-{user}.kubeconfig"
    file.touch(mode=0o600)
    file.write_text(replace(cluster.api, token=token).kubeconfig(namespace), encoding="utf-8")
    return file
