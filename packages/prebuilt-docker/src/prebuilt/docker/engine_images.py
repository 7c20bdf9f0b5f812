"""The images that an engine has: what it says of them, and their removal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from prebuilt.core.retry import Backoff

if TYPE_CHECKING:
    import docker

_PATIENCE_S = 10.0  # for a container of a build that was stopped: the engine removes it, but not at once
_LOOK_S = 0.2
_CONFLICT = 409
# Podman looks at all images to say something of one, and fails where another build removes one of them meanwhile.
_DISTURBED = "image not known"
_DISTURBED_BACKOFF = Backoff(attempts=8, base_s=0.1, limit_s=2.0)

_log = logging.getLogger(__name__)


def image_facts(client: docker.APIClient, image: str) -> Mapping[str, Any] | None:
    """Return what the engine says of `image`, a name or an id; None if it has none.

    Raises:
        APIError: The engine cannot say.
    """
    import docker.errors

    waits_s = _DISTURBED_BACKOFF.waits_s()
    while True:
        try:
            return cast("Mapping[str, Any]", cast("Any", client).inspect_image(image))
        except docker.errors.NotFound:
            return None
        except docker.errors.APIError as error:
            wait_s = next(waits_s, None) if _was_disturbed(error) else None
            if wait_s is None:
                raise
        time.sleep(wait_s)


def remove_image(
    client: docker.APIClient,
    name: str,
    *,
    outlasts_container: bool = False,
    note: Callable[[str], None] = _log.warning,
) -> None:
    """Remove `name`, and the image if nothing else names or uses it. What the engine fails to remove stays, and is said.

    Args:
        client: Of the engine.
        name: Or an id.
        outlasts_container: Whether to wait some seconds for a container of the image to be gone.
        note: Is told of what stays for no good reason. One that somebody uses is left to them; an engine that is gone is said by
            what ends the work.
    """
    import docker.errors
    import requests

    waits_s, deadline_s = _DISTURBED_BACKOFF.waits_s(), time.monotonic() + _PATIENCE_S
    while True:
        try:
            client.remove_image(name)
        except docker.errors.NotFound:
            _log.debug("%s is not in the engine any more", name)
            return
        except (docker.errors.DockerException, requests.RequestException) as error:
            wait_s = next(waits_s, None) if _was_disturbed(error) else None
            if outlasts_container and _is_in_container(error) and time.monotonic() < deadline_s:
                wait_s = _LOOK_S
            if wait_s is None:
                is_failure = isinstance(error, docker.errors.APIError) and error.status_code != _CONFLICT
                said = f"{name} stays in the engine: {getattr(error, 'explanation', None) or error}"
                (note if is_failure else _log.info)(said)
                return
        else:
            return
        time.sleep(wait_s)


def _was_disturbed(error: Exception) -> bool:
    import docker.errors

    return isinstance(error, docker.errors.APIError) and error.is_server_error() and _DISTURBED in str(error)


def _is_in_container(error: Exception) -> bool:
    import docker.errors

    return isinstance(error, docker.errors.APIError) and error.status_code == _CONFLICT and "container" in str(error)
