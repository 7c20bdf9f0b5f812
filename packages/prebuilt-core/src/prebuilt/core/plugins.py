"""Finding builders and registries by entry point."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from prebuilt.core.build_service import DockerBuildService
from prebuilt.core.errors import PluginError, PrebuiltError
from prebuilt.core.image_registry import ImageRegistry

T = TypeVar("T", DockerBuildService, ImageRegistry)

# The distribution that brings each documented name, for the message when it is not installed.
_BROUGHT_BY = {
    "docker": "metaflow-prebuilt",
    "native": "metaflow-prebuilt",
    "dockerhub": "metaflow-prebuilt",
    "local": "metaflow-prebuilt",
    "layout": "metaflow-prebuilt",
    "oci": "metaflow-prebuilt",
    "buildx": "metaflow-prebuilt[buildx]",
    "kaniko": "metaflow-prebuilt[kaniko]",
    "codebuild": "metaflow-prebuilt[ecr]",
    "ecr": "metaflow-prebuilt[ecr]",
    "gcr": "metaflow-prebuilt[gcr]",
}


@dataclass(frozen=True, slots=True)
class PluginKind(Generic[T]):
    """A kind of plugin: what it is called, where it is listed, which setting chooses it, what it must be."""

    noun: str
    group: str
    setting: str
    contract: type[T]

    def installed(self) -> dict[str, EntryPoint]:
        """Return the installed ones by name; the first of a name wins. Nothing is imported."""
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            found.setdefault(point.name, point)
        return dict(sorted(found.items()))

    def get(self, name: str) -> T:
        """Return a new instance of the one called `name`.

        Raises:
            PluginError: It is not installed, does not import, is not of this kind, or cannot be made.
        """
        installed = self.installed()
        if name not in installed:
            raise self._not_installed(name, installed)
        point = installed[name]
        try:
            made = point.load()()
        except PrebuiltError:
            raise
        except Exception as error:
            raise PluginError(
                f"make the {self.noun} {name!r}",
                at=point.value,
                reason=f"{type(error).__name__}: {error}",
                remedy=f"mend it, or choose another with {self.setting}",
            ) from error
        if not isinstance(made, self.contract):
            raise PluginError(
                f"make the {self.noun} {name!r}",
                at=point.value,
                reason=f"it is a {type(made).__name__}, not a {self.contract.__name__}",
            )
        return made

    def _not_installed(self, name: str, installed: Iterable[str]) -> PluginError:
        bringer = _BROUGHT_BY.get(name)
        install = f"pip install '{bringer}', or set" if bringer else "set"
        return PluginError(
            f"find the {self.noun} {name!r}",
            reason=f"no such entry point in the group {self.group}; installed: {', '.join(installed) or 'none'}",
            remedy=f"{install} {self.setting} to an installed one",
        )


BUILD_SERVICES = PluginKind(
    "builder",
    "metaflow_prebuilt.build_services",
    "METAFLOW_PREBUILT_BUILD_SERVICE",
    DockerBuildService,  # type: ignore[type-abstract]
)
IMAGE_REGISTRIES = PluginKind(
    "registry",
    "metaflow_prebuilt.image_registries",
    "METAFLOW_PREBUILT_IMAGE_REGISTRY",
    ImageRegistry,  # type: ignore[type-abstract]
)
