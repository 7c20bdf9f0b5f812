"""What the cluster says of a pod, reduced to what a build has to know."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prebuilt.kaniko.config import (
    IMAGE_SETTING,
    NAMESPACE_SETTING,
    SECRET_SETTING,
    SERVICE_ACCOUNT_SETTING,
    TEMPLATE_SETTING,
)
from prebuilt.kaniko.job import CONTAINER

_HOPELESS = {
    "ImagePullBackOff": f"check {IMAGE_SETTING}, and that the nodes may pull it",
    "ErrImageNeverPull": f"check {IMAGE_SETTING}: the pod template forbids to pull it",
    "InvalidImageName": f"check {IMAGE_SETTING}",
    "CreateContainerConfigError": "check the Secrets and ConfigMaps that the pod template names",
    "CreateContainerError": "check the pod template",
    "RunContainerError": "check the pod template",
}
"""Reasons for which a container waits that do not go away by themselves.

Source: https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/images/types.go and kuberuntime_container.go
"""

_REFUSALS = (
    (re.compile(r"error looking up service account|serviceaccount .* not found"), f"create it, or set {SERVICE_ACCOUNT_SETTING}"),
    (re.compile(r"failed quota: .* must specify"), f"say it in the resources of a pod template ({TEMPLATE_SETTING}): the quota of the namespace counts it"),
    (re.compile(r"exceeded quota"), f"ask for less, wait for others to end, or set {NAMESPACE_SETTING}"),
    (re.compile(r"(?:minimum|maximum) \S+ usage per .* no (?:request|limit) is specified|max limit to request ratio per", re.IGNORECASE), f"say it in the resources of a pod template ({TEMPLATE_SETTING}): a LimitRange of the namespace wants it"),
    (re.compile(r"(?:minimum|maximum) \S+ usage per"), "set METAFLOW_PREBUILT_KANIKO_CPU, _MEMORY or _DISK to what the LimitRange of the namespace allows"),
    (re.compile(r"violates PodSecurity"), f"set {NAMESPACE_SETTING} to a namespace for privileged or baseline pods: Kaniko is root in its container"),
    (re.compile(r"is being terminated"), f"set {NAMESPACE_SETTING} to another namespace"),
    (re.compile(r"is forbidden|is invalid|admission webhook .* denied"), "ask whoever runs the cluster, or lay a pod template over the pod"),
)  # fmt: skip
"""Why the cluster makes no pod for a Job, or no Job, and what can be done.

Source: https://github.com/kubernetes/kubernetes/blob/master/plugin/pkg/admission, resourcequota and limitranger
"""

MORE_DISK = "ask for more disk (METAFLOW_PREBUILT_KANIKO_DISK), or for nodes with more"
"""What to do where the disk was too small, whether Kaniko or the cluster says so."""

# Source: https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/eviction/eviction_manager.go and helpers.go
_OF_DISK = re.compile(r"ephemeral|DiskPressure")
_MISSING = re.compile(r'\b(secret|configmap) "([^"]+)" not found')
_NO_KEY = re.compile(r"non-existent (?:secret|config) key: \S+")
# A node that has not read what a container needs within a second says so, and looks again.
# Source: https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/util/manager/watch_based_manager.go
_NOT_READ_YET = re.compile(r"failed to sync (?:secret|configmap) cache")
_PULLING, _PULLED = re.compile(r"Pulling image"), re.compile(r"Successfully pulled image|Failed to pull image")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How Kaniko's container ended.

    Attributes:
        exit_code: 0 if all went well.
        reason: The cluster's word: ``Completed``, ``Error``, ``OOMKilled``.
        message: What Kaniko wrote of itself: the digest; the last lines of its log where it failed before it had one.
    """

    exit_code: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why a pod does not run, and will not.

    Attributes:
        reason: In the cluster's words.
        remedy: What to do.
    """

    reason: str
    remedy: str


def ended(pod: Mapping[str, Any]) -> Ended | None:
    """Return how Kaniko ended in this pod; None if it did not."""
    found = _state(pod).get("terminated")
    if not found:
        return None
    return Ended(
        exit_code=int(found.get("exitCode", 0)),
        reason=str(found.get("reason") or ""),
        message=str(found.get("message") or ""),
    )


def has_started(pod: Mapping[str, Any]) -> bool:
    """Return whether there is, or was, a log to read."""
    return bool({"running", "terminated"} & _state(pod).keys())


def obstacle(pod: Mapping[str, Any], own: str, pulled: str) -> Obstacle | None:
    """Return what keeps the pod's containers from being started for good; None if nothing does.

    Args:
        pod: As the API gives it.
        own: Name of the objects of the build's own, which a quick pod may come before.
        pulled: What was said last of pulling its image: the reason that is not repeated later.
    """
    for status in _statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        message = str(waiting.get("message"))
        if reason in _HOPELESS and not is_early(message, own) and not _NOT_READ_YET.search(message):
            image = status.get("image", "")
            said = (pulled if reason == "ImagePullBackOff" and pulled else waiting.get("message")) or ""
            return Obstacle(reason=f"{reason} of {image}: {said}".rstrip(": "), remedy=_HOPELESS[reason])
    return None


def is_early(message: str, own: str) -> bool:
    """Return whether a pod only misses an object of the build's own, which is there in a moment: it looks again."""
    return f'"{own}" not found' in message


def unschedulable(pod: Mapping[str, Any]) -> str | None:
    """Return why no node takes the pod; None if one does."""
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message") or condition.get("reason") or "no reason given")
    return None


def refused(event: Mapping[str, Any]) -> Obstacle | None:
    """Return why the cluster makes no pod for a Job, if that is what an event says and it will not change."""
    if event.get("reason") != "FailedCreate":
        return None
    message = str(event.get("message") or "")
    remedy = refusal_remedy(message)
    return Obstacle(reason=message, remedy=remedy) if remedy else None


def refusal_remedy(message: str) -> str:
    """Return what to do where the cluster refuses to make an object; empty where that may change by itself."""
    return next((remedy for known_by, remedy in _REFUSALS if known_by.search(message)), "")


def unmountable(event: Mapping[str, Any], own: str, secret: str | None) -> Obstacle | None:
    """Return which Secret or ConfigMap is missing, or lacks a key, if that is why a volume cannot be mounted.

    Args:
        event: As the API gives it.
        own: Name of the objects of the build's own, which a quick pod may come before.
        secret: The Secret of the settings.
    """
    message = str(event.get("message") or "")
    if event.get("reason") != "FailedMount":
        return None
    missing = [found for found in _MISSING.finditer(message) if found[2] != own]
    if any(found.groups() == ("secret", secret) for found in missing):
        return Obstacle(
            reason=f"there is no Secret {secret} in the namespace",
            remedy=f"create it, or set {SECRET_SETTING} to another one",
        )
    if secret is not None and "non-existent secret key: .dockerconfigjson" in message:
        return Obstacle(
            reason=f"the Secret {secret} has no .dockerconfigjson: it is not of the type kubernetes.io/dockerconfigjson",
            remedy="make one with `kubectl create secret docker-registry`",
        )
    if missing or _NO_KEY.search(message):
        return Obstacle(reason=message, remedy=f"create it in the namespace, or take it out of {TEMPLATE_SETTING}")
    return None


def is_busy(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a pod that has a node is on its way: it pulls an image, or containers of a template come first."""
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or []
    pulls = sum(_times(event) for event in events if _PULLING.match(str(event.get("message"))))
    ends = sum(_times(event) for event in events if _PULLED.match(str(event.get("message"))))
    return pulls > ends or any((status.get("state") or {}).get("running") is not None for status in statuses)


def last_warning(events: Sequence[Mapping[str, Any]], own: str) -> str:
    """Return what the cluster warned of last; empty if it did not. `own` is as for :func:`obstacle`."""
    warnings = [
        event for event in events if event.get("type") == "Warning" and not is_early(str(event.get("message")), own)
    ]
    last = max(warnings, key=_moment, default=None)
    return f"{last.get('reason')}: {last.get('message')}" if last else ""


def lost(pod: Mapping[str, Any]) -> Obstacle | None:
    """Return why the pod failed as a whole, such as an eviction; None if it did not, or failed because Kaniko did."""
    status = pod.get("status") or {}
    if status.get("phase") != "Failed" or (has_started(pod) and not status.get("reason")):
        return None
    reason = f"{status.get('reason') or 'the pod failed'}: {status.get('message') or ''}".rstrip(": ")
    is_of_disk = _OF_DISK.search(reason) is not None
    return Obstacle(reason=reason, remedy=MORE_DISK if is_of_disk else "build again, or ask whoever runs the cluster")


def newest(pods: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the pod that was made last; None if there is none."""
    return max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""), default=None)


def failed_job(job: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return reason and message of a Job that failed, or that fails as soon as its pod has ended; None if it does not."""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("type") in {"Failed", "FailureTarget"} and condition.get("status") == "True":
            return str(condition.get("reason") or ""), str(condition.get("message") or "")
    return None


def _state(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    found: Mapping[str, Any] = next((status for status in statuses if status.get("name") == CONTAINER), {})
    return {name: state for name, state in (found.get("state") or {}).items() if state is not None}


def _statuses(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _times(event: Mapping[str, Any]) -> int:
    return int(event.get("count") or 1)


def _moment(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")
