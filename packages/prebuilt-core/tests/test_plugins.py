"""Builders and registries are found by entry point, and errors say what is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.build_service import BuildRequest
from prebuilt.core.errors import BuildError, PluginError
from prebuilt.core.lock import Wheel
from prebuilt.core.plan import plan_layers
from prebuilt.core.plugins import BUILD_SERVICES, IMAGE_REGISTRIES
from prebuilt.core.spec import EnvId, ImageSpec

OUTSIDE = """
from prebuilt.core.build_service import DockerBuildService
from prebuilt.core.image_registry import ImageRegistry

class Published(ImageRegistry):
    def image_tag(self, env_id):
        return f"reg.example/x:{env_id.req_id[:4]}"
    def push_credentials(self):
        return {}
    def pull_config(self, pull_tag):
        return {"image_pull_policy": "Always"}

class Broken(Published):
    def __init__(self):
        raise ValueError("no token")

class DockerfilesOnly(DockerBuildService):
    def build_and_push(self, dockerfile, context_files, image_tag, push_credentials, echo, target_platform=None):
        return True
"""

ENTRY_POINTS = """
[metaflow_prebuilt.image_registries]
good = outside_backend:Published
broken = outside_backend:Broken
wrong = outside_backend:DockerfilesOnly

[metaflow_prebuilt.build_services]
good = outside_backend:DockerfilesOnly
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a distribution that brings backends which implement what was published, and no more."""
    (tmp_path / "outside_backend.py").write_text(OUTSIDE)
    info = tmp_path / "outside_backend-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-backend\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("outside_backend", None)


def test_a_plugin_is_made_by_its_name() -> None:
    """The class is called with no arguments."""
    assert type(IMAGE_REGISTRIES.get("good")).__name__ == "Published"
    assert type(BUILD_SERVICES.get("good")).__name__ == "DockerfilesOnly"


@pytest.mark.parametrize(("kind", "setting"), [(BUILD_SERVICES, "BUILD_SERVICE"), (IMAGE_REGISTRIES, "IMAGE_REGISTRY")])
def test_an_unknown_name_lists_the_installed_ones_and_blames_its_own_setting(kind: Any, setting: str) -> None:
    """A builder's error names the builder's setting, a registry's the registry's."""
    with pytest.raises(PluginError, match=f"installed:.*good.*METAFLOW_PREBUILT_{setting}"):
        kind.get("nosuch")


def test_a_documented_name_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pip line is in the message."""
    monkeypatch.setattr("prebuilt.core.plugins.entry_points", lambda **_: [])
    with pytest.raises(PluginError, match=r"pip install 'metaflow-prebuilt\[ecr\]'"):
        IMAGE_REGISTRIES.get("ecr")


def test_what_cannot_be_made_or_is_something_else_is_said() -> None:
    """The class's own error and a wrong type each give a clear one."""
    with pytest.raises(PluginError, match="ValueError: no token"):
        IMAGE_REGISTRIES.get("broken")
    with pytest.raises(PluginError, match="not a ImageRegistry"):
        IMAGE_REGISTRIES.get("wrong")


def test_a_class_with_only_what_was_published_has_working_defaults() -> None:
    """Push and pull follow image_tag, nothing is there, nothing is kept."""
    registry, env_id = IMAGE_REGISTRIES.get("good"), EnvId("a" * 40, "b" * 40, "linux-64")
    assert registry.push_tag(env_id) == registry.pull_tag(env_id) == "reg.example/x:aaaa"
    assert registry.image_exists("reg.example/x:aaaa") is False
    assert registry.credentials("x") is registry.documents() is registry.resolve("x") is None
    assert registry.base_image_identity("python:3.11", "linux-64") == "python:3.11"
    assert type(type(registry).from_config()) is type(registry)
    with pytest.raises(NotImplementedError, match="Published"):
        registry.pull_tag_for_named("x")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"username": "me", "password": "hush"}, ("me", "hush")),
        ({"password": "token"}, ("", "token")),
        ({"username": "me"}, None),
        ({"username": "me", "password": ""}, None),
        ({"region": "eu-1"}, None),
    ],
)
def test_an_outside_registry_gives_credentials_in_its_published_dict(
    given: dict[str, Any], expected: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our builders push with its user name and password; without them, with what Docker's configuration has."""
    registry = IMAGE_REGISTRIES.get("good")
    monkeypatch.setattr(registry, "push_credentials", lambda: given)
    credentials = registry.credentials("reg.example/x:t")
    assert (credentials and (credentials.username, credentials.secret)) == expected


def test_a_builder_of_dockerfiles_says_what_it_lacks(
    spec_of: Callable[..., ImageSpec], wheel: Callable[..., Wheel]
) -> None:
    """Without what a build stage needs, its typed form fails instead of building nothing."""
    spec = spec_of(wheel("a"))
    request = BuildRequest(spec=spec, plan=plan_layers(spec), reference="x:y")
    with pytest.raises(BuildError, match="no source of materials"):
        BUILD_SERVICES.get("good").build(request, None)  # type: ignore[arg-type]
