"""The way to the cluster, and what happens when it is cut."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from prebuilt.core.errors import EngineError
from prebuilt.core.settings import Settings
from prebuilt.kaniko import KanikoBuildService
from prebuilt.kaniko.connection import Connection
from prebuilt.testing.waiting import eventually

Echo = Callable[..., None]


def _build(said: list[str], **settings: str) -> bool:
    environ = {f"METAFLOW_PREBUILT_{name}": value for name, value in settings.items()}
    service = KanikoBuildService(Settings(environ, {}))
    return service.build_and_push("FROM scratch", {}, "registry.example/team/image:tag", {}, said.append)


def test_cut_logs_are_resumed(cluster: Any) -> None:
    """A log whose connection is cut in the middle of a line, again and again, is whole: no line is missing, none is there twice."""
    lines = [f"INFO[0000] line {number}" for number in range(60)]

    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        fake.run(pod)
        for line in lines:
            fake.say(pod, line)
            time.sleep(0.005)
        fake.end(pod)

    cluster.cut_after = [3, 9, 20]
    cluster.story = story
    said: list[str] = []
    assert _build(said)
    assert [line for line in said if line.startswith("INFO")] == lines
    assert cluster.cut_after == []


def test_lines_of_one_moment_are_kept(cluster: Any) -> None:
    """Lines with the same time are told from repeated ones."""

    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        fake.run(pod)
        moment_s = time.time()
        with fake.changed:
            fake.logs[pod] = [(moment_s, "same"), (moment_s, "same"), (moment_s, "same"), (moment_s + 0.001, "other")]
        fake.end(pod)

    cluster.cut_after = [2]
    cluster.story = story
    said: list[str] = []
    assert _build(said)
    assert said[:4] == ["same", "same", "same", "other"]
    assert "same" not in said[4:]


def test_server_that_is_away_for_a_while(cluster: Any, tells: Callable[..., Any]) -> None:
    """A build goes on in a cluster whose API does not answer for a while; it is said once, and the log is whole in the end."""
    lines = [f"INFO[0000] line {number}" for number in range(20)]
    said: list[str] = []

    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        fake.run(pod)
        fake.say(pod, *lines[:10])
        eventually(lambda: lines[9] in said)
        fake.away.set()
        fake.say(pod, *lines[10:])
        eventually(lambda: any("does not answer" in line for line in said))
        fake.end(pod)
        fake.away.clear()

    cluster.story = story
    assert _build(said)
    assert [line for line in said if line.startswith("INFO")] == lines
    assert len([line for line in said if "does not answer" in line]) == 1
    assert cluster.left == []


def test_server_that_never_answers(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has its address, soon: nobody waits a minute for a wrong one."""
    monkeypatch.setattr("prebuilt.kaniko.cluster._FIRST_PATIENCE_S", 0.5)
    cluster.away.set()
    said: list[str] = []
    assert not _build(said)
    assert cluster.address in said[-1]
    assert "does not answer" in said[-1]


def test_server_that_asks_for_patience(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says is told while it is asked again, and in the error if that did not help."""
    said: list[str] = []
    cluster.passing["create", "jobs"] = [(503, "ServiceUnavailable", "etcd has no leader")]
    assert _build(said)
    [note] = [line for line in said if "no leader" in line]
    assert note.endswith("the cluster's API answers 503 Service Unavailable: etcd has no leader: trying again")
    monkeypatch.setattr("prebuilt.kaniko.cluster._FIRST_PATIENCE_S", 0.5)
    cluster.passing["create", "jobs"] = [(500, "InternalError", "failed calling webhook: timed out")] * 1000
    assert not _build(said)
    assert "failed calling webhook: timed out" in said[-1]
    assert "does not answer" not in said[-1]


def test_server_that_takes_its_time_to_refuse(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it is asked again is told once, however long the first attempt took: it may be a server that hangs."""
    monkeypatch.setattr("prebuilt.kaniko.cluster._PAUSE_S", 0.0)
    cluster.passing["create", "jobs"] = [(503, "ServiceUnavailable", "etcd has no leader")] * 3
    said: list[str] = []
    assert _build(said)
    assert len([line for line in said if "no leader" in line]) == 1


def test_answer_that_is_lost(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Job whose creation was answered by nothing is made once, and built."""
    from prebuilt.kaniko import cluster as module

    group, lost = module._group, threading.Event()

    def losing(api: Any, resource: str) -> Any:
        real = group(api, resource)
        if resource == "jobs" and not lost.is_set():
            create = real.create_namespaced_job

            def create_and_lose(*arguments: Any, **options: Any) -> Any:
                import urllib3

                create(*arguments, **options)
                lost.set()
                raise urllib3.exceptions.ProtocolError("cut")

            real.create_namespaced_job = create_and_lose
        return real

    monkeypatch.setattr(module, "_group", losing)
    assert _build([])
    assert len([call for call in cluster.calls if (call.verb, call.resource) == ("create", "jobs")]) == 2
    assert cluster.left == []


def test_quota_that_others_use_at_the_same_moment(cluster: Any) -> None:
    """The API refuses for a conflict what it takes a moment later: nothing was made, so it is asked again."""
    message = 'Operation cannot be fulfilled on resourcequotas "q": the object has been modified'
    for resource in ("jobs", "configmaps"):
        cluster.passing["create", resource] = [(409, "Conflict", message)]
    assert _build([])
    for resource in ("jobs", "configmaps"):
        assert [call.verb for call in cluster.calls if call.resource == resource].count("create") == 2
    assert cluster.left == []


def test_no_cluster(tmp_path: Path) -> None:
    """A configuration that is not there, or names no cluster, is told with the variable."""
    for text in (None, "nonsense", "not: [yaml", "apiVersion: v1\nkind: Config\n"):
        path = tmp_path / "config"
        if text is not None:
            path.write_text(text)
        with pytest.raises(EngineError, match="KUBECONFIG"):
            Connection({"KUBECONFIG": str(path)}).client()


def test_in_a_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """KUBECONFIG comes first, as for Metaflow; without it a pod's own service account is used."""
    from kubernetes import config

    loaded: list[str] = []
    monkeypatch.setattr(config, "load_incluster_config", lambda **_: loaded.append("pod"))
    monkeypatch.setattr(config, "load_kube_config", lambda config_file, **_: loaded.append(config_file))
    for environ in (
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBECONFIG": "/k"},
        {},
    ):
        Connection(environ).client()
    assert loaded == ["pod", "/k", "~/.kube/config"]


def test_login_that_has_expired(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration is read again when the server refuses the login; what it refuses then is an error."""
    cluster.expired = 1
    assert _build([])
    cluster.passing["create", "jobs"] = [(403, "Forbidden", 'User "system:anonymous" cannot create resource "jobs"')]
    assert _build([])
    cluster.expired = 100
    said: list[str] = []
    assert not _build(said)
    assert "401" in said[-1]
    assert "log in to the cluster again" in said[-1]


def test_login_that_expires_while_a_log_is_opened(cluster: Any) -> None:
    """The log is asked for again with a new login, as everything else is: the build goes on."""
    cluster.passing["get", "pods/log"] = [(401, "Unauthorized", "Unauthorized")]
    said: list[str] = []
    assert _build(said), said
    cluster.passing["get", "pods/log"] = [(401, "Unauthorized", "Unauthorized")] * 2
    assert not _build(said)
    assert "log in to the cluster again" in said[-1]


def test_login_command_that_fails(cluster: Any, tmp_path: Path) -> None:
    """The client asks as nobody then, who may do nothing: that is no matter of the Role."""
    config = yaml.safe_load((tmp_path / "kubeconfig").read_text())
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": "false", "interactiveMode": "Never"}
    config["users"][0]["user"] = {"exec": command}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    cluster.user = "system:anonymous"
    cluster.denied.add(("create", "jobs"))
    said: list[str] = []
    assert not _build(said)
    assert "log in to the cluster again" in said[-1]
    assert "grant" not in said[-1]
