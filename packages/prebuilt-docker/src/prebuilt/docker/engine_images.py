"""The images that an engine has: what it says of them, and their removal."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import docker

_log = logging.getLogger(__name__)


def image_facts(client: docker.APIClient, image: str) -> Mapping[str, Any] | None:
    """Return what the engine says of `image`, a name or an id; None if it has none.

    Raises:
        APIError: The engine cannot say.
    """
    import docker.errors

    try:
        return cast("Mapping[str, Any]", cast("Any", client).inspect_image(image))
    except docker.errors.NotFound:
        return None


def remove_image(client: docker.APIClient, name: str) -> None:
    """Remove `name`, and the image if nothing else names or uses it. What cannot be removed stays, and the log says so."""
    import docker.errors
    import requests

    try:
        client.remove_image(name)
    except docker.errors.NotFound:
        _log.debug("%s is not in the engine any more", name)
    except (docker.errors.DockerException, requests.RequestException) as error:
        _log.info("%s stays in the engine: %s", name, error)
