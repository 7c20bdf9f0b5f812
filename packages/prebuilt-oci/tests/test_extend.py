"""Layers are put on top of an image: what is the base's stays, what is ours is added, the bytes are the same each time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import InvalidValueError
from prebuilt.core.spec import DEFAULT_PATH
from prebuilt.oci import media_types
from prebuilt.oci.extend import EPOCH, AddedLayer, ExtendedImage, extend_image
from prebuilt.oci.image import ImageConfig, ImageManifest, descriptor_of

BASE_LAYER = descriptor_of(b"base", media_types.DOCKER_LAYER_GZIP)
BASE_DIFF_ID = "sha256:" + "ba" * 32
ADDED = AddedLayer(
    descriptor=descriptor_of(b"numpy", media_types.OCI_LAYER_ZSTD),
    diff_id="sha256:" + "ad" * 32,
    created_by="numpy 2.1",
)
CREATED = "2024-05-06T07:08:09Z"


def base_config(settings: dict[str, Any] | None = None, **more: object) -> ImageConfig:
    """Return the config of a base with one layer."""
    value = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [BASE_DIFF_ID]}}
    return ImageConfig.parse(json.dumps(value | {"config": settings, "created": CREATED} | more).encode())


def base_manifest(*layers: Descriptor) -> ImageManifest:
    """Return Docker's manifest of a base."""
    return ImageManifest(
        config=descriptor_of(b"{}", media_types.DOCKER_CONFIG),
        layers=layers or (BASE_LAYER,),
        annotations={"org.opencontainers.image.version": "of the base"},
        media_type=media_types.DOCKER_MANIFEST,
    )


def extended(config: ImageConfig | None = None, manifest: ImageManifest | None = None, **more: Any) -> ExtendedImage:
    """Return a base with a layer on top."""
    arguments: dict[str, Any] = {"env": {}, "labels": {}, "annotations": {}} | more
    return extend_image(manifest or base_manifest(), config or base_config(), [ADDED], **arguments)


def settings_of(image: ExtendedImage) -> dict[str, Any]:
    """Return the ``config`` of the config."""
    return dict(json.loads(image.config)["config"])


def test_layers_and_types() -> None:
    """The base's layers come first; Docker's types are OCI's in the result, and digests and sizes stay."""
    image = extended()
    manifest, config = ImageManifest.parse(image.manifest), ImageConfig.parse(image.config)
    assert json.loads(image.manifest)["mediaType"] == media_types.OCI_MANIFEST
    assert manifest.config == descriptor_of(image.config, media_types.OCI_CONFIG) == image.config_descriptor
    assert [layer.media_type for layer in manifest.layers] == [media_types.OCI_LAYER_GZIP, media_types.OCI_LAYER_ZSTD]
    assert [layer.digest for layer in manifest.layers] == [BASE_LAYER.digest, ADDED.descriptor.digest]
    assert config.diff_ids == (BASE_DIFF_ID, ADDED.diff_id)
    assert image.manifest_descriptor == descriptor_of(image.manifest, media_types.OCI_MANIFEST)


def test_annotations() -> None:
    """The image has its own annotations, not the base's; those of the base's layers stay."""
    layer = Descriptor(
        media_type=media_types.OCI_LAYER_GZIP, digest=BASE_LAYER.digest, size=BASE_LAYER.size, annotations={"toc": "x"}
    )
    manifest = ImageManifest.parse(extended(manifest=base_manifest(layer), annotations={"a": "1"}).manifest)
    assert dict(manifest.annotations) == {"a": "1"}
    assert dict(manifest.layers[0].annotations) == {"toc": "x"}


def test_environment() -> None:
    """Variables of the base keep their place, ours replace or follow them, and the folder is in front of PATH."""
    config = base_config({"Env": ["LANG=C", "PATH=/usr/bin:/bin", "X=1"]})
    image = extended(config, env={"Z": "z", "X": "2", "A": "a"}, path_prepend="/opt/prebuilt/env/bin")
    assert settings_of(image)["Env"] == ["LANG=C", "PATH=/opt/prebuilt/env/bin:/usr/bin:/bin", "X=2", "A=a", "Z=z"]


def test_path_of_a_base_without_one() -> None:
    """Where the base has no PATH, what runtimes would take is kept behind the folder; without a folder nothing is set."""
    assert settings_of(extended(path_prepend="/x"))["Env"] == [f"PATH=/x:{DEFAULT_PATH}"]
    assert settings_of(extended())["Env"] == []


def test_the_rest_of_the_base_is_kept() -> None:
    """User, folder, labels and unknown fields are the base's; labels of ours replace those of the same name."""
    config = base_config(
        {"User": "me", "WorkingDir": "/w", "Labels": {"a": "1", "b": "2"}, "New": [1]}, variant="v1", odd=7
    )
    image = extended(config, labels={"b": "3", "c": "4"})
    settings = settings_of(image)
    assert (settings["User"], settings["WorkingDir"], settings["New"]) == ("me", "/w", [1])
    assert settings["Labels"] == {"a": "1", "b": "3", "c": "4"}
    whole = json.loads(image.config)
    assert (whole["odd"], whole["variant"], whole["os"], whole["architecture"]) == (7, "v1", "linux", "amd64")


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"Entrypoint": ["python"], "Cmd": ["-c", "1"]}, {}),
        ({"Entrypoint": None, "Cmd": ["bash"]}, {"Cmd": ["bash"]}),
        ({"Cmd": ["bash"]}, {"Cmd": ["bash"]}),
    ],
)
def test_the_entry_point_goes(settings: dict[str, Any], left: dict[str, Any]) -> None:
    """No entry point stands between Batch and the task's command, and no arguments that were meant for one."""
    found = settings_of(extended(base_config(settings)))
    assert {name: value for name, value in found.items() if name in {"Entrypoint", "Cmd"}} == left


def test_times() -> None:
    """The image, and each step of its history, is as old as the base; or as the epoch if the base does not tell."""
    whole = json.loads(extended().config)
    assert whole["created"] == CREATED
    assert whole["history"][-1] == {"created": CREATED, "created_by": "numpy 2.1"}
    assert json.loads(extended(base_config(created=None)).config)["created"] == EPOCH


def test_history_of_the_base_is_kept() -> None:
    """A history that tells of each layer is continued."""
    history = [{"created_by": "COPY x"}, {"created_by": "ENV y", "empty_layer": True}]
    whole = json.loads(extended(base_config(history=history)).config)
    assert whole["history"] == [*history, {"created": CREATED, "created_by": "numpy 2.1"}]


@pytest.mark.parametrize("history", [None, [], [{"empty_layer": True}], [{}, {}]])
def test_history_that_does_not_fit(history: object) -> None:
    """A history that is missing or does not tell of each layer is replaced by a plain one, since tools count it."""
    whole = json.loads(extended(base_config(history=history)).config)
    assert (
        len([step for step in whole["history"] if not step.get("empty_layer")]) == len(whole["rootfs"]["diff_ids"]) == 2
    )


def test_same_bytes_each_time() -> None:
    """Order of arguments does not show."""
    one = extended(env={"A": "1", "B": "2"}, labels={"x": "1", "y": "2"}, annotations={"p": "1", "q": "2"})
    two = extended(env={"B": "2", "A": "1"}, labels={"y": "2", "x": "1"}, annotations={"q": "2", "p": "1"})
    assert one == two


def test_the_base_is_not_changed() -> None:
    """The values that come in are the same afterwards."""
    config = base_config({"Env": ["X=1"], "Entrypoint": ["x"]})
    before = config.to_bytes()
    extended(config, env={"X": "2"}, labels={"a": "b"})
    assert config.to_bytes() == before


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
    ],
)
def test_layers_that_cannot_be_used(media_type: str) -> None:
    """Foreign and encrypted layers are refused by their type."""
    with pytest.raises(InvalidValueError, match="foreign or encrypted") as caught:
        extended(manifest=base_manifest(descriptor_of(b"x", media_type)))
    assert caught.value.value == media_type


def test_a_config_of_another_image() -> None:
    """A config that has another number of layers than the manifest is refused."""
    with pytest.raises(InvalidValueError, match="2 layers, and its config 1"):
        extended(manifest=base_manifest(BASE_LAYER, BASE_LAYER))
