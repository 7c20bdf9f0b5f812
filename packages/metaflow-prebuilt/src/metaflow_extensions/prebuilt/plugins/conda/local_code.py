"""The code package, unpacked for tasks that run on this machine in an interpreter that has no Metaflow of its own."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from metaflow.packaging_sys import ContentType


class LocalCode:
    """A folder with a flow's code package, and what a task needs in its environment to import from there."""

    def __init__(self, package: Any) -> None:
        """Unpack `package`; waits until it is made."""
        self._folder = tempfile.TemporaryDirectory(prefix="metaflow-prebuilt-")
        package.extract_into(self._folder.name, ContentType.ALL_CONTENT)
        exports = package.get_post_extract_env_vars(package.package_metadata, self._folder.name)
        self.variables = dict(_variable(name, value, self._folder.name) for name, value in exports.items())

    def remove(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()


def _variable(name: str, value: str, folder: str) -> tuple[str, str]:
    if name.endswith(":"):  # Metaflow's mark for a variable that replaces one of the same name
        return name[:-1], value
    return (name, os.pathsep.join([value, folder])) if name == "PYTHONPATH" else (name, value)
