"""Puts ``top_level.txt`` into the wheel's dist-info.

Metaflow takes a distribution for an extension only if that file names ``metaflow_extensions``, and hatchling writes none.
Without it the extension is not found, and nothing says so, as soon as another extension is installed beside it.

Source: metaflow/extension_support/__init__.py, "1st step: look for distributions"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class TopLevelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds one file to wheels, editable ones too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the file and its place in the wheel."""
        del version
        name = self.metadata.core.name.replace("-", "_")
        target = f"{name}-{self.metadata.version}.dist-info/top_level.txt"
        source = str(Path(self.root) / "top_level.txt")
        build_data["force_include"][source] = target
        build_data["force_include_editable"][source] = target
