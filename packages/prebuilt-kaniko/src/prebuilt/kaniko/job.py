"""The objects that a build makes in the cluster: a Job, and what it owns. Pure functions of what is built, and how."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prebuilt.core.spec import Compression
from prebuilt.kaniko._version import __version__
from prebuilt.kaniko.certificates import Authorities
from prebuilt.kaniko.config import KanikoConfig
from prebuilt.kaniko.context import CONTEXT_FILE
from prebuilt.kaniko.template import merge

CONTAINER = "kaniko"
BUILD_LABEL = "metaflow-prebuilt/build"
"""Holds the Job's name, on the Job and on all that belongs to it."""

_FILES_FOLDER = "/kaniko/prebuilt"  # below /kaniko nothing is ever part of an image
_AUTHORITIES_FILE = "authorities.pem"
_CONFIG_FOLDER = "/kaniko/.docker"
_CONFIG_KEY = ".dockerconfigjson"
_REPORT = "/dev/termination-log"  # what is written there is in the pod's status
_HUB = "index.docker.io"  # as Kaniko calls docker.io
_STOP_S = 5  # Kaniko has nothing to save
_LABEL = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class KanikoBuild:
    """One image to build.

    Attributes:
        name: Of the Job: nobody else's.
        reference: Where to push: ``host/repository:tag``.
        image_id: Identity of what is built, for whoever looks at the Job.
        user: Who builds.
        platform: ``linux/arm64``; None for that of whichever node it is.
        built_on: Platform of the nodes that build it; None for its own.
        compression: Of the layers that are added; None for Kaniko's choice.
        image_labels: That the image gets beside those of the Dockerfile.
        is_ours: Whether the Dockerfile is of our form, whose final stage runs nothing.
        insecure: Registries that are spoken to without TLS.
        authorities: Trusted beside those that Kaniko's image has.
        cache: Repository of the layer cache; None for none.
        arguments: Build arguments: proxies.
    """

    name: str
    reference: str
    image_id: str
    user: str
    platform: str | None = None
    built_on: str | None = None
    compression: Compression | None = None
    image_labels: Mapping[str, str] = field(default_factory=dict)
    is_ours: bool = False
    insecure: tuple[str, ...] = ()
    authorities: Authorities = field(default_factory=Authorities)
    cache: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of all that belongs to the build."""
        return {
            BUILD_LABEL: self.name,
            "app.kubernetes.io/name": "kaniko",
            "app.kubernetes.io/managed-by": "metaflow-prebuilt",
            "metaflow-prebuilt/user": _LABEL.sub("-", self.user)[:63].strip("-_."),
        }

    @property
    def annotations(self) -> dict[str, str]:
        """What somebody who finds the Job may want to know."""
        return {
            "metaflow-prebuilt/image": self.image_id,
            "metaflow-prebuilt/reference": self.reference,
            "metaflow-prebuilt/user": self.user,
            "metaflow-prebuilt/version": __version__,
        }

    @property
    def secret_arguments(self) -> dict[str, str]:
        """Build arguments with a password in them: a proxy's."""
        return {name: value for name, value in self.arguments.items() if "@" in value}


def new_name(image_id: str) -> str:
    """Return a name for a build: what is built, and eight random digits, since several may build it at once."""
    return f"prebuilt-{image_id[:16]}-{secrets.token_hex(4)}"


def job(
    build: KanikoBuild,
    config: KanikoConfig,
    *,
    context: str | None,
    has_logins: bool,
    template: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the Job of a build.

    Args:
        build: What to build.
        config: How.
        context: URL of the context; None where it is in a ConfigMap.
        has_logins: Whether the build's own Secret has logins.
        template: Laid over the pod.
    """
    pod = {
        "metadata": {"labels": build.labels, "annotations": build.annotations},
        "spec": _pod(build, config, context=context, has_logins=has_logins),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": build.name, "labels": build.labels, "annotations": build.annotations},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": config.timeout_s,
            "ttlSecondsAfterFinished": config.keep_s,
            "template": merge(pod, template or {}),
        },
    }


def config_map(build: KanikoBuild, context: bytes | None, owner: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a ConfigMap with authorities and the packed context, which goes when the Job goes; None if there are none."""
    files = {CONTEXT_FILE: context, _AUTHORITIES_FILE: build.authorities.data}
    data = {name: base64.b64encode(content).decode() for name, content in files.items() if content}
    if not data:
        return None
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _owned(build, owner),
        "immutable": True,
        "binaryData": data,
    }


def secret(build: KanikoBuild, logins: bytes | None, owner: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a Secret with logins and with proxies that have passwords, which goes when the Job goes; None if there are none."""
    entries = {name: value.encode() for name, value in build.secret_arguments.items()}
    if logins is not None:
        entries[_CONFIG_KEY] = logins
    if not entries:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _owned(build, owner),
        "type": "kubernetes.io/dockerconfigjson" if logins is not None else "Opaque",
        "immutable": True,
        "data": {name: base64.b64encode(value).decode() for name, value in entries.items()},
    }


def _owned(build: KanikoBuild, owner: Mapping[str, Any]) -> dict[str, Any]:
    reference = {"apiVersion": "batch/v1", "kind": "Job", "name": build.name, "uid": owner["metadata"]["uid"]}
    return {"name": build.name, "labels": build.labels, "ownerReferences": [reference]}


def _pod(build: KanikoBuild, config: KanikoConfig, *, context: str | None, has_logins: bool) -> dict[str, Any]:
    logins = config.secret_name or (build.name if has_logins else None)
    volumes, mounts = [], []
    if context is None or build.authorities.data:
        volumes.append({"name": "files", "configMap": {"name": build.name}})
        mounts.append({"name": "files", "mountPath": _FILES_FOLDER, "readOnly": True})
    if logins is not None:
        items = [{"key": _CONFIG_KEY, "path": "config.json"}]
        volumes.append({"name": "logins", "secret": {"secretName": logins, "items": items}})
        mounts.append({"name": "logins", "mountPath": _CONFIG_FOLDER, "readOnly": True})
    asked = {"cpu": config.cpu, "memory": config.memory}
    if config.disk:
        asked["ephemeral-storage"] = config.disk
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _STOP_S,
        # Steps of the build run in this container: they need no way to the cluster.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": {**_nodes(build.built_on or build.platform), **config.node_selector},
        "tolerations": [dict(each) for each in config.tolerations],
        "containers": [
            {
                "name": CONTAINER,
                "image": config.image,
                "args": [*_flags(build, context), *config.flags],
                "env": list(_variables(build)),
                "resources": {"requests": asked, "limits": {"memory": config.memory}},
                "volumeMounts": mounts,
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }
        ],
        "volumes": volumes,
    }
    if config.service_account:
        spec["serviceAccountName"] = config.service_account
    return spec


def _nodes(platform: str | None) -> dict[str, str]:
    if platform is None:
        return {"kubernetes.io/os": "linux"}
    os, architecture = platform.split("/")[:2]
    return {"kubernetes.io/os": os, "kubernetes.io/arch": architecture}


def _variables(build: KanikoBuild) -> Iterator[dict[str, Any]]:
    """Yield variables of the container that arguments refer to: a password is not in the Job, but in its Secret."""
    for name in build.secret_arguments:
        yield {"name": f"PREBUILT_{name}", "valueFrom": {"secretKeyRef": {"name": build.name, "key": name}}}


def _flags(build: KanikoBuild, context: str | None) -> Iterator[str]:
    """Yield Kaniko's flags; those that are not in every release since 1.24 are left to the user."""
    yield f"--context={context or f'tar://{_FILES_FOLDER}/{CONTEXT_FILE}'}"
    yield "--dockerfile=Dockerfile"
    yield f"--destination={build.reference}"
    yield f"--digest-file={_REPORT}"
    yield "--push-retry=3"
    yield "--image-download-retry=3"
    if build.platform is not None:
        yield f"--custom-platform={build.platform}"
    if build.compression == "zstd":
        yield "--compression=zstd"
    for name, value in sorted(build.image_labels.items()):
        # Not by LABEL: Kaniko reads its quotes, escapes and variables twice. Kubernetes reads a $ as the first half of one.
        yield f"--label={name}={value}".replace("$", "$$")
    if build.is_ours:
        # What the build stage leaves behind is copied by name and never a layer: its snapshot need not be exact.
        yield "--snapshot-mode=redo"
    yield from (f"--insecure-registry={host}" for host in build.insecure)
    for host in build.authorities.hosts:
        yield f"--registry-certificate={_HUB if host == 'docker.io' else host}={_FILES_FOLDER}/{_AUTHORITIES_FILE}"
    if build.cache is not None:
        yield from ("--cache=true", f"--cache-repo={build.cache}")
    for name, value in build.arguments.items():
        yield f"--build-arg={name}={f'$(PREBUILT_{name})' if name in build.secret_arguments else value}"
