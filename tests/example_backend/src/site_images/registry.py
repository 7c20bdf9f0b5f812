"""The registries ``site`` and ``site-asked``: one repository, tags of the site's own, a pull secret."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from prebuilt.core.errors import RegistryError
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.spec import EnvId


class SiteRegistry(ImageRegistry):
    """Names images in the repository that ``SITE_REPOSITORY`` gives. It asks nothing, so each deploy builds."""

    def image_tag(self, env_id: EnvId) -> str:
        """Return a tag of the site's scheme. Another image has another identity, and another tag."""
        return f"{os.environ['SITE_REPOSITORY']}:flow-{env_id.arch}-{env_id.req_id}-{env_id.full_id}"

    def push_credentials(self) -> dict[str, Any]:
        """Return nothing: who pushes has logged in with ``docker login``."""
        return {}

    def pull_config(self, pull_tag: str) -> dict[str, Any]:
        """Return attributes for the step's compute decorator."""
        return {"image_pull_policy": "IfNotPresent", "image_pull_secrets": ["site-pull"]}


class AskedSiteRegistry(SiteRegistry):
    """The same, and says what is there: a second deploy of the same thing builds nothing."""

    def image_exists(self, push_tag: str) -> bool:
        """Return whether `push_tag` is there. "Could not ask" is an error, never "not there"."""
        command = ["docker", "manifest", "inspect", "--insecure", push_tag]
        asked = subprocess.run(command, check=False, capture_output=True, text=True)
        if asked.returncode and "no such manifest" not in asked.stderr:
            raise RegistryError("ask for an image", at=push_tag, reason=asked.stderr.strip())
        return asked.returncode == 0
