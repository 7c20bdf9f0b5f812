"""The table of permissions in the how-to page of Artifact Registry is what is needed: no more, no less, by the same names as in errors."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import PrebuiltError
from prebuilt.core.spec import EnvId
from prebuilt.gcr import GCRRegistry
from prebuilt.oci.open import open_repository
from prebuilt.oci.transport import close_connections
from prebuilt.testing.google_cloud import HOST, GoogleCloud, google_cloud
from prebuilt.testing.registry_store import sha256_digest

pytestmark = pytest.mark.gcp

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "artifact-registry.md"
_ROW = re.compile(r"\| `(?P<permission>[a-z]+\.\w+\.\w+)` \|.*\| `(?P<role>roles/[\w.]+)`", re.ASCII)
ROLES = {row["permission"]: row["role"] for row in _ROW.finditer(PAGE.read_text(encoding="utf-8"))}
# What some permissions are needed for: credentials of a kind, or names of Container Registry.
KINDS = {"iam.serviceAccounts.getAccessToken": "impersonated", "serviceusage.services.use": "authorized_user"}
ON_PUSH, CREATE = "artifactregistry.repositories.createOnPush", "artifactregistry.repositories.create"
DATA = b"layer"
LAYER = Descriptor(media_type="application/octet-stream", digest=sha256_digest(DATA), size=len(DATA))


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleCloud]:
    """Give an empty one that this process finds."""
    with google_cloud(tmp_path) as cloud:
        for name, value in {**cloud.environ, "HOME": str(tmp_path), "METAFLOW_HOME": str(tmp_path / "none")}.items():
            monkeypatch.setenv(name, value)
        for name in ("GOOGLE_CLOUD_PROJECT", "DOCKER_CONFIG"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_HOST", HOST)
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_PROJECT", "acme-ml")
        yield cloud
        close_connections()


def deploy() -> None:
    """Look for an image, which is not there, and push one."""
    registry = GCRRegistry()
    tag = registry.push_tag(EnvId("1" * 40, "2" * 40, "linux-64"))
    assert registry.resolve(tag) is None
    open_repository(registry.repository, registry.credentials(tag)).push_blob(LAYER, lambda: io.BytesIO(DATA))


def test_the_table_is_complete(google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deploy with each kind of credentials, at both kinds of names, needs what the table has and nothing else."""
    for kind in ("service_account", "impersonated", "external", "authorized_user"):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", google.credentials_file(kind))
        google.api.repositories.clear()
        deploy()
    monkeypatch.setenv("METAFLOW_PREBUILT_GCR_HOST", "gcr.io")
    google.api.denied.add(CREATE)  # there, a push makes the repository
    deploy()
    assert google.api.checked == set(ROLES)


@pytest.mark.parametrize("permission", sorted(ROLES))
def test_each_is_named_where_it_is_missing(
    google: GoogleCloud, monkeypatch: pytest.MonkeyPatch, permission: str
) -> None:
    """The error has the permission and the role of its row, whatever else Google says."""
    monkeypatch.setenv(
        "GOOGLE_APPLICATION_CREDENTIALS", google.credentials_file(KINDS.get(permission, "service_account"))
    )
    google.api.denied.add(permission)
    if permission == ON_PUSH:
        google.api.denied.add(CREATE)
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_HOST", "gcr.io")
    with pytest.raises(PrebuiltError) as caught:
        deploy()
    assert permission in str(caught.value)
    assert ROLES[permission] in caught.value.remedy
