"""Base images in which no task could run, and those that cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from prebuilt.core.platforms import Platform

pytestmark = [pytest.mark.metaflow, pytest.mark.slow]

SETTING = "METAFLOW_PREBUILT_BASE_IMAGE"


@pytest.fixture
def refused(place):
    """Return a function that deploys on a base image and gives the message; the cache is intact, and nothing was built."""

    def deploy(base_image: str, **variables: str) -> str:
        message = place.run(pypi={"fine": "2.32"}, **{SETTING: base_image}, **variables).message
        assert message.startswith("tried to bake the image of start, end: ")
        assert place.is_intact(images=0)
        return message

    return deploy


def test_an_absent_image_is_named(refused, registry, tmp_path):
    """In a layout, in a registry, and in a registry that has not even the repository."""
    for place in (f"oci:{tmp_path}/bases", registry.repository("base"), registry.repository("nothing")):
        message = refused(f"{place}:no")
        assert f"find the base image at {place}:no: it is not there" in message
        assert f"check its name, or set {SETTING}" in message


@pytest.mark.parametrize(
    ("without", "told"),
    [
        ("bash", "it has no bash, with which Metaflow starts a task; install bash in it"),
        ("tar", "it has no tar, with which Metaflow starts a task; install tar in it"),
        ("libc.so", "it has no GNU C library, which packages need"),
    ],
)
def test_an_image_without_what_tasks_need_is_named(refused, push_base, tmp_path, without, told):
    """It is read once; the message says what is missing."""
    message = refused(push_base(tmp_path / "bases", "lacking", without=without))
    assert f"{tmp_path}/bases:lacking: {told}" in message
    assert SETTING in message


def test_an_image_for_another_platform_is_named(refused, push_base, tmp_path):
    """Before its layers are read."""
    other = _other()
    message = refused(push_base(tmp_path / "bases", "foreign", platform=other))
    assert f"it is for {other} only; set {SETTING} to an image for " in message


def _other() -> Platform:
    here = str(Platform.host())
    return Platform.parse("linux/amd64" if here.endswith("arm64") else "linux/arm64")


def test_an_image_without_python_says_why_conda_is_asked(refused, push_base, tmp_path):
    """Who asked for wheels alone learns what a channel is wanted for."""
    base = push_base(tmp_path / "bases", "bare", without="python")
    message = refused(base, CONDA_CHANNELS=Path(tmp_path, "nowhere").as_uri())
    assert "a channel could not be read" in message
    assert "conda was asked because there is no Python 3." in message


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "401 Unauthorized; check that the repository exists, and log in: docker login 127.0.0.1"),
        (403, "403 Forbidden; ask for the right to do this, or use another account"),
        (429, "429 Too Many Requests; wait a while"),
        (500, "500 Internal Server Error; try again later"),
    ],
)
def test_a_registry_that_refuses_is_not_one_without_the_image(refused, registry, status, told):
    """The answer is told, with the setting that chooses another base image."""
    registry.fail("*", "base/manifests", status=status, times=99, headers={"Retry-After": "0"})
    message = refused(f"{registry.repository('base')}:python")
    assert told in message
    assert f"or set {SETTING} to a base image that can be had" in message


def test_a_registry_that_is_down_is_named(refused):
    """Nobody listens there."""
    assert "127.0.0.1:9/v2/base/manifests/python: [Errno 111] Connection refused" in refused("127.0.0.1:9/base:python")


def test_a_body_that_ends_early_is_told(refused, registry):
    """After it was asked for again in vain: each time not a byte more came."""
    registry.truncate("base/blobs", after_bytes=0, times=99)
    assert "it broke off" in refused(f"{registry.repository('base')}:python")


def test_bytes_that_are_not_what_their_digest_says_are_refused(refused, registry):
    """Both digests are in the message."""
    registry.corrupt("base/blobs", times=99)
    message = refused(f"{registry.repository('base')}:python")
    assert "expected sha256:" in message
    assert "the registry or a proxy before it has damaged data" in message
