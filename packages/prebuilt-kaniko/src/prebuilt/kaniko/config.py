"""Settings of the builder ``kaniko``."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from prebuilt.core.errors import InvalidValueError, SettingError
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.oci.build_cache import cache_setting

BUCKET_SETTING = "METAFLOW_PREBUILT_KANIKO_CONTEXT_BUCKET"
BUILD_PLATFORM_SETTING = "METAFLOW_PREBUILT_KANIKO_BUILD_PLATFORM"
CREDENTIALS_SETTING = "METAFLOW_PREBUILT_KANIKO_CREDENTIALS"
IMAGE_SETTING = "METAFLOW_PREBUILT_KANIKO_IMAGE"
MEMORY_SETTING = "METAFLOW_PREBUILT_KANIKO_MEMORY"
NAMESPACE_SETTING = "METAFLOW_PREBUILT_KANIKO_NAMESPACE"
PENDING_TIMEOUT_SETTING = "METAFLOW_PREBUILT_KANIKO_PENDING_TIMEOUT"
SECRET_SETTING = "METAFLOW_PREBUILT_KANIKO_SECRET_NAME"  # noqa: S105 - a name
SERVICE_ACCOUNT_SETTING = "METAFLOW_PREBUILT_KANIKO_SERVICE_ACCOUNT"
TEMPLATE_SETTING = "METAFLOW_PREBUILT_KANIKO_POD_TEMPLATE"
TIMEOUT_SETTING = "METAFLOW_PREBUILT_KANIKO_TIMEOUT"

DEFAULT_IMAGE = "ghcr.io/osscontainertools/kaniko:v1.28.3"
"""A release of the fork that is maintained; docs/decisions says why this one."""

CredentialsWay = Literal["send", "pod"]
"""``send``: what is known here goes along in a Secret. ``pod``: the pod has an identity of its own."""

_TIMEOUT_S = 7200  # far longer than any environment takes: it is there for builds that hang
_PENDING_TIMEOUT_S = 300  # an autoscaler brings a node in one to four minutes
_KEEP_S = 300  # of a Job whose deploying process died: long enough to look at, short enough for its Secret
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kKMGTPE]i?)?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_BUCKET = re.compile(r"(gs|s3)://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^\s?#]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class KanikoConfig:
    """How builds are run.

    Attributes:
        namespace: Where Jobs are made (``METAFLOW_PREBUILT_KANIKO_NAMESPACE``, else ``METAFLOW_KUBERNETES_NAMESPACE``).
        image: Kaniko's (``…_IMAGE``).
        secret_name: Of a Secret with logins that is there already (``…_SECRET_NAME``).
        credentials: Whose logins are used without such a Secret (``…_CREDENTIALS``).
        bucket: Where contexts go that are too large for the cluster: ``gs://bucket/folder``, ``s3://…`` (``…_CONTEXT_BUCKET``).
        build_platform: Of the nodes that build (``…_BUILD_PLATFORM``); None for the image's own.
        service_account: Of the pod (``…_SERVICE_ACCOUNT``); None for the namespace's default.
        cpu: Asked for (``…_CPU``).
        memory: Asked for, and the most that it gets (``…_MEMORY``).
        disk: Ephemeral storage that is asked for (``…_DISK``); None to ask for none.
        node_selector: Labels of nodes beside those of the platform (``…_NODE_SELECTOR``).
        tolerations: Of the pod (``…_TOLERATIONS``).
        pod_template: A file that is laid over the pod (``…_POD_TEMPLATE``).
        flags: More flags for Kaniko (``…_FLAGS``).
        cache: Where layers are kept (``…_CACHE``): `BESIDE_IMAGES`, ``host/repository``, or None for no such cache.
        timeout_s: The longest that one build may take (``…_TIMEOUT``).
        pending_timeout_s: How long a pod may wait for a node (``…_PENDING_TIMEOUT``).
        keep_s: How long an ended Job stays that nobody was left to delete (``…_KEEP``).
    """

    namespace: str = "default"
    image: str = DEFAULT_IMAGE
    secret_name: str | None = None
    credentials: CredentialsWay = "send"
    bucket: str | None = None
    build_platform: Platform | None = None
    service_account: str | None = None
    cpu: str = "1"
    memory: str = "4Gi"
    disk: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    pod_template: Path | None = None
    flags: tuple[str, ...] = ()
    cache: str | None = None
    timeout_s: int = _TIMEOUT_S
    pending_timeout_s: int = _PENDING_TIMEOUT_S
    keep_s: int = _KEEP_S

    @classmethod
    def from_settings(cls, settings: Settings) -> KanikoConfig:
        """Read the settings.

        Raises:
            SettingError: One is malformed.
        """
        return cls(
            namespace=_name(settings, "PREBUILT_KANIKO_NAMESPACE") or settings.get("KUBERNETES_NAMESPACE") or "default",
            image=settings.get("PREBUILT_KANIKO_IMAGE") or DEFAULT_IMAGE,
            secret_name=_name(settings, "PREBUILT_KANIKO_SECRET_NAME"),
            credentials=cast(
                "CredentialsWay", settings.choice("PREBUILT_KANIKO_CREDENTIALS", ("send", "pod"), default="send")
            ),
            bucket=_bucket(settings),
            build_platform=_build_platform(settings),
            service_account=_name(settings, "PREBUILT_KANIKO_SERVICE_ACCOUNT"),
            cpu=_quantity(settings, "PREBUILT_KANIKO_CPU") or "1",
            memory=_quantity(settings, "PREBUILT_KANIKO_MEMORY") or "4Gi",
            disk=_quantity(settings, "PREBUILT_KANIKO_DISK"),
            node_selector=_node_selector(settings),
            tolerations=_tolerations(settings),
            pod_template=_template(settings),
            flags=_flags(settings),
            cache=cache_setting(settings, "PREBUILT_KANIKO_CACHE", takes_tag=False),
            timeout_s=settings.positive_int("PREBUILT_KANIKO_TIMEOUT", default=_TIMEOUT_S),
            pending_timeout_s=settings.positive_int("PREBUILT_KANIKO_PENDING_TIMEOUT", default=_PENDING_TIMEOUT_S),
            keep_s=settings.positive_int("PREBUILT_KANIKO_KEEP", default=_KEEP_S),
        )


def _error(name: str, reason: str, remedy: str = "") -> SettingError:
    return SettingError(f"METAFLOW_{name}", reason=reason, remedy=remedy)


def _name(settings: Settings, name: str) -> str | None:
    value = settings.get(name)
    if value is not None and not _NAME.fullmatch(value):
        raise _error(name, f"{value!r} is no name of a Kubernetes object", "use lower-case letters, digits, - and .")
    return value


def _quantity(settings: Settings, name: str) -> str | None:
    value = settings.get(name)
    if value is not None and not _QUANTITY.fullmatch(value):
        raise _error(name, f"{value!r} is no Kubernetes quantity", "write it like 2, 500m or 8Gi")
    return value


def _bucket(settings: Settings) -> str | None:
    value = settings.get("PREBUILT_KANIKO_CONTEXT_BUCKET")
    if value is not None and not _BUCKET.fullmatch(value):
        raise _error(
            "PREBUILT_KANIKO_CONTEXT_BUCKET",
            f"{value!r} is no bucket",
            "write gs://BUCKET or s3://BUCKET, and perhaps /FOLDER",
        )
    return value.rstrip("/") if value else None


def _build_platform(settings: Settings) -> Platform | None:
    value = settings.get("PREBUILT_KANIKO_BUILD_PLATFORM")
    try:
        return Platform.parse(value) if value else None
    except InvalidValueError as error:
        raise _error("PREBUILT_KANIKO_BUILD_PLATFORM", error.reason, "write it like linux/amd64") from error


def _node_selector(settings: Settings) -> dict[str, str]:
    """Return the labels of ``key=value,…``, as METAFLOW_KUBERNETES_NODE_SELECTOR has them."""
    labels = {}
    for part in filter(None, (settings.get("PREBUILT_KANIKO_NODE_SELECTOR") or "").split(",")):
        key, equals, value = part.strip().partition("=")
        if not key or not equals:
            raise _error(
                "PREBUILT_KANIKO_NODE_SELECTOR", f"{part!r} is no label", "write key=value, separated by commas"
            )
        labels[key] = value
    return labels


def _tolerations(settings: Settings) -> tuple[Mapping[str, Any], ...]:
    """Return the tolerations of a JSON list, as METAFLOW_KUBERNETES_TOLERATIONS has them."""
    value = settings.get("PREBUILT_KANIKO_TOLERATIONS")
    try:
        found = json.loads(value) if value else []
    except ValueError as error:
        raise _error("PREBUILT_KANIKO_TOLERATIONS", str(error), "write a JSON list of objects") from error
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise _error(
            "PREBUILT_KANIKO_TOLERATIONS",
            "it is no list of objects",
            'write it like [{"key": "builds", "operator": "Exists"}]',
        )
    return tuple(found)


def _template(settings: Settings) -> Path | None:
    value = settings.get("PREBUILT_KANIKO_POD_TEMPLATE")
    return Path(value).expanduser() if value else None


def _flags(settings: Settings) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(settings.get("PREBUILT_KANIKO_FLAGS") or ""))
    except ValueError as error:
        raise _error("PREBUILT_KANIKO_FLAGS", str(error), "quote it as for a shell") from error
