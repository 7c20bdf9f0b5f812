"""The images that a Dockerfile is built on."""

from __future__ import annotations

from prebuilt.oci.dockerfile_images import pulled_repositories


def test_images_of_a_dockerfile() -> None:
    """Stages, scratch, folders and arguments are no images of a registry; platforms are passed over; each repository is named once."""
    dockerfile = """
    FROM --platform=linux/amd64 python:3.11-slim AS build
    from r.example/base@sha256:{digest}
    FROM build AS again
    FROM scratch
    FROM oci:/images/base@sha256:{digest}
    FROM $OTHER
    FROM again
    FROM python:3.12
    FROM NOT/A/REFERENCE
    COPY --from=busybox:1 / /
    """.replace("{digest}", "0" * 64)
    assert pulled_repositories(dockerfile) == ("docker.io/library/python", "r.example/base")
