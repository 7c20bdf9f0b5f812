"""Bases that are in an image layout on this machine: named in the Dockerfile, sent to the builder when it asks for them."""

from __future__ import annotations

from prebuilt.core.spec import BaseImage
from prebuilt.oci.reference import is_layout, layout_folder

_NAME = "prebuilt-base"


def name_layouts(dockerfile: str, base: BaseImage) -> tuple[str, dict[str, str]]:
    """Return `dockerfile` with a base from a layout called by a name, and where each name's image is.

    A base in a registry is left as it is: the builder pulls it.

    Source: https://docs.docker.com/reference/cli/docker/buildx/build/#source-oci-layout
    """
    if not is_layout(base.repository):
        return dockerfile, {}
    folder = layout_folder(base.repository)
    layouts = {}
    for digest in {base.digest, base.index_digest or base.digest}:
        name = f"{_NAME}-{digest.removeprefix('sha256:')[:12]}"
        layouts[name] = f"{folder}@{digest}"
        dockerfile = dockerfile.replace(f"{base.repository}@{digest}", name)
    return dockerfile, layouts
