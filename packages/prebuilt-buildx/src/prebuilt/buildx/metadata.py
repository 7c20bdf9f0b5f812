"""What buildx wrote about the image that it pushed."""

from __future__ import annotations

import json
from pathlib import Path

from prebuilt.core.descriptor import Descriptor


def read_descriptor(path: Path) -> Descriptor | None:
    """Return the descriptor of what was pushed; None where the builder does not say.

    The driver ``docker`` of older engines gives a digest alone, and it may be the configuration's rather than the manifest's.

    Source: https://docs.docker.com/reference/cli/docker/buildx/build/#metadata-file
    """
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    found = data.get("containerimage.descriptor")
    return Descriptor.from_json(found) if found else None
