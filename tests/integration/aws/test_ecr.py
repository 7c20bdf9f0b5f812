"""The native builder pushes to Amazon ECR: moto's API, and a real registry behind the real host name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prebuilt.core.errors import ForbiddenError
from prebuilt.core.settings import Settings
from prebuilt.core.spec import ImageSpec
from prebuilt.ecr import ECRRegistry
from prebuilt.native.builder import NativeBuilder
from prebuilt.oci.open import open_repository
from prebuilt.oci.transport import close_connections
from prebuilt.testing.amazon_ecr import AmazonECR, amazon_ecr
from prebuilt.testing.conformance.materials import Materials, RecordingProgress
from prebuilt.testing.validate import validate

pytestmark = pytest.mark.aws


@pytest.fixture
def amazon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AmazonECR]:
    """Give an empty ECR that this process finds."""
    pytest.importorskip("moto", reason="moto plays Amazon's APIs: pip install 'moto[server]'")
    with amazon_ecr(tmp_path) as amazon:
        for name, value in {**amazon.environ, "HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        yield amazon
        close_connections()


@pytest.fixture
def registry(amazon: AmazonECR) -> ECRRegistry:
    """Return the registry, with nothing set."""
    del amazon
    return ECRRegistry()


def test_an_image_is_pushed_without_a_login(
    amazon: AmazonECR, materials: Materials, build: Callable[..., ImageSpec]
) -> None:
    """The repository is made, the image is complete, and a second machine uploads only what is new."""
    shared = materials.wheel("shared", size_bytes=4_000_000)
    build(shared, materials.wheel("one"))
    assert amazon.repository("metaflow-prebuilt") is not None
    amazon.registry.forget_requests()
    build(shared, materials.wheel("two"))
    uploaded = sum(request.body_bytes for request in amazon.registry.requests if request.method == "PUT")
    assert uploaded < 100_000
    assert set(amazon.proxy.asked) == {f"{materials.target.name.partition('/')[0]}:443"}


def test_images_are_pushed_where_tags_stay(
    amazon: AmazonECR, materials: Materials, build: Callable[..., ImageSpec]
) -> None:
    """An operator's repository with immutable tags takes one image after another, and the same one twice.

    What is known of its layers grows elsewhere: machines that have nothing do not even download what is in a layer already.
    """
    amazon.client().create_repository(repositoryName="metaflow-prebuilt", imageTagMutability="IMMUTABLE")
    large, one, two = materials.wheel("large", size_bytes=4_000_000), materials.wheel("one"), materials.wheel("two")
    for wheels in ((large,), (large, one), (large, two), (large, one, two), (large, one)):
        build(*wheels)
    assert len([each for each in materials.index.requests if large.filename in each]) == 1
    in_images = [each.path for each in amazon.registry.requests if "/metaflow-prebuilt/manifests/" in each.path]
    assert in_images
    assert not [path for path in in_images if "/layers-" in path]


def test_a_push_outlasts_its_password(
    amazon: AmazonECR, registry: ECRRegistry, materials: Materials, tmp_path: Path
) -> None:
    """The password that the builder was handed ends; the builder gets another, and the image is complete."""
    spec = materials.spec(materials.wheel("one"))
    request = materials.request(spec, credentials=registry.credentials(registry.push_tag(spec.env_id)))
    amazon.passwords.expire_all()
    settings = Settings({**Settings.load().environ, "METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path / "cache")}, {})
    built = NativeBuilder(settings).build(request, RecordingProgress())
    validate(open_repository(registry.repository), built.digest)
    assert amazon.passwords.good


def test_a_denied_upload_names_the_action(
    amazon: AmazonECR, materials: Materials, build: Callable[..., ImageSpec]
) -> None:
    """Whoever deploys is told what to allow."""
    amazon.registry.fail("POST", "blobs/uploads", status=403, code="DENIED", times=99)
    with pytest.raises(ForbiddenError, match="allow ecr:InitiateLayerUpload"):
        build(materials.wheel("one"))
