"""Skopeo and umoci accept our layouts, and we read theirs."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.spec import Compression
from prebuilt.core.tree import BytesContent, DirectoryEntry, Entry, FileEntry, HardlinkEntry, SymlinkEntry
from prebuilt.oci.documents import RepositoryDocuments
from prebuilt.oci.extend import AddedLayer, extend_image
from prebuilt.oci.image import ImageConfig, ImageManifest
from prebuilt.oci.layer import write_layer
from prebuilt.oci.layout import LayoutRepository
from prebuilt.oci.media_types import OCI_MANIFEST
from prebuilt.testing.engines.wanted import wanted_program

pytestmark = pytest.mark.layout

LONG = "opt/" + "/".join(["long" * 20] * 4) + "/ünï-日本"
ENTRIES: list[Entry] = [
    FileEntry(path="opt/bin/tool", content=BytesContent(b"#!/bin/sh\n"), executable=True),
    FileEntry(path=LONG, content=BytesContent(b"long" * 100_000)),
    FileEntry(path="opt/empty", content=BytesContent(b"")),
    SymlinkEntry(path="opt/bin/link", target="../../" + LONG),
    HardlinkEntry(path="opt/a-hard-link", target="opt/bin/tool"),
    DirectoryEntry(path="opt/void"),
]


@pytest.fixture(autouse=True)
def _tools() -> None:
    for name in ("skopeo", "umoci"):
        wanted_program(name, brought_by="apt-get install skopeo umoci")


def run(*command: str) -> str:
    """Run a tool; what it said is part of the failure."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def umoci_image(folder: Path, tag: str) -> None:
    """Have umoci make a layout with an image that holds one file."""
    run("umoci", "init", "--layout", str(folder))
    run("umoci", "new", "--image", f"{folder}:{tag}")
    (folder.parent / "greeting").write_text("hello\n")
    run("umoci", "insert", "--rootless", "--image", f"{folder}:{tag}", str(folder.parent / "greeting"), "/greeting")


def extended(folder: Path, base: str, tag: str, compression: Compression) -> Descriptor:
    """Put a layer on top of an image of the same layout."""
    layout = LayoutRepository(folder)
    stored = layout.get_manifest(base)
    assert stored is not None
    manifest = ImageManifest.parse(stored.data)
    with layout.open_blob(manifest.config) as chunks:
        config = ImageConfig.parse(b"".join(chunks))
    file = io.BytesIO()
    layer = write_layer(ENTRIES, file, compression=compression)
    layout.push_blob(layer.descriptor, lambda: io.BytesIO(file.getvalue()))
    added = AddedLayer(descriptor=layer.descriptor, diff_id=layer.diff_id, created_by="a test")
    image = extend_image(
        manifest, config, [added], env={"A": "b"}, path_prepend="/opt/bin", labels={"l": "v"}, annotations={}
    )
    layout.push_blob(image.config_descriptor, lambda: io.BytesIO(image.config))
    return layout.put_manifest(tag, OCI_MANIFEST, image.manifest)


def inspected(reference: str) -> dict[str, Any]:
    """Return what skopeo says of an image."""
    return dict(json.loads(run("skopeo", "inspect", reference)))


def test_layouts_of_umoci_and_skopeo_are_read(tmp_path: Path) -> None:
    """An image that umoci made, and skopeo copied with and without a tag, is found by tag, digest and as the only one."""
    made, tagged, bare = tmp_path / "made", tmp_path / "tagged", tmp_path / "bare"
    umoci_image(made, "v1")
    run("skopeo", "copy", f"oci:{made}:v1", f"oci:{tagged}:v2")
    run("skopeo", "copy", f"oci:{made}:v1", f"oci:{bare}")
    found = LayoutRepository(made).resolve("v1")
    assert found is not None
    for folder, reference in ((tagged, "v2"), (bare, "latest"), (bare, found.digest)):
        layout = LayoutRepository(folder)
        assert layout.resolve(reference) == found
        stored = layout.get_manifest(reference)
        assert stored is not None
        for blob in ImageManifest.parse(stored.data).layers:
            with layout.open_blob(blob) as chunks:
                assert sum(len(chunk) for chunk in chunks) == blob.size


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_skopeo_reads_our_images(tmp_path: Path, compression: Compression) -> None:
    """Skopeo inspects and copies an image of ours, checking every digest, and finds the same digest on the other side."""
    umoci_image(tmp_path / "layout", "base")
    image = extended(tmp_path / "layout", "base", "v1", compression)
    info = inspected(f"oci:{tmp_path}/layout:v1")
    assert info["Digest"] == image.digest
    assert info["Labels"] == {"l": "v"}
    assert "A=b" in info["Env"]
    run("skopeo", "copy", "--preserve-digests", f"oci:{tmp_path}/layout:v1", f"oci:{tmp_path}/copy:v1")
    assert LayoutRepository(tmp_path / "copy").resolve("v1") == image
    run("skopeo", "copy", "--dest-decompress", f"oci:{tmp_path}/layout:v1", f"dir:{tmp_path}/plain")


def test_umoci_unpacks_our_layers(tmp_path: Path) -> None:
    """Umoci finds in our layer what we put there: bytes, modes, links, long names; its diff_id is checked on the way."""
    umoci_image(tmp_path / "layout", "base")
    extended(tmp_path / "layout", "base", "v1", "gzip")
    run("umoci", "unpack", "--rootless", "--image", f"{tmp_path}/layout:v1", str(tmp_path / "bundle"))
    root = tmp_path / "bundle" / "rootfs"
    assert (root / "greeting").read_text() == "hello\n"
    assert (root / LONG).read_bytes() == b"long" * 100_000
    assert (root / "opt/bin/link").readlink() == Path("../../" + LONG)
    assert (root / "opt/a-hard-link").samefile(root / "opt/bin/tool")
    assert (root / "opt/bin/tool").stat().st_mode & 0o777 == 0o755
    assert (root / "opt/empty").stat().st_mode & 0o777 == 0o644
    assert (root / "opt/empty").stat().st_mtime == 0
    assert (root / "opt/void").is_dir()


def test_umoci_writes_beside_us(tmp_path: Path) -> None:
    """Umoci lists and tags what we wrote, and tidies up without touching it; we keep its tags and lose none of ours."""
    folder = tmp_path / "layout"
    umoci_image(folder, "base")
    image = extended(folder, "base", "v1", "zstd")
    RepositoryDocuments(LayoutRepository(folder)).put("lock-1", b"{}")
    run("umoci", "tag", "--image", f"{folder}:v1", "theirs")
    assert sorted(run("umoci", "ls", "--layout", str(folder)).split()) == ["base", "lock-1", "theirs", "v1"]
    assert LayoutRepository(folder).resolve("theirs") == image
    run("umoci", "gc", "--layout", str(folder))
    assert LayoutRepository(folder).resolve("v1") == image
    assert RepositoryDocuments(LayoutRepository(folder)).get("lock-1") == b"{}"


def test_a_new_layout_of_ours_is_one_for_umoci(tmp_path: Path) -> None:
    """Umoci and skopeo work in a layout that we made, lock file and all."""
    umoci_image(tmp_path / "theirs", "base")
    run("skopeo", "copy", f"oci:{tmp_path}/theirs:base", f"dir:{tmp_path}/plain")
    ours = LayoutRepository(tmp_path / "ours")
    RepositoryDocuments(ours).put("x", b"1")
    run("skopeo", "copy", f"dir:{tmp_path}/plain", f"oci:{tmp_path}/ours:base")
    extended(tmp_path / "ours", "base", "v1", "gzip")
    assert sorted(run("umoci", "ls", "--layout", str(tmp_path / "ours")).split()) == ["base", "v1", "x"]
