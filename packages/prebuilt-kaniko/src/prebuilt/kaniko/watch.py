"""A Job on its way: what happens is passed on as it happens, and the first thing that cannot end well ends the wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import BuildError
from prebuilt.kaniko.cluster import Cluster
from prebuilt.kaniko.config import BUILD_PLATFORM_SETTING, PENDING_TIMEOUT_SETTING, TIMEOUT_SETTING, KanikoConfig
from prebuilt.kaniko.job import BUILD_LABEL, CONTAINER, KanikoBuild
from prebuilt.kaniko.pod_log import PodLog
from prebuilt.kaniko.pod_state import (
    Ended,
    Obstacle,
    ended,
    failed_job,
    has_started,
    is_busy,
    is_early,
    last_warning,
    lost,
    newest,
    obstacle,
    refused,
    unmountable,
    unschedulable,
)

_LOOK_S = 1.0
_LATE_S = 30.0  # after the cluster's own deadline: it says what happened, if it can
_DRAIN_S = 30.0  # for the rest of the log of a container that has ended
_SILENT = {"Created", "Started", "SuccessfulCreate", "SuccessfulDelete", "Killing", "Completed"}
"""Events that say nothing that the log does not."""
_ROOM = "see whether a node has what is asked for"


@dataclass(slots=True, kw_only=True)
class JobWatch:
    """Watches one Job from its creation to the end of Kaniko's container.

    Attributes:
        cluster: Where it is.
        build: What is built.
        config: How.
        output: Is given events and the log.
        cancellation: Ends the wait.
    """

    cluster: Cluster
    build: KanikoBuild
    config: KanikoConfig
    output: Callable[[str], None]
    cancellation: Cancellation
    _seen: set[tuple[str, int]] = field(default_factory=set, init=False)
    _pulled: str = field(default="", init=False)
    _waiting_for: str = field(default="", init=False)
    _waiting_since_s: float = field(default=0.0, init=False)
    _log: PodLog | None = field(default=None, init=False)

    def wait(self, job: Mapping[str, Any]) -> Ended:
        """Return how Kaniko ended; its whole log was passed on by then.

        Raises:
            BuildError: It does not get as far as that.
            CancelledError: The request was cancelled.
            EngineError: The cluster refuses to say, or does not answer.
        """
        uid, deadline_s = str(job["metadata"]["uid"]), time.monotonic() + self.config.timeout_s + _LATE_S
        try:
            while True:
                self.cancellation.check()
                found = self._look(uid)
                if found is not None:
                    return found
                if time.monotonic() > deadline_s:
                    raise self._too_slow()
                self.cancellation.wait(_LOOK_S)
        finally:
            if self._log is not None:
                self._log.stop()

    def _look(self, uid: str) -> Ended | None:
        """Look once; return how Kaniko ended, if it did."""
        job = self.cluster.find_job(self.build.name)
        if job is None or job["metadata"]["uid"] != uid or job["metadata"].get("deletionTimestamp"):
            raise self._failure("somebody else deleted the Job while it ran", "build again")
        pod = newest(self.cluster.list_pods(f"{BUILD_LABEL}={self.build.name}"))
        if pod is None:
            self._check_unborn(uid)
        else:
            found = self._look_at(pod)
            was_killed = found is not None and found.exit_code != 0 and pod["metadata"].get("deletionTimestamp")
            if found is not None and not was_killed:  # else the Job says why, now or soon
                return found
        self._check_job(job)
        return None

    def _look_at(self, pod: Mapping[str, Any]) -> Ended | None:
        if has_started(pod):
            if self._log is None:
                self._events(str(pod["metadata"]["uid"]))  # what happened since the last look, or before the first
            log = self._follow(str(pod["metadata"]["name"]))
            found = ended(pod)
            if found is not None and not log.finish(_DRAIN_S):
                self.cluster.note(
                    f"the rest of Kaniko's log could not be read within {_DRAIN_S:.0f} s: it is not shown"
                )
            if log.failure is not None:
                raise self.cluster.refusal("get", "pods/log", log.failure) from log.failure
            if found is not None and found.exit_code != 0:
                self._check_lost(pod)
            return found
        self._check_pending(pod)
        return None

    def _follow(self, pod: str) -> PodLog:
        if self._log is None:
            self._log = PodLog(lambda since_s: self.cluster.open_log(pod, CONTAINER, since_s), self.output)
            self._log.start()
        return self._log

    def _check_unborn(self, uid: str) -> None:
        """Raise if no pod will ever be made for the Job."""
        for event in self._events(uid):
            found = refused(event)
            if found is not None:
                raise self._stuck(found)
        self._be_patient("a pod", "the cluster makes no pod for the Job", _ROOM)

    def _check_pending(self, pod: Mapping[str, Any]) -> None:
        """Raise if the pod will never run."""
        events = self._events(str(pod["metadata"]["uid"]))
        for event in events:
            found = unmountable(event, self.build.name, self.config.secret_name)
            if found is not None:
                raise self._stuck(found)
            if event.get("reason") == "Failed" and "pull" in str(event.get("message")):
                self._pulled = str(event["message"])
        found = obstacle(pod, self.build.name, self._pulled)
        if found is not None:
            raise self._stuck(found)
        self._check_lost(pod)
        reason = unschedulable(pod)
        if reason is not None:
            self._be_patient("a node", f"no node takes the pod: {reason}", f"{self._other_nodes(reason)}{_ROOM}")
        elif is_busy(pod, events):
            self._waiting_for = ""
        else:
            warning = last_warning(events, self.build.name)
            self._be_patient(
                "a start", f"the pod does not start: {warning}".rstrip(": "), "ask whoever runs the cluster"
            )

    def _check_lost(self, pod: Mapping[str, Any]) -> None:
        failed = lost(pod)
        if failed is not None:
            raise self._stuck(failed)

    def _check_job(self, job: Mapping[str, Any]) -> None:
        failed = failed_job(job)
        if failed is None:
            return
        reason, message = failed
        if reason == "DeadlineExceeded":
            raise self._too_slow()
        raise self._failure(
            f"the Job failed without a trace of Kaniko's end: {reason}: {message}".rstrip(": "),
            "build again: its pod, or its node, was taken away",
        )

    def _other_nodes(self, reason: str) -> str:
        """Return what helps where there are no nodes of the platform, beside waiting."""
        if not self.build.is_ours or "affinity/selector" not in reason:
            return ""
        wanted = self.build.built_on or self.build.platform
        return f"have nodes of {wanted}, set {BUILD_PLATFORM_SETTING} to the platform of those that there are, or else "

    def _be_patient(self, what: str, reason: str, remedy: str) -> None:
        """Raise if `what` was waited for, and nothing else meanwhile, for long enough."""
        now_s = time.monotonic()
        if self._waiting_for != what:
            self._waiting_for, self._waiting_since_s = what, now_s
        if now_s - self._waiting_since_s > self.config.pending_timeout_s:
            raise self._failure(
                f"{reason} (for {self.config.pending_timeout_s} s)",
                f"{remedy}, or set {PENDING_TIMEOUT_SETTING} to more seconds",
            )

    def _events(self, uid: str) -> list[Mapping[str, Any]]:
        """Return what happened to an object; what was not passed on yet is."""
        events = self.cluster.list_events(uid)
        for event in events:
            key = str(event["metadata"].get("uid") or event["metadata"].get("name")), int(event.get("count") or 1)
            if key in self._seen:
                continue
            self._seen.add(key)
            said = str(event.get("message"))
            if event.get("reason") not in _SILENT and not is_early(said, self.build.name):
                self.output(f"{event.get('reason')}: {said}")
        return events

    def _stuck(self, found: Obstacle) -> BuildError:
        return self._failure(found.reason, found.remedy)

    def _too_slow(self) -> BuildError:
        return self._failure(f"it took longer than {self.config.timeout_s} s", f"set {TIMEOUT_SETTING} to more seconds")

    def _failure(self, reason: str, remedy: str) -> BuildError:
        return BuildError(
            f"build an image with Kaniko (Job {self.build.name} in {self.config.namespace})",
            at=self.build.reference,
            reason=reason,
            remedy=remedy,
        )
