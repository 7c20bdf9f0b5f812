"""The builder ``native``: locked packages become layers of a registry or layout, with no daemon, root or emulation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prebuilt.core.build_service import BuildRequest, DockerBuildService
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import BuildError
from prebuilt.core.progress import ImageProgress
from prebuilt.core.settings import Settings

if TYPE_CHECKING:
    from prebuilt.native.workshop import Workshop


class NativeBuilder(DockerBuildService):
    """Builds from specs. It takes no Dockerfile, because it runs nothing."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Read the settings; start nothing, import nothing."""
        self._settings = settings or Settings.load()
        self._lock = threading.Lock()
        self._workshop: Workshop | None = None

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor:
        """Build and push `request`; return its manifest's descriptor. Concurrent calls share threads and layers.

        Layers that the repository has are neither downloaded nor built nor uploaded. What was pushed before a failure
        stays, is entered in the catalogue, and is reused.
        """
        from prebuilt.native.image_build import ImageBuild

        with self._get_workshop().open() as workbench:
            return ImageBuild(request=request, progress=progress, workbench=workbench, settings=self._settings).run()

    def build_and_push(  # published signature
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Callable[..., None],
        target_platform: str | None = None,
    ) -> bool:
        """Refuse: a Dockerfile runs commands, and this builder runs none.

        Raises:
            BuildError: Always.
        """
        del dockerfile, context_files, push_credentials, echo, target_platform
        raise BuildError(
            f"build a Dockerfile as {image_tag}",
            reason="the builder native takes locks, not Dockerfiles",
            remedy="set METAFLOW_PREBUILT_BUILD_SERVICE to a builder of Dockerfiles",
        )

    def makes_bytecode(self, python_xy: str) -> bool:
        """Return whether this machine has an interpreter of that version to compile with."""
        from prebuilt.lock.interpreter import find_interpreter

        return find_interpreter(python_xy) is not None

    def _get_workshop(self) -> Workshop:
        from prebuilt.native.workshop import Workshop

        with self._lock:
            self._workshop = self._workshop or Workshop(self._settings)
            return self._workshop
