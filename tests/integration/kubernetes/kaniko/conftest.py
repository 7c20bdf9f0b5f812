"""Somebody who builds small Dockerfiles with Kaniko on a real cluster, and may do there what the documented Role says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from prebuilt.core.settings import Settings
from prebuilt.kaniko import KanikoBuildService
from prebuilt.testing.engines.kubernetes.cluster import KubernetesCluster
from prebuilt.testing.engines.kubernetes.namespace import Namespace
from prebuilt.testing.processes import command_lines
from prebuilt.testing.waiting import eventually, eventually_gone

ROLE = Path(__file__).parents[4] / "docs" / "how-to" / "kaniko-role.yaml"
RULES: list[dict[str, Any]] = yaml.safe_load(ROLE.read_text())["rules"]
PROGRAM = """
import json, sys
from prebuilt.kaniko import KanikoBuildService
build = json.loads(sys.argv[1])
sys.exit(not KanikoBuildService().build_and_push(**build, echo=lambda line: print(line, flush=True)))
"""


@dataclass(kw_only=True)
class User:
    """Somebody who deploys.

    Attributes:
        namespace: Where their builds run.
        base: What their Dockerfiles begin with.
        environ: Their environment.
        said: What they were told.
    """

    namespace: Namespace
    base: str
    environ: Mapping[str, str]
    said: list[str] = field(default_factory=list)
    monkeypatch: pytest.MonkeyPatch

    def having(self, **settings: str) -> User:
        """Return the user with more settings."""
        mine = {f"METAFLOW_PREBUILT_{name}": value for name, value in settings.items()}
        return replace(self, environ={**self.environ, **mine})

    def may(self, rules: list[dict[str, Any]]) -> None:
        """Log in as somebody with other rules."""
        self.goes_by(self.namespace.account(f"user-{time.monotonic_ns()}", rules))

    def goes_by(self, kubeconfig: Path) -> None:
        """Use a kubeconfig."""
        self.monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

    def build(self, run: str = "", **changes: Any) -> bool:
        """Build a small Dockerfile with a ``RUN`` of Python, if there is one."""
        service = KanikoBuildService(Settings(self.environ, {}))
        return service.build_and_push(**{**self.order(run), "echo": self.said.append, **changes})

    def order(self, run: str = "") -> dict[str, Any]:
        """Return what is built."""
        step = f"RUN {json.dumps(['python3', '-c', run])}\n" if run else ""
        return {
            "dockerfile": f"FROM {self.base}\n{step}COPY file /file\n",
            "context_files": {"file": "text"},
            "image_tag": f"{self.namespace.cluster.registry}/trouble:tag",
            "push_credentials": {},
        }

    def start(self, run: str) -> subprocess.Popen[str]:
        """Start to build in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(self.order(run))],
            env={**os.environ, **self.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def build_in_a_pod(self, account: str, run: str) -> str:
        """Build as a pod whose service account is `account`, and that has no kubeconfig; return what it printed."""
        api = self.namespace.cluster.api.url.removeprefix("https://")
        host, _, port = api.partition(":")
        # The Python is in the image; what it imports is mounted from this machine, which is the node.
        found = (path for path in sys.path if Path(path).is_dir() and not path.startswith(sys.base_prefix))
        paths = list(dict.fromkeys(found))
        variables = {
            **self.environ,
            "HOME": "/tmp",
            "METAFLOW_HOME": "/tmp",
            "PYTHONPATH": ":".join(paths),
            # There is no kube-proxy that would lead a service's address there.
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
        }
        container = {
            "name": "deploy",
            "image": self.base,
            "command": ["python3", "-c", PROGRAM, json.dumps(self.order(run))],
            "env": [{"name": name, "value": value} for name, value in variables.items()],
            "volumeMounts": [
                {"name": "tmp", "mountPath": "/tmp"},
                *({"name": f"path-{number}", "mountPath": path, "readOnly": True} for number, path in enumerate(paths)),
            ],
        }
        spec = {
            "restartPolicy": "Never",
            "serviceAccountName": account,
            "containers": [container],
            "volumes": [
                {"name": "tmp", "emptyDir": {}},
                *({"name": f"path-{number}", "hostPath": {"path": path}} for number, path in enumerate(paths)),
            ],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": account}, "spec": spec}
        self.namespace.kubectl("create", "--filename=-", stdin=json.dumps(pod))
        phase = eventually(
            lambda: self.namespace.ended_phase(account),
            within_s=600,
            every_s=0.5,
            said=lambda: self.namespace.kubectl("describe", "pod", account),
        )
        log = self.namespace.kubectl("logs", account)
        assert phase == "Succeeded", log
        return log

    def kill_kaniko(self) -> None:
        """Kill the process that builds; this machine is the node."""
        for pid, (program, *arguments) in command_lines():
            if program.endswith("/executor") and any(word.endswith("/trouble:tag") for word in arguments):
                with contextlib.suppress(ProcessLookupError):  # it ended just now
                    os.kill(pid, signal.SIGKILL)

    def once(self, word: str, act: Callable[[], Any]) -> threading.Thread:
        """Act as soon as a line with `word` was said."""

        def wait() -> None:
            eventually(lambda: any(word in line for line in list(self.said)), within_s=600)
            act()

        thread = threading.Thread(target=wait)
        thread.start()
        return thread


@pytest.fixture
def await_cleanup(kube_namespace: Namespace) -> Callable[[], None]:
    """Return what waits until nothing of builds is left in the namespace: its garbage collector takes its time."""

    def left() -> list[str]:
        return kube_namespace.objects("jobs,pods,secrets,configmaps", "metaflow-prebuilt/build")

    return lambda: eventually_gone(left, within_s=600, every_s=0.5)


@pytest.fixture
def user(
    cluster: KubernetesCluster,
    kube_namespace: Namespace,
    cluster_base: str,
    kaniko_image: str,
    await_cleanup: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[User]:
    """Somebody with the documented Role; nothing is left of their builds."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    user = User(
        namespace=kube_namespace,
        base=cluster_base,
        environ={"HOME": str(tmp_path), "METAFLOW_HOME": str(tmp_path)},
        monkeypatch=monkeypatch,
    ).having(
        INSECURE_REGISTRIES=cluster.address,
        KANIKO_NAMESPACE=kube_namespace.name,
        KANIKO_IMAGE=kaniko_image,
        KANIKO_CPU="50m",
        KANIKO_MEMORY="512Mi",
        KANIKO_TIMEOUT="600",
    )
    user.may(RULES)
    yield user
    await_cleanup()
