"""AWS CodeBuild in this process: moto's API, whose builds are moved on by whoever plays the build host."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from unittest import mock

from prebuilt.testing.amazon_ecr import ACCOUNT, REGION

PROJECT = "metaflow-prebuilt"


@dataclass(kw_only=True)
class RemoteBuild:
    """A build as CodeBuild keeps it.

    Attributes:
        asked: The parameters that it was started with.
        data: What the API says of it.
        is_stopped: Is set when somebody asks CodeBuild to stop it.
    """

    asked: Mapping[str, Any]
    data: dict[str, Any]
    is_stopped: threading.Event = field(default_factory=threading.Event)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def variables(self) -> dict[str, str]:
        """The variables that the build was given, secrets by their names."""
        return {each["name"]: each["value"] for each in self.asked.get("environmentVariablesOverride", ())}

    def snapshot(self) -> dict[str, Any]:
        """Return what the API says of it now."""
        with self._lock:
            return copy.deepcopy(self.data)

    def enter(self, phase: str) -> None:
        """End the current phase well, and begin another one."""
        with self._lock:
            self._end_phase("SUCCEEDED", [])
            self.data["currentPhase"] = phase
            self.data["phases"].append({"phaseType": phase, "startTime": _now()})

    def begin_log(self, client: Any) -> None:  # noqa: ANN401 - boto3 has no types
        """Begin the log with a client of CloudWatch Logs, which has the permissions that its owner has."""
        client.create_log_stream(logGroupName=self._group, logStreamName=self._stream)
        line = {"timestamp": _milliseconds(), "message": "[Container] Waiting for agent ping\n"}
        client.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=[line])
        self._has_log()

    def write(self, *lines: str) -> None:
        """Write to the log; the first line makes it."""
        from moto.logs.models import logs_backends

        logs = logs_backends[ACCOUNT][REGION]
        with self._lock:
            if "groupName" not in self.data["logs"]:
                if self._group not in logs.groups:
                    logs.create_log_group(self._group, {})
                logs.create_log_stream(self._group, self._stream)
                self._has_log()
            events = [{"timestamp": _milliseconds(), "message": f"{line}\n"} for line in lines]
            logs.put_log_events(self._group, self._stream, events)

    @property
    def _group(self) -> str:
        return f"/aws/codebuild/{self.data['projectName']}"

    @property
    def _stream(self) -> str:
        return str(self.data["id"]).rpartition(":")[2]

    def _has_log(self) -> None:
        with self._lock:
            self.data["logs"] |= {"groupName": self._group, "streamName": self._stream}

    def export(self, **variables: str) -> None:
        """Hand variables back."""
        with self._lock:
            self.data["exportedEnvironmentVariables"] = [{"name": n, "value": v} for n, v in variables.items()]

    def end(self, status: str = "SUCCEEDED", *reasons: str) -> None:
        """End the build: its current phase with `status`, and with what CodeBuild says of it."""
        with self._lock:
            if self.data["buildComplete"]:
                return
            contexts = [{"statusCode": "COMMAND_EXECUTION_ERROR", "message": reason} for reason in reasons]
            self._end_phase(status, contexts)
            self.data |= {"buildStatus": status, "currentPhase": "COMPLETED", "buildComplete": True, "endTime": _now()}

    def stop(self) -> None:
        """Do what ``StopBuild`` does."""
        self.is_stopped.set()
        self.end("STOPPED")

    def _end_phase(self, status: str, contexts: list[dict[str, str]]) -> None:
        self.data["phases"][-1] |= {"phaseStatus": status, "endTime": _now(), "contexts": contexts}


@dataclass(kw_only=True)
class CodeBuilds:
    """Every build of this process.

    Attributes:
        host: Plays the build host: is called with each build that starts, in a thread of its own.
        builds: In the order of their start.
        failures: What `host` raised.
    """

    host: Callable[[RemoteBuild], None]
    builds: list[RemoteBuild] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Start a build, and return what the API says of it; of the same one again for a token that is known."""
        with self._lock:
            token = asked.get("idempotencyToken")
            for build in self.builds:
                if token and build.asked.get("idempotencyToken") == token:
                    return build.snapshot()
            build = RemoteBuild(asked=dict(asked), data=_started(asked["projectName"].rpartition("/")[2]))
            self.builds.append(build)
            thread = threading.Thread(target=self._play, args=[build], daemon=True)
            self._threads.append(thread)
            as_it_began = build.snapshot()  # its host may be faster than the answer
        thread.start()
        return as_it_began

    def get(self, build_id: str) -> RemoteBuild | None:
        """Return the build; None if there is none."""
        return next((build for build in self.builds if build.data["id"] == build_id), None)

    def join(self) -> None:
        """Stop what goes on, and raise what a host raised."""
        for build in self.builds:
            build.is_stopped.set()
        for thread in self._threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def _play(self, build: RemoteBuild) -> None:
        try:
            self.host(build)
        except BaseException as error:  # noqa: BLE001 - raised again by `join`
            self.failures.append(error)
            build.end("FAULT", f"the test's host failed: {error}")


def succeed(build: RemoteBuild) -> None:
    """Play a host where all is well."""
    for phase in ("QUEUED", "PROVISIONING", "DOWNLOAD_SOURCE", "INSTALL", "PRE_BUILD", "BUILD"):
        build.enter(phase)
    build.write("[Container] Entering phase BUILD", "pushed it")
    build.export(
        IMAGE_DIGEST="sha256:" + "a" * 64,
        IMAGE_MEDIA_TYPE="application/vnd.oci.image.manifest.v1+json",
        IMAGE_SIZE="782",
    )
    build.end()


@contextlib.contextmanager
def codebuild_of_moto(host: Callable[[RemoteBuild], None] = succeed) -> Iterator[CodeBuilds]:
    """Have moto, in this process, keep builds for the time of the body; `host` moves them on.

    moto knows projects, and forgets what a build is started with; each of its builds has succeeded when it is looked at first.
    """
    from moto.codebuild.exceptions import ResourceNotFoundException
    from moto.codebuild.responses import CodeBuildResponse
    from moto.core.responses import ActionResult

    known = CodeBuilds(host=host)
    start_of_moto = CodeBuildResponse.start_build

    def start_build(response: CodeBuildResponse) -> ActionResult:
        start_of_moto(response)  # it looks whether there is such a project
        return ActionResult({"build": known.start(json.loads(response.body))})

    def batch_get_builds(response: CodeBuildResponse) -> ActionResult:
        found = [build for each in response._get_param("ids") if (build := known.get(each))]  # noqa: SLF001 - moto has no other name
        return ActionResult({"builds": [build.snapshot() for build in found]})

    def stop_build(response: CodeBuildResponse) -> ActionResult:
        build = known.get(response._get_param("id"))  # noqa: SLF001 - the same
        if build is None:
            raise ResourceNotFoundException("there is no such build")
        build.stop()
        return ActionResult({"build": build.snapshot()})

    with (
        mock.patch.object(CodeBuildResponse, "start_build", start_build),
        mock.patch.object(CodeBuildResponse, "batch_get_builds", batch_get_builds),
        mock.patch.object(CodeBuildResponse, "stop_build", stop_build),
    ):
        try:
            yield known
        finally:
            known.join()


def create_project(client: Any, name: str = PROJECT) -> None:  # noqa: ANN401 - boto3 has no types
    """Make a project as an operator does, with a client of CodeBuild."""
    client.create_project(
        name=name,
        source={"type": "NO_SOURCE", "location": "none"},
        artifacts={"type": "NO_ARTIFACTS"},
        environment={
            "type": "LINUX_CONTAINER",
            "image": "aws/codebuild/standard:7.0",
            "computeType": "BUILD_GENERAL1_SMALL",
        },
        serviceRole=f"arn:aws:iam::{ACCOUNT}:role/builds",
    )


def _started(project: str) -> dict[str, Any]:
    build_id = f"{project}:{uuid.uuid4()}"
    return {
        "id": build_id,
        "arn": f"arn:aws:codebuild:{REGION}:{ACCOUNT}:build/{build_id}",
        "projectName": project,
        "startTime": _now(),
        "currentPhase": "SUBMITTED",
        "buildStatus": "IN_PROGRESS",
        "buildComplete": False,
        "phases": [{"phaseType": "SUBMITTED", "startTime": _now()}],
        "logs": {
            "cloudWatchLogs": {"status": "ENABLED"},
            "cloudWatchLogsArn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:null:log-stream:null",
        },
    }


def _milliseconds() -> int:
    return int(time.time() * 1000)


def _now() -> datetime:
    return datetime.now(timezone.utc)
