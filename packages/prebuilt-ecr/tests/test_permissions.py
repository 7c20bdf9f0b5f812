"""The permissions table of the documentation, against what is called."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.spec import EnvId
from prebuilt.ecr import ECRRegistry
from prebuilt.oci.amazon import iam_action
from prebuilt.oci.media_types import OCI_INDEX
from prebuilt.oci.open import open_repository
from prebuilt.testing.amazon_ecr import AmazonECR
from prebuilt.testing.registry_store import sha256_digest

ENV_ID = EnvId("1" * 40, "2" * 40, "linux-64")
INDEX = b'{"schemaVersion":2,"manifests":[]}'
DATA = b"layer"
LAYER = Descriptor(media_type="application/octet-stream", digest=sha256_digest(DATA), size=len(DATA))


@pytest.fixture
def section() -> str:
    """Return what the page says about whoever deploys."""
    page = next(parent / "docs/how-to/ecr.md" for parent in Path(__file__).parents if (parent / "docs").is_dir())
    return page.read_text(encoding="utf-8").partition("### Whoever deploys")[2].partition("\n### ")[0]


@pytest.fixture
def rows(section: str) -> list[str]:
    """Return the actions of ECR in its table, in order."""
    return re.findall(r"^\| `(ecr:\w+)` \|", section, re.MULTILINE)


def deploy() -> None:
    """Do all that a deploy does with ECR: find nothing, push, read a document; of documents, some are large."""
    registry = ECRRegistry()
    if registry.resolve(registry.push_tag(ENV_ID)) is None:
        repository = open_repository(registry.repository, registry.credentials(registry.push_tag(ENV_ID)))
        repository.push_blob(LAYER, lambda: io.BytesIO(DATA))
        repository.put_manifest(registry.push_tag(ENV_ID).rpartition(":")[2], OCI_INDEX, INDEX)
        with repository.open_blob(LAYER) as chunks:
            assert b"".join(chunks) == DATA
        registry.documents().put("lock-1", b"{}")
    assert registry.documents().get("lock-1") == b"{}"


def called(amazon: AmazonECR) -> set[str]:
    """Return the IAM actions that were asked for, of the API and of the registry."""
    of_registry = [iam_action(request.method, request.path) for request in amazon.registry.requests]
    return amazon.permissions.actions("deployer") | {one for each in of_registry for one in each.split(" and ") if one}


def test_the_table_has_what_is_called(
    amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch, section: str, rows: list[str]
) -> None:
    """A first deploy asks for each action in the table, and for no other; the policy beside it allows these."""
    (policy,) = re.findall(r"```json\n(.*?)```", section, re.DOTALL)
    statements = json.loads(policy)["Statement"]
    allowed = {
        one for each in statements for one in (each["Action"] if isinstance(each["Action"], list) else [each["Action"]])
    }
    assert set(rows) == allowed
    for name, value in amazon.user(*allowed).items():
        monkeypatch.setenv(name, value)
    deploy()
    assert called(amazon) == set(rows)


def test_a_deploy_of_what_is_there_needs_the_first_three(
    amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch, rows: list[str]
) -> None:
    """As the page says: who must not bake may have fewer permissions."""
    deploy()
    amazon.registry.forget_requests()
    for name, value in amazon.user(*rows[:3]).items():
        monkeypatch.setenv(name, value)
    deploy()
    assert called(amazon) <= set(rows[:3])
