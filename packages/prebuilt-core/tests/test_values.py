"""The frozen values: what they refuse, and what their identity depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.errors import InvalidValueError
from prebuilt.core.lock import CondaPackage, Lock, Wheel
from prebuilt.core.platforms import Platform
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.spec import BaseImage, BasePython, ImageSpec
from prebuilt.core.tree import BytesContent, FileEntry, HardlinkEntry, PathContent, SymlinkEntry

LINUX = Platform.parse("linux/amd64")


@pytest.mark.parametrize(
    ("text", "subdir", "machine"),
    [
        ("linux/amd64", "linux-64", "x86_64"),
        ("linux/arm64", "linux-aarch64", "aarch64"),
        ("linux/arm64/v8", "linux-aarch64", "aarch64"),
        ("osx-arm64", "osx-arm64", "arm64"),
    ],
)
def test_platforms_are_read_in_the_words_of_oci_and_conda(text: str, subdir: str, machine: str) -> None:
    """A platform is read from either word, and gives conda's and the kernel's."""
    platform = Platform.parse(text)
    assert (platform.subdir, platform.machine) == (subdir, machine)
    assert Platform.parse(str(platform)) == platform


def test_an_unknown_platform_is_refused_with_the_known_ones() -> None:
    """The error lists what can be given."""
    with pytest.raises(InvalidValueError, match="linux/amd64, linux/arm64"):
        Platform.parse("windows/amd64")


def test_the_host_has_a_platform() -> None:
    """The running interpreter's platform is one of the known ones."""
    assert Platform.host().subdir


@pytest.mark.parametrize("digest", ["sha256:abc", "md5:" + "a" * 32, "sha256:" + "A" * 64])
def test_a_descriptor_refuses_what_is_no_digest(digest: str) -> None:
    """Only sha256 and 64 lower-case hex digits pass."""
    with pytest.raises(InvalidValueError, match="64 lower-case hex"):
        Descriptor(media_type="x", digest=digest, size=1)


def test_a_descriptor_survives_its_json_form() -> None:
    """Reading what was written gives an equal value; annotations cannot be edited."""
    descriptor = Descriptor(media_type="x/y", digest="sha256:" + "a" * 64, size=3, annotations={"k": "v"})
    assert Descriptor.from_json(descriptor.to_json()) == descriptor
    with pytest.raises(TypeError):
        descriptor.annotations["k"] = "w"  # type: ignore[index]


def test_a_descriptor_without_a_size_is_refused() -> None:
    """A manifest that lacks a field gives an error, not a guess."""
    with pytest.raises(InvalidValueError, match="size"):
        Descriptor.from_json({"mediaType": "x", "digest": "sha256:" + "a" * 64})


def test_credentials_never_show_their_secret() -> None:
    """The secret is in neither repr nor str."""
    credentials = Credentials(username="me", secret="hush", expires_at=datetime(2020, 1, 1, tzinfo=timezone.utc))
    assert "hush" not in f"{credentials!r} {credentials}"
    assert credentials.is_expired


def test_requirements_are_equal_whatever_the_order_of_packages(requirements: Requirements) -> None:
    """Order of packages is no part of the identity; order of channels is."""
    one = replace(requirements, conda={"a": "1", "b": "2"}, channels=("x", "y"))
    assert one.req_id == replace(one, conda={"b": "2", "a": "1"}).req_id
    assert one.req_id != replace(one, channels=("y", "x")).req_id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compression": "lz4"}, "'lz4' as a compression of layers: expected zstd or gzip"),
        ({"platform": Platform.parse("linux/arm64")}, "it is for linux/arm64, and the lock for linux/amd64"),
        ({"python": None}, r"it has no Python, and the lock takes Python 3\.11 from it"),
        (
            {"python": BasePython(path="/usr/bin/python3", version="3.1.1")},
            r"it has Python 3\.1\.1, and the lock takes Python 3\.11 from it",
        ),
    ],
)
def test_specs_are_checked_when_made(
    spec_of: Callable[..., ImageSpec], wheel: Callable[..., Wheel], change: dict[str, Any], message: str
) -> None:
    """A lock goes on a base of its platform that has its Python, and layers are compressed as somebody can."""
    spec = spec_of(wheel("a"))
    with pytest.raises(InvalidValueError, match=message):
        replace(spec, **(change if "compression" in change else {"base": replace(spec.base, **change)}))


def test_a_lock_with_its_own_python_needs_none(
    lock_of: Callable[..., Lock], conda: Callable[..., CondaPackage], base: BaseImage
) -> None:
    """Conda's Python goes on any base of the platform."""
    lock = lock_of(conda("python", version="3.12.1"), python_version="3.12.1", python_source="conda")
    assert ImageSpec(lock=lock, base=replace(base, python=None)).lock is lock


def test_requirements_keep_no_credentials_of_channels(requirements: Requirements) -> None:
    """A password in a channel's URL reaches neither the value nor its identity."""
    private = replace(requirements, channels=("https://me:pw@conda.example/c",))
    assert private.channels == ("https://conda.example/c",)
    assert private.req_id == replace(requirements, channels=private.channels).req_id


@pytest.mark.parametrize(
    ("python", "conda", "source"),
    [
        ("3.11", {}, "base"),
        ("3.11.7", {}, "base"),
        ("3.11.9", {}, "conda"),
        ("3.1", {}, "conda"),
        ("3.11", {"x": ""}, "conda"),
    ],
)
def test_python_comes_from_the_base_only_where_it_matches(
    requirements: Requirements, base: BaseImage, python: str, conda: dict[str, str], source: str
) -> None:
    """A base serves if its version matches and nothing is asked of conda."""
    assert replace(requirements, python=python, conda=conda).on(base).python_source == source


def test_a_patch_release_of_an_unused_base_python_changes_nothing(requirements: Requirements) -> None:
    """Two bases that differ in a Python which the environment does not use share a lock."""
    with_conda = replace(requirements, conda={"numpy": ""})
    ids = {
        replace(with_conda, target=Target(platform=LINUX, glibc="2.36", base_python=version)).req_id
        for version in ("3.11.7", "3.11.8", None)
    }
    assert len(ids) == 1


@pytest.mark.parametrize("python", ["3", "2.7", "3.11.x", ">=3.11", ""])
def test_requirements_refuse_what_is_no_python_version(python: str) -> None:
    """The error says which form is expected."""
    with pytest.raises(InvalidValueError, match=r"3\.X"):
        Requirements(python=python, target=Target(platform=LINUX))


def test_a_lock_survives_its_file(
    lock_of: Callable[..., Lock], wheel: Callable[..., Wheel], conda: Callable[..., CondaPackage]
) -> None:
    """Reading what was written gives an equal lock, and the same lock gives the same bytes."""
    lock = lock_of(wheel("b"), conda("a", depends=("python",), noarch="python"), python_source="conda")
    again = Lock.parse(lock.to_bytes())
    assert again == lock
    assert again.to_bytes() == lock.to_bytes()


def test_a_lock_is_the_same_whenever_and_in_whatever_order_it_was_resolved(
    lock_of: Callable[..., Lock], wheel: Callable[..., Wheel]
) -> None:
    """Time, resolver and order of packages are no part of its identity."""
    early = lock_of(wheel("a"), wheel("b"))
    late = lock_of(wheel("b"), wheel("a"), resolved_at=datetime(2030, 1, 1, tzinfo=timezone.utc), resolver="uv 9")
    assert early.content_id == late.content_id
    assert early.content_id != lock_of(wheel("a")).content_id


def test_a_python_may_say_where_its_packages_go(
    lock_of: Callable[..., Lock], conda: Callable[..., CondaPackage]
) -> None:
    """A free-threaded Python of conda has a site-packages folder of its own."""
    assert lock_of().site_packages == "lib/python3.11/site-packages"
    threaded = conda("python", python_site_packages_path="lib/python3.13t/site-packages")
    assert lock_of(threaded, python_source="conda").site_packages == "lib/python3.13t/site-packages"


def test_a_lock_refuses_one_package_twice(
    lock_of: Callable[..., Lock], wheel: Callable[..., Wheel], conda: Callable[..., CondaPackage]
) -> None:
    """The same name from PyPI and conda is fine, twice from one of them is not."""
    assert lock_of(wheel("a"), conda("a"))
    with pytest.raises(InvalidValueError, match="wheel a"):
        lock_of(wheel("a"), wheel("a", version="2"))


@pytest.mark.parametrize("data", [b"", b"{}", b'{"format": 99}', b"[1]"])
def test_what_is_no_lock_is_refused(data: bytes) -> None:
    """Damaged and foreign files give one kind of error."""
    with pytest.raises(InvalidValueError, match="a lock"):
        Lock.parse(data)


def test_a_package_without_a_good_hash_is_refused(wheel: Callable[..., Wheel]) -> None:
    """A lock holds no file that could not be verified."""
    with pytest.raises(InvalidValueError, match="sha256 of a"):
        wheel("a", sha256="")
    with pytest.raises(InvalidValueError, match="size of a"):
        wheel("a", size_bytes=0)


def test_an_image_is_another_when_anything_that_decides_its_bytes_changes(
    spec_of: Callable[..., ImageSpec], wheel: Callable[..., Wheel], base: BaseImage
) -> None:
    """Base digest, bytecode, compression, env, labels and the builder's variant are part of the identity; names are not."""
    spec: ImageSpec = spec_of(wheel("a"))
    others = [
        replace(spec, base=replace(base, digest="sha256:" + "cd" * 32)),
        replace(spec, bytecode=False),
        replace(spec, compression="gzip"),
        replace(spec, env={}),
        replace(spec, labels={"team": "ml"}),
        replace(spec, variant="buildah"),
    ]
    assert len({spec.full_id, *(other.full_id for other in others)}) == 1 + len(others)
    assert replace(spec, base=replace(base, reference="python:3")).full_id == spec.full_id
    assert replace(spec, base=replace(base, index_digest="sha256:" + "1d" * 32)).full_id == spec.full_id
    assert spec.env_id == (spec.lock.req_id, spec.full_id, "linux-64")


def test_an_image_says_what_it_is(spec_of: Callable[..., ImageSpec], wheel: Callable[..., Wheel]) -> None:
    """Its labels name requirements, lock and image, beside those that were asked for."""
    spec = replace(spec_of(wheel("a")), labels={"team": "ml"})
    assert spec.identity_labels["metaflow-prebuilt.image"] == spec.full_id
    assert spec.identity_labels["metaflow-prebuilt.lock"] == spec.lock.content_id
    assert spec.identity_labels["metaflow-prebuilt.requirements"] == spec.lock.req_id
    assert spec.all_labels == {**spec.identity_labels, "team": "ml"}


def test_a_base_refuses_what_is_no_digest(base: BaseImage) -> None:
    """Neither of its two digests may be something else."""
    for name in ("digest", "index_digest"):
        with pytest.raises(InvalidValueError):
            replace(base, **{name: "latest"})


def test_values_cannot_be_edited(requirements: Requirements, base: BaseImage) -> None:
    """Assignments and edits of mappings fail."""
    with pytest.raises(FrozenInstanceError):
        base.digest = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        requirements.pypi["x"] = "1"  # type: ignore[index]


@pytest.mark.parametrize("path", ["/abs", "../up", "a/../b", "a//b", "", ".", "./a", "a/"])
def test_entries_stay_inside_their_tree(path: str) -> None:
    """A path that is absolute, climbs or is not normalised is refused."""
    with pytest.raises(InvalidValueError, match="tree"):
        SymlinkEntry(path=path, target="x")


def test_contents_open_as_often_as_asked(tmp_path: Path) -> None:
    """Size and bytes agree, and a second stream starts from the beginning."""
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    for content in (BytesContent(b"abc"), PathContent(file)):
        assert content.size == 3
        content.prefetch()
        for _ in range(2):
            with content.open() as stream:
                assert stream.read() == b"abc"
    assert FileEntry(path="a/b", content=BytesContent(b"")).executable is False
    assert HardlinkEntry(path="c", target="a/b").target == "a/b"


def test_documents_in_a_folder_are_kept_by_name(tmp_path: Path) -> None:
    """What was put is got; absence is None; a name that could leave the folder is refused."""
    documents = FolderDocuments(tmp_path / "new")
    assert documents.get("lock-1") is None
    documents.put("lock-1", b"x")
    documents.put("lock-1", b"y")
    assert documents.get("lock-1") == b"y"
    with pytest.raises(InvalidValueError, match="document name"):
        documents.get("../etc/passwd")
