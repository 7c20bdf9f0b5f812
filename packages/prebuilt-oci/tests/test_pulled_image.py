"""Which image could not be pulled."""

from __future__ import annotations

import pytest

from prebuilt.oci.pulled_image import PulledImage

_DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("said", "stage_image", "setting", "host"),
    [
        ("docker.io/library/python:3.12-slim", "python:3.12-slim", "BUILD_IMAGE", "docker.io"),
        (f"docker.io/library/python:3.12-slim@{_DIGEST}", "python:3.12-slim", "BUILD_IMAGE", "docker.io"),
        (f"docker.io/library/python@{_DIGEST}", "python:3.12-slim", "BASE_IMAGE", "docker.io"),
        (f"r.example:5000/tools@{_DIGEST}", f"r.example:5000/tools@{_DIGEST}", "BUILD_IMAGE", "r.example:5000"),
        ("r.example:5000/base", "python:3.12-slim", "BASE_IMAGE", "r.example:5000"),
        ("docker.io/library/python:3.12-slim", None, "BASE_IMAGE", "docker.io"),
        ("NO/Reference@x", "python:3.12-slim", "BASE_IMAGE", ""),
        (None, "python:3.12-slim", "BASE_IMAGE", ""),
    ],
)
def test_the_setting_is_that_of_the_image(said: str | None, stage_image: str | None, setting: str, host: str) -> None:
    """The image of the build stage is known by its name, also with the digest that a builder adds; all else is the base."""
    found = PulledImage.find(said, stage_image)
    assert (found.setting, found.host) == (f"METAFLOW_PREBUILT_{setting}", host)
    assert (stage_image or "") in found.noun or setting == "BASE_IMAGE"
