"""Where base images and conda packages come from: the documented places, or this machine where those cannot be reached."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from channel import make_channel

from prebuilt.testing.base_image import make_base_image

_PATIENCE_S = 3
# Metaflow's own need, beside what the flow asks for.
_PACKAGES = ("numpy>=2", "requests>=2.21")


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the flow is deployed with.

    Attributes:
        note: One line for the reader.
        variables: Settings, as environment variables.
    """

    note: str
    variables: Mapping[str, str] = field(default_factory=dict)


def look_around(folder: Path) -> Surroundings:
    """Return the documented surroundings if they can be reached, else ones that are made in `folder`."""
    from rattler import Channel

    places = (
        "https://registry-1.docker.io/v2/",
        f"{Channel('conda-forge').base_url}noarch/repodata_shards.msgpack.zst",
    )
    with ThreadPoolExecutor() as pool:
        if all(pool.map(_answers, places)):
            return Surroundings(note="Base image and conda packages: Docker Hub and conda-forge.")
    base = make_base_image(folder / "base", tag="python")
    channel = make_channel(folder / "conda", _PACKAGES)
    return Surroundings(
        note="No container registry or conda channel can be reached: the base image is made of this machine's own Python "
        f"{sys.version_info.major}.{sys.version_info.minor} and libraries, the conda channel of wheels.",
        variables={"METAFLOW_PREBUILT_BASE_IMAGE": base.reference, "CONDA_CHANNELS": channel.url},
    )


def _answers(url: str) -> bool:
    """Whether a server is there; that it wants to know who asks is an answer too."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PATIENCE_S):  # noqa: S310 - https
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code in {200, 401}
    except OSError:
        return False
