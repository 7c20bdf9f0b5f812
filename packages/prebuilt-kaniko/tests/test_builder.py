"""The builder ``kaniko``."""

from __future__ import annotations

import base64
import gzip
import io
import json
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.build_service import BuildRequest, Cancellation, DockerBuildService
from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import BuildError, CancelledError, EngineError, SettingError
from prebuilt.core.plugins import BUILD_SERVICES
from prebuilt.core.settings import Settings
from prebuilt.kaniko import KanikoBuildService
from prebuilt.testing.conformance.materials import RecordingProgress
from prebuilt.testing.registry import InMemoryRegistry

NewRequest = Callable[..., BuildRequest]


def _service(**settings: str) -> KanikoBuildService:
    return KanikoBuildService(Settings({f"METAFLOW_PREBUILT_{name}": value for name, value in settings.items()}, {}))


def _build(service: KanikoBuildService, said: list[str], **published: Any) -> bool:
    call: dict[str, Any] = {
        "dockerfile": "FROM scratch",
        "context_files": {"folder/file": "text"},
        "image_tag": "registry.example/team/image:tag",
        "push_credentials": {},
        "echo": said.append,
        "target_platform": None,
    }
    return service.build_and_push(**{**call, **published})


def _container(cluster: Any) -> Any:
    return cluster.made("jobs")[-1]["spec"]["template"]["spec"]["containers"][0]


def test_is_found_by_its_name() -> None:
    """METAFLOW_PREBUILT_BUILD_SERVICE=kaniko selects it; it takes plain Dockerfiles, and its images are like any other's."""
    service = BUILD_SERVICES.get("kaniko")
    assert isinstance(service, KanikoBuildService)
    assert not service.dockerfile_build_options().buildkit_deferred_input_mounts
    assert service.image_identity_suffix() == ""


def test_constructor_asks_nothing(cluster: Any) -> None:
    """Making it asks no cluster and imports nothing that takes time: a second deploy makes it, and needs no more."""
    program = (
        "import sys; from prebuilt.kaniko import KanikoBuildService; KanikoBuildService();"
        "print([name for name in ('kubernetes', 'yaml', 'urllib3', 'tarfile', 'httpx2', 'boto3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert cluster.calls == []


def test_builds_in_a_job(cluster: Any) -> None:
    """Events and lines of the log are passed on in order, and nothing is left in the cluster or in the folder for temporary files."""
    said: list[str] = []
    assert _build(_service(), said, target_platform="linux/arm64")
    assert said[0].startswith("Scheduled: ") or said[0].startswith("INFO[0000]")
    assert said[-2:] == ["INFO[0000] Retrieving image manifest", "INFO[0009] Pushed"]
    assert cluster.left == []
