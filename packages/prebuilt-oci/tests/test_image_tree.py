from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence

import pytest

from prebuilt.oci.image_tree import ImageTree, LayerListing
from prebuilt.oci.layer import read_layer
from prebuilt.oci.media_types import OCI_LAYER


def listing(*lines: str) -> LayerListing:
    """Return the listing of a layer: ``path/``, ``path -> target``, ``path => hard link``, ``path`` with its own name as facts."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for line in lines:
            path, link, rest = line.partition(" ")
            kind, _, target = rest.partition(" ")
            info = tarfile.TarInfo(path.rstrip("/"))
            if path.endswith("/"):
                info.type = tarfile.DIRTYPE
            elif link:
                info.type, info.linkname = tarfile.SYMTYPE if kind == "->" else tarfile.LNKTYPE, target
            info.mode = 0o755
            archive.addfile(info, io.BytesIO())
    members = read_layer(iter([buffer.getvalue()]), OCI_LAYER)
    return LayerListing.read(members, lambda path, _: frozenset([path]))


def tree(*layers: Sequence[str]) -> ImageTree:
    """Return the tree that layers make, bottom to top."""
    made = ImageTree()
    for layer in layers:
        made.apply(listing(*layer))
    return made


def facts(image: ImageTree, path: str) -> list[str] | None:
    """Return what is remembered of a path, None if it is not there."""
    node = image.find(path)
    return None if node is None else sorted(node.facts)


def test_upper_layers_are_on_top() -> None:
    """Folders merge, files replace."""
    image = tree(["etc/", "etc/a", "etc/b"], ["./etc/", "./etc/b", "./etc/c"])

    assert sorted(image.names("/etc")) == ["a", "b", "c"]
    assert facts(image, "/etc/b") == ["etc/b"]


def test_whiteouts_take_away_what_is_below() -> None:
    """Of the layers below alone, in whatever order the layer has them; folders go with what is in them."""
    image = tree(
        ["a/x/1", "a/x/2", "b/1", "c/1", "c/2"], ["a/.wh.x", "b/2", "b/.wh..wh..opq", "c/.wh.1", "c/1", ".wh.nothing"]
    )

    assert list(image.names("/a")) == []
    assert list(image.names("/b")) == ["2"]
    assert sorted(image.names("/c")) == ["1", "2"]


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("/bin/sh", "/usr/bin/dash"),
        ("/usr/bin/../bin/./sh", "/usr/bin/dash"),
        ("/opt/out", "/usr/bin/dash"),
        ("/opt/loop", None),
        ("/opt/gone", None),
        ("/usr/bin/dash/deeper", None),
        ("/", "/"),
    ],
)
def test_links_stay_within_the_image(path: str, real: str | None) -> None:
    """Absolute, relative and nested links; those that climb out end at the root; loops lead nowhere."""
    image = tree(
        [
            "usr/bin/dash",
            "usr/bin/sh -> dash",
            "bin -> usr/bin",
            "opt/out -> ../../../../usr/bin/sh",
            "opt/loop -> loop",
            "opt/gone -> /nowhere",
        ]
    )

    assert image.real_path(path) == real


def test_files_go_through_links_of_lower_layers() -> None:
    """A layer made before /bin was a link still puts its files there; a folder in the place of a link replaces it."""
    image = tree(["usr/bin/", "bin -> usr/bin", "lib -> usr/lib"], ["bin/new", "lib/", "lib/a"])

    assert image.real_path("/usr/bin/new") == "/usr/bin/new"
    assert image.real_path("/lib/a") == "/lib/a"


def test_hard_links_are_what_they_link_to() -> None:
    """Also of a file of a layer below, and where the target comes later in the layer."""
    image = tree(["usr/python3.11"], ["usr/python3 => usr/python3.11", "usr/other => usr/late", "usr/late"])

    assert facts(image, "/usr/python3") == ["usr/python3.11"]
    assert facts(image, "/usr/other") == ["usr/late"]
