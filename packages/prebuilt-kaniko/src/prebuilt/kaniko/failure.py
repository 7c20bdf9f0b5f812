"""Why a build failed, in the words of Kaniko and registries, and what can be done about it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from prebuilt.core.known_causes import find_remedy, known_cause
from prebuilt.kaniko.config import CREDENTIALS_SETTING, MEMORY_SETTING, SECRET_SETTING
from prebuilt.kaniko.pod_state import MORE_DISK, Ended
from prebuilt.oci.amazon import engine_remedy
from prebuilt.oci.docker_config import Login

_ERROR = re.compile(r"^(?:Error: |error |FATA\[\d+\] )", re.IGNORECASE)
_REGISTRY = re.compile(r"https?://([^/\s]+)/v2/")
_UNAUTHORIZED = re.compile(r"\b401\b|UNAUTHORIZED|authentication required|no basic auth credentials", re.IGNORECASE)
_KILLED = 137  # 128 + SIGKILL
# Said with the exit code 137, too, where the kubelet does not find a container that it has started.
# Source: https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/kubelet_pods.go, convertToAPIContainerStatuses
_UNKNOWN = "ContainerStatusUnknown"
# Source: https://github.com/opencontainers/runc/blob/main/libcontainer/process_linux.go
_KILLED_AT_START = "container init was OOM-killed"
_LOGIN = (
    f"give the build a login for {{host}}: a Secret by {SECRET_SETTING}, `docker login {{host}}` here, "
    f"or an identity of the pod with {CREDENTIALS_SETTING}=pod"
)
_ENDED = (
    "the login for {host} that went along ended at {ended_at:%H:%M %Z}, while it was built: give the pod an identity, which "
    f"gets new ones, with {CREDENTIALS_SETTING}=pod"
)

_CAUSES = (
    known_cause(
        r"signal: killed|cannot allocate memory",
        f"a step was killed, most likely for want of memory: set {MEMORY_SETTING} to more than {{memory}}",
        is_of_steps=True,
    ),
    known_cause(
        r"no space left on device|disk quota exceeded",
        MORE_DISK,
        is_of_steps=True,
    ),
    known_cause(
        r"resolving source context",
        "see that the pod's service account may read the bucket (s3:GetObject, storage.objects.get), and that the pod reaches it",
    ),
    known_cause(
        r"toomanyrequests|429 Too Many Requests",
        "wait, log in (a registry's limits are higher then), or use a base image from another registry",
    ),
    known_cause(
        r"server gave HTTP response to HTTPS client|first record does not look like a TLS handshake",
        "name the registry in METAFLOW_PREBUILT_INSECURE_REGISTRIES if it has no TLS",
    ),
    known_cause(
        r"certificate signed by unknown authority|failed to verify certificate",
        "name the authority of its certificate in METAFLOW_PREBUILT_CA_BUNDLE",
    ),
    known_cause(
        r"exec format error",
        "the node has another processor than the image: see METAFLOW_PREBUILT_KANIKO_NODE_SELECTOR and the pod template",
        is_of_steps=True,
    ),
    known_cause(_UNAUTHORIZED.pattern, _LOGIN),
    known_cause(
        r"\b403\b|DENIED|insufficient_scope|forbidden",
        "use an account that may push to the repository, and see that it exists",
    ),
    known_cause(
        r"MANIFEST_UNKNOWN|NAME_UNKNOWN|manifest unknown",
        "check METAFLOW_PREBUILT_BASE_IMAGE, and that pods reach the same registry as this machine",
    ),
    known_cause(
        r"dial tcp .*(connection refused|i/o timeout|no such host|no route to host)|context deadline exceeded",
        "see whether pods of the cluster, rather than this machine, reach that address",
    ),
    known_cause(
        r"unknown flag|unknown shorthand",
        "see METAFLOW_PREBUILT_KANIKO_FLAGS, and that METAFLOW_PREBUILT_KANIKO_IMAGE is of Kaniko 1.24 or newer",
    ),
)


def find_cause(
    end: Ended, lines: Sequence[str], *, host: str, memory: str, logins: Mapping[str, Login]
) -> tuple[str, str]:
    """Return why Kaniko failed, and a remedy; the remedy is empty where the cause is not known.

    Args:
        end: How its container ended.
        lines: What it said last.
        host: The registry that was to be pushed to.
        memory: What it was given.
        logins: Those that went along, by host.
    """
    if end.reason == _UNKNOWN:
        return f"{end.reason}: {end.message}".rstrip(": "), "build again: its node was restarted or taken away"
    if end.reason == "OOMKilled" or end.exit_code == _KILLED or _KILLED_AT_START in end.message:
        return (
            f"it ran out of memory: it had {memory} and was killed (exit code {end.exit_code}, {end.reason or 'killed'})",
            f"set {MEMORY_SETTING} to more",
        )
    errors = [line for line in lines if _ERROR.match(line)]
    reason = errors[-1] if errors else (lines[-1] if lines else f"it said nothing (exit code {end.exit_code})")
    refused = _REGISTRY.search(reason)  # that of the base image may be another one
    at = refused[1] if refused else host
    sent = logins[at].credentials if at in logins else None
    if sent is not None and sent.is_expired and _UNAUTHORIZED.search(reason):
        return reason, _ENDED.format(host=at, ended_at=sent.expires_at)
    return reason, engine_remedy(reason) or find_remedy(_CAUSES, reason, lines, host=at, memory=memory)
