"""A Kubernetes API server in this process, over real HTTP, in which a test tells what happens to each Job."""

from __future__ import annotations

import contextlib
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from prebuilt.core.build_service import BuildRequest
from prebuilt.core.tree import BytesContent
from prebuilt.testing.clock import Clock
from prebuilt.testing.plain_request import plain_request
from prebuilt.testing.served import serving
from prebuilt.testing.user_settings import forget_user_settings

_PATH = re.compile(
    r"/(?:api/v1|apis/batch/v1)/namespaces/(?P<namespace>[^/]+)/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?(?P<log>/log)?"
)
_VERBS = {"POST": "create", "DELETE": "delete"}

Json = dict[str, Any]
Story = Callable[["FakeCluster", Json], None]
"""What happens to a Job that was made; runs in a thread of its own."""


def _moment(at_s: float | None = None) -> str:
    at_s = time.time() if at_s is None else at_s
    whole_s = int(at_s)  # which fromtimestamp would round up where its microseconds are
    return f"{datetime.fromtimestamp(whole_s, timezone.utc):%Y-%m-%dT%H:%M:%S}.{int((at_s - whole_s) * 1e9):09}Z"


class _GoneError(Exception):
    """What a story is about was deleted meanwhile, or nobody looks at it any more: it is over."""


@dataclass
class Call:
    """One request."""

    verb: str
    resource: str
    name: str
    body: Json
    query: dict[str, str]


@dataclass
class FakeCluster:
    """The state of the cluster, and what is to go wrong.

    Attributes:
        denied: Verbs that are forbidden: ``("create", "jobs")``.
        away: While it is set, connections are closed without an answer.
        expired: Requests that are answered by 401.
        user: Who the cluster takes everybody for.
        passing: Answers to the next requests of a verb and a resource: status, reason and message.
        cut_after: Lines of a log after which a stream is cut, once for each number.
        story: What happens to Jobs.
        clock: What the fixture ``clock`` gives.
    """

    denied: set[tuple[str, str]] = field(default_factory=set)
    away: threading.Event = field(default_factory=threading.Event)
    cut_after: list[int] = field(default_factory=list)
    namespaces: set[str] = field(default_factory=lambda: {"default", "builds"})
    calls: list[Call] = field(default_factory=list)
    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    logs: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    expired: int = 0
    user: str = "dev"
    passing: dict[tuple[str, str], list[tuple[int, str, str]]] = field(default_factory=dict)
    story: Story | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)
    address: str = ""
    clock: Clock = field(default_factory=Clock)
    _count: int = 0

    # What a story tells

    def add_pod(self, job: Json) -> str:
        """Make the Job's pod; return its name. A Job that was deleted gets none."""
        name = f"{job['metadata']['name']}-{self._next():05}"
        template = job["spec"]["template"]
        with self.changed:
            if ("jobs", job["metadata"]["name"]) not in self.objects:
                raise _GoneError
            self.put(
                "pods",
                {
                    "metadata": {**template["metadata"], "name": name, "creationTimestamp": _moment()},
                    "spec": template["spec"],
                    "status": {"phase": "Pending"},
                },
            )
        return name

    def set_status(self, pod: str, state: Json, **status: Any) -> None:
        """Give Kaniko's container a state, and the pod other parts of its status."""
        with self.changed:
            image = self.pod(pod)["spec"]["containers"][0]["image"]
            one = {"name": "kaniko", "state": state, "image": image, "imageID": "", "ready": False, "restartCount": 0}
            self.pod(pod)["status"] = {"containerStatuses": [one], **status}
            self.changed.notify_all()

    def run(self, pod: str) -> None:
        """Start the container."""
        self.set_status(pod, {"running": {"startedAt": _moment()}}, phase="Running")

    def say(self, pod: str, *lines: str) -> None:
        """Have the container write lines."""
        with self.changed:
            for line in lines:
                self.logs.setdefault(pod, []).append((time.time(), line))
            self.changed.notify_all()

    def end(self, pod: str, exit_code: int = 0, message: str = "", reason: str = "") -> None:
        """End the container."""
        state = {"exitCode": exit_code, "message": message, "reason": reason or ("Error" if exit_code else "Completed")}
        self.set_status(pod, {"terminated": state}, phase="Failed" if exit_code else "Succeeded")

    def happen(self, owner: Json, reason: str, message: str, kind: str = "Normal") -> None:
        """Add an event, ``Normal`` or a ``Warning``."""
        name = f"event-{self._next()}"
        uid = owner["metadata"]["uid"]
        self.put(
            "events",
            {
                "metadata": {"name": name},
                "involvedObject": {"uid": uid},
                "type": kind,
                "reason": reason,
                "message": message,
                "count": 1,
                "lastTimestamp": _moment(),
            },
        )

    def pod(self, name: str) -> Json:
        """Return a pod."""
        found = self.objects.get(("pods", name))
        if found is None:
            raise _GoneError
        return found

    def fail_job(self, job: Json, reason: str, message: str = "") -> None:
        """Have the Job fail."""
        with self.changed:
            job["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": reason, "message": message}]}

    def let_pass(self, seconds: float) -> None:
        """Let time pass for whoever waits for the Job, who has seen before what is so now."""
        self.await_looks()
        self.clock.now_s += seconds

    def await_looks(self) -> None:
        """Return when what is so now was seen: the next look begins after it, and has ended when another one begins."""
        seen = self._looks()
        end_s = time.monotonic() + 60
        while self._looks() < seen + 2:
            if time.monotonic() > end_s:
                raise _GoneError
            time.sleep(0.01)

    def _looks(self) -> int:
        return sum((call.verb, call.resource) == ("get", "jobs") for call in list(self.calls))

    # What a test looks at

    def made(self, resource: str) -> list[Json]:
        """What was created, in order."""
        return [call.body for call in self.calls if (call.verb, call.resource) == ("create", resource)]

    @property
    def left(self) -> list[tuple[str, str]]:
        """What is there beside events."""
        return sorted(key for key in self.objects if key[0] != "events")

    # The server

    def put(self, resource: str, body: Json) -> Json:
        """Keep an object."""
        with self.changed:
            body = {**body, "metadata": {**body["metadata"], "uid": f"uid-{self._next()}"}}
            self.objects[resource, body["metadata"]["name"]] = body
            self.changed.notify_all()
            return body

    def delete_job(self, name: str) -> None:
        """Remove a Job with all that it owns, as the garbage collector does."""
        with self.changed:
            job = self.objects.pop(("jobs", name))
            for key, body in list(self.objects.items()):
                owners = {owner["uid"] for owner in body["metadata"].get("ownerReferences", [])}
                label = body["metadata"].get("labels", {}).get("metaflow-prebuilt/build")
                if job["metadata"]["uid"] in owners or (key[0] == "pods" and label == name):
                    del self.objects[key]
            self.changed.notify_all()

    def refusal(self, verb: str, resource: str, namespace: str) -> tuple[int, str, str] | None:
        """Return status, reason and message of what is refused whatever it is about; None if it is not."""
        if self.expired > 0:
            self.expired -= 1
            return 401, "Unauthorized", "Unauthorized"
        if self.passing.get((verb, resource)):
            return self.passing[verb, resource].pop(0)
        if (verb, resource) not in self.denied:
            return None
        who = f'User "{self.user}" cannot {verb} resource "{resource}" in API group "" in the namespace "{namespace}"'
        return 403, "Forbidden", f"{resource} is forbidden: {who}"

    def _next(self) -> int:
        with self.changed:
            self._count += 1
            return self._count


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        pass

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_DELETE = do_GET  # noqa: N815 - names of the base class

    def _answer(self) -> None:
        cluster = self.server.cluster
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        if cluster.away.is_set():
            self.close_connection = True
            return
        url = urlsplit(self.path)
        match = _PATH.fullmatch(url.path)
        assert match is not None, url.path
        resource = match["resource"] + (match["log"] or "")
        name = match["name"] or body.get("metadata", {}).get("name", "")
        verb = _VERBS.get(self.command) or ("get" if match["name"] else "list")
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        cluster.calls.append(Call(verb, resource, name, body, query))
        refusal = cluster.refusal(verb, resource, match["namespace"])
        if refusal is not None:
            self._status(*refusal)
        elif verb == "create" and match["namespace"] not in cluster.namespaces:
            self._status(404, "NotFound", f'namespaces "{match["namespace"]}" not found')
        elif verb == "create":
            self._create(resource, name, body)
        elif verb == "list":
            self._list(resource, query)
        elif (match["resource"], name) not in cluster.objects:
            self._status(404, "NotFound", f'{resource} "{name}" not found')
        elif verb == "delete":
            cluster.delete_job(name)
            self._json(200, {"kind": "Status", "status": "Success"})
        elif match["log"]:
            self._log(name, query)
        else:
            self._json(200, cluster.objects[resource, name])

    def _create(self, resource: str, name: str, body: Json) -> None:
        cluster = self.server.cluster
        if (resource, name) in cluster.objects:
            self._status(409, "AlreadyExists", f'{resource} "{name}" already exists')
            return
        made = cluster.put(resource, body)
        self._json(201, made)
        if resource == "jobs" and cluster.story is not None:
            threading.Thread(target=_tell, args=(cluster.story, cluster, made), daemon=True).start()

    def _list(self, resource: str, query: Mapping[str, str]) -> None:
        items = [body for key, body in sorted(self.server.cluster.objects.items()) if key[0] == resource]
        if "labelSelector" in query:
            key, _, value = query["labelSelector"].partition("=")
            items = [item for item in items if item["metadata"].get("labels", {}).get(key) == value]
        if "fieldSelector" in query:
            uid = query["fieldSelector"].removeprefix("involvedObject.uid=")
            items = [item for item in items if item["involvedObject"]["uid"] == uid]
        self._json(200, {"kind": "List", "items": items})

    def _log(self, pod: str, query: Mapping[str, str]) -> None:
        cluster = self.server.cluster
        since_s = time.time() - int(query["sinceSeconds"]) if "sinceSeconds" in query else 0.0
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent, lines = 0, 0
        while True:
            with cluster.changed:
                log = cluster.logs.get(pod, [])
                is_over = ("pods", pod) not in cluster.objects or "terminated" in str(cluster.pod(pod)["status"])
                if sent == len(log) and not is_over:
                    cluster.changed.wait(0.5)
                    log = cluster.logs.get(pod, [])
                    is_over = False
            for at_s, line in log[sent:]:
                sent += 1
                if at_s < since_s:
                    continue
                if cluster.away.is_set() or lines in cluster.cut_after:
                    if lines in cluster.cut_after:
                        cluster.cut_after.remove(lines)
                    self._chunk(f"{_moment(at_s)} {line}"[:35].encode())  # in the middle of a line
                    self.close_connection = True
                    return
                self._chunk(f"{_moment(at_s)} {line}\n".encode())
                lines += 1
            if is_over and sent == len(log):
                self._chunk(b"")
                return

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _status(self, code: int, reason: str, message: str) -> None:
        self._json(code, {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code})

    def _json(self, code: int, body: Json) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _tell(story: Story, cluster: FakeCluster, job: Json) -> None:
    with contextlib.suppress(_GoneError):
        try:
            story(cluster, job)
        except AssertionError as error:
            cluster.fail_job(job, "StoryFailed", str(error))  # who waits for the Job is not to wait for ever
            raise


class _Server(ThreadingHTTPServer):
    def __init__(self, cluster: FakeCluster) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cluster = cluster

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients go away, and tests look at what they get."""


def works(*lines: str) -> Story:
    """Return the story of a build that succeeds, and says `lines`."""

    def story(cluster: FakeCluster, job: Json) -> None:
        pod = cluster.add_pod(job)
        cluster.happen(cluster.pod(pod), "Scheduled", f"Successfully assigned {pod} to node")
        cluster.run(pod)
        cluster.say(pod, *lines)
        cluster.end(pod)

    return story


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep what users have configured out of the tests."""
    forget_user_settings(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """A cluster in which builds succeed, and the kubeconfig of a user who may do everything."""
    fake = FakeCluster(story=works("INFO[0000] Retrieving image manifest", "INFO[0009] Pushed"))
    server = _Server(fake)
    fake.address = f"http://127.0.0.1:{server.server_port}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fake", "cluster": {"server": fake.address}}],
        "users": [{"name": "dev", "user": {"token": "made-up"}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "dev"}}],
        "current-context": "fake",
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "scratch").mkdir()
    # As in the product, but faster.
    monkeypatch.setattr("prebuilt.kaniko.watch._LOOK_S", 0.05)
    monkeypatch.setattr("prebuilt.kaniko.cluster._PAUSE_S", 0.2)
    monkeypatch.setattr("prebuilt.kaniko.pod_log._PAUSE_S", 0.05)
    with serving(server):
        yield fake


@pytest.fixture
def clock(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock by which Jobs are waited for; it goes when a story has :meth:`FakeCluster.let_pass`."""
    monkeypatch.setattr("prebuilt.kaniko.watch.time", SimpleNamespace(monotonic=cluster.clock))
    return cluster.clock


@pytest.fixture
def tells() -> Callable[..., Story]:
    """Return :func:`works`, since test files import nothing of each other."""
    return works


@pytest.fixture
def make_request() -> Callable[..., BuildRequest]:
    """Return what makes requests, with other fields of the request or the spec, and with bytes that do not compress."""

    def make(
        platform: str = "linux/amd64", spec: Mapping[str, Any] | None = None, size_bytes: int = 0, **changes: Any
    ) -> BuildRequest:
        noise = random.Random(1).randbytes(size_bytes)  # noqa: S311 - it must not compress
        request = plain_request(
            "registry.example/team/image:tag",
            platform=platform,
            files={"noise": BytesContent(noise)} if noise else {},
            spec=spec,
        )
        return replace(request, **changes)

    return make
