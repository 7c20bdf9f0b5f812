"""Configs, manifests and indexes are read in OCI's and Docker's forms, and the right manifest is chosen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from prebuilt.core.errors import BaseImageError, InvalidValueError
from prebuilt.core.platforms import Platform
from prebuilt.oci import media_types
from prebuilt.oci.image import ImageConfig, ImageIndex, ImageManifest, descriptor_of, select_manifest

AMD64 = Platform.parse("linux/amd64")
ARM64 = Platform.parse("linux/arm64")
DIFF_ID = "sha256:" + "d1" * 32


def encoded(value: object) -> bytes:
    """Return JSON in a form that is not the canonical one."""
    return json.dumps(value, indent=3).encode()


def config(**more: object) -> bytes:
    """Return a config with one layer."""
    rootfs = {"type": "layers", "diff_ids": [DIFF_ID]}
    return encoded({"os": "linux", "architecture": "arm64", "rootfs": rootfs} | more)


def entry(number: int, platform: dict[str, str] | None) -> dict[str, Any]:
    """Return one entry of an index."""
    value = {"mediaType": media_types.OCI_MANIFEST, "digest": f"sha256:{number:064x}", "size": number}
    return value | ({"platform": platform} if platform else {})


def index(*platforms: dict[str, str] | None) -> ImageIndex:
    """Return an index for these platforms, whose manifests have sizes 0, 1, 2, ..."""
    manifests = [entry(number, platform) for number, platform in enumerate(platforms)]
    return ImageIndex.parse(encoded({"schemaVersion": 2, "manifests": manifests}))


def linux(architecture: str, variant: str = "") -> dict[str, str]:
    """Return a platform as JSON has it."""
    return {"os": "linux", "architecture": architecture} | ({"variant": variant} if variant else {})


def test_config_is_read() -> None:
    """A config's fields are had by name, and those without a name are kept."""
    settings = {"Env": ["A=b=c", "PATH=/x", "EMPTY="], "Labels": {"l": "v"}, "User": "me"}
    read = ImageConfig.parse(config(variant="v8", config=settings, unheard={"of": 1}))
    assert read.platform_name == "linux/arm64/v8"
    assert read.diff_ids == (DIFF_ID,)
    assert dict(read.env) == {"A": "b=c", "PATH": "/x", "EMPTY": ""}
    assert dict(read.labels) == {"l": "v"}
    again = ImageConfig.parse(read.to_bytes())
    assert again == read
    assert again.data["unheard"] == {"of": 1}
    assert b" " not in read.to_bytes()


@pytest.mark.parametrize("settings", [None, {}, {"Env": None, "Labels": None}])
def test_config_without_settings(settings: object) -> None:
    """Docker writes null where there is nothing."""
    read = ImageConfig.parse(config(config=settings))
    assert (dict(read.env), dict(read.labels)) == ({}, {})


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", config(rootfs=None), config(rootfs={"diff_ids": ["md5:x"]}), config(config=[1]), b"\xff\xfe"],
)
def test_damaged_configs(data: bytes) -> None:
    """What is no config is an error of ours."""
    with pytest.raises(InvalidValueError, match="an image config"):
        ImageConfig.parse(data)


def test_config_says_what_it_runs_on() -> None:
    """A config without a variant, or with the plainest one, runs on all machines of the architecture."""
    assert ImageConfig.parse(config()).runs_on(ARM64)
    assert ImageConfig.parse(config(variant="v8")).runs_on(ARM64)
    assert not ImageConfig.parse(config()).runs_on(AMD64)
    assert not ImageConfig.parse(config(architecture="amd64", variant="v3")).runs_on(AMD64)


@pytest.mark.parametrize("stated", [media_types.OCI_MANIFEST, media_types.DOCKER_MANIFEST, None])
def test_manifest_is_read(stated: str | None) -> None:
    """Manifests of OCI, with and without their media type, and of Docker are read; descriptors keep their annotations."""
    blob = descriptor_of(b"x", "some/type").to_json()
    layer = blob | {"annotations": {"toc": "1"}}
    value = {"schemaVersion": 2, "config": blob, "layers": [layer, layer]} | ({"mediaType": stated} if stated else {})
    read = ImageManifest.parse(encoded(value))
    assert read.media_type == (stated or media_types.OCI_MANIFEST)
    assert read.config.size == 1
    assert [dict(one.annotations) for one in read.layers] == [{"toc": "1"}] * 2
    assert ImageManifest.parse(read.to_bytes()) == read
    assert read.descriptor == descriptor_of(read.to_bytes(), read.media_type)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, "schema 2"),
        ({"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}, "schema 2"),
        ({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []}, "index of several"),
        ({"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST}, "missing or wrong"),
        ({"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "config": {}, "layers": []}, "digest|mediaType"),
    ],
)
def test_what_is_no_manifest(value: dict[str, Any], reason: str) -> None:
    """Docker's schema 1, indexes and damaged manifests are refused with the reason."""
    with pytest.raises(InvalidValueError, match=reason):
        ImageManifest.parse(encoded(value))


def test_what_is_no_index() -> None:
    """A manifest is not read as an index."""
    with pytest.raises(InvalidValueError, match="one image"):
        ImageIndex.parse(encoded({"schemaVersion": 2, "mediaType": media_types.DOCKER_MANIFEST}))
    with pytest.raises(InvalidValueError, match="missing or wrong"):
        ImageIndex.parse(encoded({"schemaVersion": 2, "manifests": [1]}))


def test_docker_lists_are_read() -> None:
    """A manifest list of Docker is an index."""
    value = {"schemaVersion": 2, "mediaType": media_types.DOCKER_LIST, "manifests": [entry(7, linux("amd64"))]}
    assert select_manifest(ImageIndex.parse(encoded(value)), AMD64).size == 7


@pytest.mark.parametrize(
    ("platforms", "platform", "chosen"),
    [
        ([linux("amd64"), linux("arm64", "v8")], AMD64, 0),
        ([linux("amd64"), linux("arm64", "v8")], ARM64, 1),
        ([linux("arm", "v7"), linux("arm64")], ARM64, 1),
        ([linux("amd64", "v3"), linux("amd64")], AMD64, 1),
        ([linux("arm64", "v9"), linux("arm64", "v8")], ARM64, 1),
        ([{"os": "windows", "architecture": "amd64"}, linux("amd64")], AMD64, 1),
        ([{"os": "unknown", "architecture": "unknown"}, linux("amd64")], AMD64, 1),
        ([None], AMD64, 0),
    ],
)
def test_selection(platforms: list[dict[str, str] | None], platform: Platform, chosen: int) -> None:
    """The manifest for the platform is chosen that all its processors run."""
    assert select_manifest(index(*platforms), platform).size == chosen


@pytest.mark.parametrize(
    ("platforms", "there"),
    [
        (
            [linux("amd64"), linux("arm", "v7"), {"os": "unknown", "architecture": "unknown"}],
            "linux/amd64, linux/arm/v7 only",
        ),
        ([linux("arm64", "v9")], "linux/arm64/v9 only"),
        ([], "names no platforms"),
        ([None, None], "names no platforms"),
    ],
)
def test_no_manifest_for_the_platform(platforms: list[dict[str, str] | None], there: str) -> None:
    """Where there is none, the error names the image and the platforms that there are."""
    with pytest.raises(BaseImageError, match=f"for linux/arm64 at thing:1: .*{there}"):
        select_manifest(index(*platforms), ARM64, at="thing:1")
