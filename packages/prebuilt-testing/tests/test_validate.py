"""Validation finds what breaks an image, and nothing in one that is right."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from prebuilt.core.platforms import Platform
from prebuilt.core.tree import BytesContent, DirectoryEntry, Entry, FileEntry, HardlinkEntry, SymlinkEntry
from prebuilt.oci.image import ImageManifest, descriptor_of
from prebuilt.oci.layer import write_layer
from prebuilt.oci.layout import LayoutRepository
from prebuilt.oci.media_types import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST
from prebuilt.testing.image_tree import folder_tree, subtree, tree_differences
from prebuilt.testing.validate import InvalidImageError, inspect_image, validate

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")


def file(path: str, text: str = "text", *, executable: bool = False) -> FileEntry:
    """Return an entry of a file."""
    return FileEntry(path=path, content=BytesContent(text.encode()), executable=executable)


def right_layer(*entries: Entry) -> tuple[bytes, str]:
    """Return a layer as the project writes it, and its diff_id."""
    target = io.BytesIO()
    written = write_layer(entries, target, compression="gzip")
    return target.getvalue(), written.diff_id


def tar_layer(*members: tarfile.TarInfo) -> tuple[bytes, str]:
    """Return a layer of empty files as Python's tarfile writes it, and its diff_id."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for member in members:
            archive.addfile(member)
    return gzip.compress(target.getvalue(), mtime=0), descriptor_of(target.getvalue(), "tar").digest


def member(name: str, **fields: object) -> tarfile.TarInfo:
    """Return a member with the given fields."""
    made = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def push(
    layout: LayoutRepository, layers: Sequence[tuple[bytes, str]], change: Callable[[dict], None] = lambda _: None
) -> str:
    """Push an image of `layers`, its config changed by `change`; return its tag."""
    config = {
        "os": "linux",
        "architecture": "amd64",
        "history": [{"created_by": "test"} for _ in layers],
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
    }
    change(config)
    data = json.dumps(config).encode()
    blobs = [descriptor_of(data, OCI_CONFIG), *(descriptor_of(layer, OCI_LAYER_GZIP) for layer, _ in layers)]
    for blob, content in zip(blobs, [data, *(layer for layer, _ in layers)], strict=True):
        layout.push_blob(blob, BytesContent(content).open)
    layout.put_manifest("image", OCI_MANIFEST, ImageManifest(config=blobs[0], layers=tuple(blobs[1:])).to_bytes())
    return "image"


@pytest.fixture
def layout(tmp_path: Path) -> LayoutRepository:
    """An empty layout."""
    return LayoutRepository(tmp_path / "layout")


def problems(layout: LayoutRepository, *layers: tuple[bytes, str]) -> str:
    """Return what is wrong with an image of `layers`, in one text."""
    return "\n".join(inspect_image(layout, push(layout, layers)).problems)


def test_a_right_image_is_valid_and_its_tree_is_the_union_of_its_layers(layout: LayoutRepository) -> None:
    """Later layers win; hard links are the files that they are linked to."""
    below = right_layer(file("opt/a", "old"), file("opt/b"), SymlinkEntry(path="opt/l", target="b"))
    above = right_layer(file("opt/a", "new", executable=True), HardlinkEntry(path="opt/h", target="opt/a"))
    report = validate(layout, push(layout, [below, above]), platform=AMD64)
    assert set(report.tree) == {"opt", "opt/a", "opt/b", "opt/h", "opt/l"}
    assert report.tree["opt/h"].content == report.tree["opt/a"].content
    assert [report.tree[path].layer for path in ("opt/a", "opt/b")] == [1, 0]


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([member("b"), member("a")], "not sorted"),
        ([member("a", mtime=7)], "a has the time 7"),
        ([member("a", uid=1000)], "a belongs to 1000:0"),
        ([member("a", uname="me")], "belongs to 0:0 me:"),
        ([member("a", mode=0o600)], "mode 600"),
        ([member("a", type=tarfile.FIFOTYPE)], "a is a other"),
        ([member("./a")], "./a is not a normalised path"),
        ([member("a"), member("a")], "paths twice: a"),
        ([member("x/a")], "x/a comes before its folder"),
        ([member(".wh.a")], "is a whiteout"),
        ([member("h", type=tarfile.LNKTYPE, linkname="a")], "does not come before it"),
        ([], "it is empty"),
    ],
)
def test_a_layer_that_would_differ_between_machines_is_found(
    layout: LayoutRepository, members: list[tarfile.TarInfo], problem: str
) -> None:
    """Each rule for our layers is broken once."""
    assert problem in problems(layout, tar_layer(*members))


def test_layers_of_the_base_may_be_as_they_like_but_must_be_the_lowest(layout: LayoutRepository) -> None:
    """A base is somebody else's; what must hold is that it is there, unchanged."""
    base_layer, ours = tar_layer(member("b", mtime=7), member("a", uid=3)), right_layer(file("opt/c"))
    base = inspect_image(layout, push(layout, [base_layer]))
    assert validate(layout, push(layout, [base_layer, ours]), base=base).tree.keys() == {"a", "b", "opt", "opt/c"}
    with pytest.raises(InvalidImageError, match="not those of its base"):
        validate(layout, push(layout, [ours, base_layer]), base=base)


def test_two_equal_layers_are_found(layout: LayoutRepository) -> None:
    """Images with equal layers are not streamed by some clusters."""
    layer = right_layer(file("a"))
    assert "layer 1 is the same as one below it" in problems(layout, layer, layer)


def test_a_config_that_does_not_fit_the_layers_is_found(layout: LayoutRepository) -> None:
    """diff_ids, history and platform are compared with what was read."""
    layer, other = right_layer(file("a")), right_layer(file("b"))

    def spoil(config: dict) -> None:
        config["rootfs"]["diff_ids"] = [other[1]]
        config["history"] = []

    report = inspect_image(layout, push(layout, [layer], spoil), platform=ARM64)
    assert [problem.split()[:4] for problem in report.problems] == [
        ["the", "config", "says", "diff_ids"],
        ["the", "history", "tells", "of"],
        ["it", "is", "for", "linux/amd64,"],
    ]


def test_a_name_in_a_gzip_header_is_found(layout: LayoutRepository) -> None:
    """It would be the name of a temporary file of the machine."""
    data, diff_id = tar_layer(member("a"))
    target = io.BytesIO()
    with gzip.GzipFile("layer.tar", "wb", fileobj=target, mtime=0) as compressed:
        compressed.write(gzip.decompress(data))
    assert "gzip header" in problems(layout, (target.getvalue(), diff_id))


def test_an_image_that_is_not_there_is_a_lookup_error(layout: LayoutRepository) -> None:
    """A test that validates the wrong tag is told so."""
    push(layout, [right_layer(file("a"))])
    with pytest.raises(LookupError, match="no manifest nothing"):
        validate(layout, "nothing")


def test_whiteouts_of_a_base_hide_what_is_below_them(layout: LayoutRepository) -> None:
    """The union is what a runtime shows."""
    below = right_layer(file("a/x"), file("a/y"), file("b/x"), DirectoryEntry(path="c"))
    above = tar_layer(member("a/.wh.x"), member("b/.wh..wh..opq"), member("b/z"), member(".wh.c"))
    assert set(inspect_image(layout, push(layout, [below, above])).tree) == {"a", "a/y", "b", "b/z"}


def test_a_tree_is_compared_with_a_folder_on_disk(layout: LayoutRepository, tmp_path: Path) -> None:
    """What was materialised is what is in the image, wherever either is."""
    entries = (file("opt/env/f"), file("opt/env/bin/x", executable=True), SymlinkEntry(path="opt/env/l", target="f"))
    tree = subtree(validate(layout, push(layout, [right_layer(*entries)])).tree, "/opt/env")
    folder = tmp_path / "env"
    (folder / "bin").mkdir(parents=True)
    (folder / "f").write_text("text")
    (folder / "bin" / "x").write_text("text")
    (folder / "l").symlink_to("f")
    assert [line.split(":")[0] for line in tree_differences(tree, folder_tree(folder))] == ["bin/x"]
    (folder / "bin" / "x").chmod(0o755)
    assert tree_differences(tree, folder_tree(folder)) == []
    (folder / "extra").touch()
    (folder / "l").unlink()
    differences = tree_differences(tree, folder_tree(folder))
    assert [line.split(": ")[:2] for line in differences] == [
        ["extra", "only in the second"],
        ["l", "only in the first"],
    ]
