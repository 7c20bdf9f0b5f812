"""Images by pinned reference, for this machine, read from their repository once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prebuilt.core.errors import BaseImageError, InvalidValueError, RegistryError
from prebuilt.core.platforms import Platform
from prebuilt.oci.containers.image_source import ImageSource
from prebuilt.oci.layout import LayoutRepository
from prebuilt.oci.media_types import OCI_INDEX
from prebuilt.testing.tar_image import TarLayer, push_tar_image

HERE = Platform.host().architecture


@pytest.fixture
def layout(tmp_path: Path) -> LayoutRepository:
    """An empty layout."""
    return LayoutRepository(tmp_path / "layout")


@pytest.fixture
def source(tmp_path: Path, layout: LayoutRepository) -> ImageSource:
    """A source that has read nothing yet."""
    return ImageSource(tmp_path / "images", lambda _: layout)


def index_of(layout: LayoutRepository, *architectures: str) -> str:
    """Push an image for each architecture and an index of them; return its reference."""
    entries = []
    for architecture in architectures:
        image = push_tar_image(
            layout, [TarLayer().add(architecture)], architecture=architecture, env={"FOR": architecture}
        )
        manifest = layout.resolve(image.rpartition("@")[2])
        assert manifest is not None
        entries.append({**manifest.to_json(), "platform": {"os": "linux", "architecture": architecture}})
    data = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    return f"{layout.name}@{layout.put_manifest('index', OCI_INDEX, data).digest}"


def test_config_and_layers_are_read(layout: LayoutRepository, source: ImageSource) -> None:
    """What a run needs, bottom layer first."""
    reference = push_tar_image(layout, [TarLayer().add("a"), TarLayer().add("b")], env={"A": "b=c"}, workdir="/w")
    image = source.get(reference)
    assert (image.env, image.workdir, len(image.diff_ids), image.repository) == ({"A": "b=c"}, "/w", 2, layout.name)
    assert json.loads(source.config(image))["rootfs"]["diff_ids"] == list(image.diff_ids)


def test_an_index_gives_the_image_for_this_machine(layout: LayoutRepository, source: ImageSource) -> None:
    """By architecture; the system is Linux on every machine."""
    assert source.get(index_of(layout, "s390x", HERE, "riscv64")).env == {"FOR": HERE}


def test_an_index_without_one_for_this_machine(layout: LayoutRepository, source: ImageSource) -> None:
    """The error names what there is."""
    with pytest.raises(BaseImageError, match=r"linux/riscv64, linux/s390x only"):
        source.get(index_of(layout, "s390x", "riscv64"))


def test_what_was_read_is_kept_and_checked(layout: LayoutRepository, source: ImageSource) -> None:
    """A second time the repository is not opened, unless what is kept is damaged."""
    reference = push_tar_image(layout, [TarLayer().add("a")])
    image = source.get(reference)
    closed = ImageSource(source.folder, lambda _: pytest.fail("opened"))
    assert closed.get(reference) == image
    for kept in source.folder.iterdir():
        kept.write_bytes(b"{}")
    assert source.get(reference) == image


def test_an_image_that_does_not_agree_with_itself(layout: LayoutRepository, source: ImageSource) -> None:
    """As many layers as diff_ids."""
    reference = push_tar_image(layout, [TarLayer().add("a")], diff_ids=["sha256:" + "0" * 64] * 2)
    with pytest.raises(InvalidValueError, match="1 layers and 2 diff_ids"):
        source.get(reference)


def test_a_blob_that_is_gone(layout: LayoutRepository, source: ImageSource) -> None:
    """The repository's own error comes through."""
    reference = push_tar_image(layout, [TarLayer().add("a")])
    manifest = layout.get_manifest(reference.rpartition("@")[2])
    assert manifest is not None
    digest = json.loads(manifest.data)["config"]["digest"]
    (Path(layout.name.removeprefix("oci:")) / "blobs" / "sha256" / digest.removeprefix("sha256:")).unlink()
    with pytest.raises(RegistryError):
        source.get(reference)
