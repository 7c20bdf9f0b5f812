"""Where base images and conda packages come from: the documented places, or this machine where those cannot be reached."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from channel import make_channel

from prebuilt.testing.base_image import make_base_image

_PATIENCE_S = 3
# Metaflow's own need, beside what the flow asks for.
_PACKAGES = ("numpy>=2", "requests>=2.21")


LOCAL = (
    "No container registry or no conda channel can be reached: the base image is made of this machine's own Python "
    f"{sys.version_info.major}.{sys.version_info.minor} and libraries, the conda channel of wheels."
)


def can_be_reached() -> bool:
    """Return whether the documented base image and conda-forge can be had from here."""
    from rattler import Channel

    places = (
        "https://registry-1.docker.io/v2/",
        f"{Channel('conda-forge').base_url}noarch/repodata_shards.msgpack.zst",
    )
    with ThreadPoolExecutor() as pool:
        return all(pool.map(_answers, places))


def make_locally(folder: Path) -> dict[str, str]:
    """Make a base image and a conda channel in `folder`; return the settings that lead to them."""
    base = make_base_image(folder / "base", tag="python", with_bytecode=True)
    channel = make_channel(folder / "conda", _PACKAGES)
    return {"METAFLOW_PREBUILT_BASE_IMAGE": base, "CONDA_CHANNELS": channel.url}


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
