"""References are read as Docker reads them, and written in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from prebuilt.core.errors import InvalidValueError
from prebuilt.oci.reference import (
    Reference,
    check_tag,
    is_layout,
    layout_folder,
    parse_reference,
    parse_repository,
    split_repository,
)

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.11-slim", "docker.io/library/python:3.11-slim"),
        ("index.docker.io/python:3", "docker.io/library/python:3"),
        ("docker.io/python", "docker.io/library/python:latest"),
        ("someone/thing", "docker.io/someone/thing:latest"),
        ("localhost/thing:1", "localhost/thing:1"),
        ("localhost:5000/a/b/c:v1", "localhost:5000/a/b/c:v1"),
        ("127.0.0.1:5000/thing", "127.0.0.1:5000/thing:latest"),
        ("[::1]:5000/thing:x", "[::1]:5000/thing:x"),
        ("Registry/thing", "Registry/thing:latest"),
        ("ghcr.io/org/thing__x.y-z:T_a.g-1", "ghcr.io/org/thing__x.y-z:T_a.g-1"),
        (f"python@{DIGEST}", f"docker.io/library/python@{DIGEST}"),
        (f"host:1/x:tag@{DIGEST}", f"host:1/x:tag@{DIGEST}"),
        ("oci:/some/folder:v1", "oci:/some/folder:v1"),
        ("oci:/some/folder", "oci:/some/folder:latest"),
        ("oci:/some:where/folder:v1", "oci:/some:where/folder:v1"),
        (f"oci:/some/folder@{DIGEST}", f"oci:/some/folder@{DIGEST}"),
    ],
)
def test_full_form(text: str, full: str) -> None:
    """A reference is completed with Docker's defaults, and its full form reads back as the same reference."""
    reference = parse_reference(text)
    assert str(reference) == full
    assert parse_reference(full) == reference


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a-z 0-9"),
        ("Python", "upper-case"),
        ("ghcr.io/Org/thing", "upper-case"),
        ("python:", "at most 128"),
        ("python:-x", "neither . nor -"),
        ("python:" + "x" * 129, "at most 128"),
        ("python@sha256:short", "64 lower-case hex"),
        ("python@", "64 lower-case hex"),
        ("https://ghcr.io/x/y", "it is a URL"),
        ("ghcr.io/", "a-z 0-9"),
        ("a//b", "a-z 0-9"),
        ("-bad-.example/x", "not a host name"),
        ("ghcr.io/" + "x" * 250, "255"),
        ("oci:relative/folder:tag", "not absolute"),
        ("oci:/", "a folder's name"),
        ("oci:/x:a:b", "at most 128"),
    ],
)
def test_not_a_reference(text: str, reason: str) -> None:
    """What is not a reference is refused with the text and the reason."""
    with pytest.raises(InvalidValueError, match="as an image reference") as caught:
        parse_reference(text)
    assert reason in str(caught.value)
    assert caught.value.value == text


def test_identifier_is_the_digest_if_there_is_one() -> None:
    """With both a tag and a digest the digest decides."""
    assert parse_reference("python:3").identifier == "3"
    assert parse_reference(f"python:3@{DIGEST}").identifier == DIGEST
    assert str(parse_reference("python:3").with_digest(DIGEST)) == f"docker.io/library/python@{DIGEST}"


@pytest.mark.parametrize(("repository", "tag"), [("python", "3"), ("docker.io/library/python", None)])
def test_reference_is_checked_when_made(repository: str, tag: str | None) -> None:
    """A reference that is not in full form, or names nothing, cannot be made."""
    with pytest.raises(InvalidValueError):
        Reference(repository, tag=tag)


def test_repositories() -> None:
    """Names of repositories are split into host and path, or give a layout's folder."""
    assert parse_repository("python") == "docker.io/library/python"
    assert split_repository("python") == ("docker.io", "library/python")
    assert split_repository("localhost:5000/a/b") == ("localhost:5000", "a/b")
    assert is_layout("oci:/x/y")
    assert not is_layout("oci/x")
    assert layout_folder("oci:/x/y/") == Path("/x/y")
    with pytest.raises(InvalidValueError, match="image layout"):
        split_repository("oci:/x")


def test_tags() -> None:
    """A tag that registries accept comes back as it is."""
    assert check_tag("v1-" + "a" * 125) == "v1-" + "a" * 125
