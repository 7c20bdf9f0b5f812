"""Which engine runs containers: the one that is set, else the first that works."""

from __future__ import annotations

from functools import partial

from prebuilt.core.errors import ContainerError
from prebuilt.core.settings import Settings
from prebuilt.core.storage import cache_dir
from prebuilt.oci.containers.docker import DockerEngine
from prebuilt.oci.containers.engine import Engine
from prebuilt.oci.containers.image_source import ImageSource
from prebuilt.oci.containers.podman import PodmanEngine
from prebuilt.oci.containers.rootless import RootlessEngine
from prebuilt.oci.open import open_repository

SETTING = "PREBUILT_CONTAINER_ENGINE"
_ENGINES: dict[str, type[DockerEngine | PodmanEngine | RootlessEngine]] = {
    engine.name: engine for engine in (DockerEngine, PodmanEngine, RootlessEngine)
}


def open_engine(name: str, settings: Settings) -> Engine:
    """Return the engine ``docker``, ``podman`` or ``rootless`` without asking whether it works."""
    cache = cache_dir(settings)

    images = ImageSource(cache / "images", partial(open_repository, settings=settings))
    return _ENGINES[name](cache, images)


def available_engines(settings: Settings) -> list[Engine]:
    """Return the engines that work on this machine, the preferred one first."""
    engines = (open_engine(name, settings) for name in _ENGINES)
    return [engine for engine in engines if _problem(engine) is None]


def select_engine(settings: Settings) -> Engine:
    """Return the engine that ``METAFLOW_PREBUILT_CONTAINER_ENGINE`` names, else the first that works of Docker, Podman, rootless.

    Raises:
        ContainerError: The named engine does not work, or none does; it says why for each that was tried.
        SettingError: There is no engine of that name.
    """
    if settings.get(SETTING) is not None:
        engine = open_engine(settings.choice(SETTING, tuple(_ENGINES), default="rootless"), settings)
        engine.check()
        return engine
    problems = []
    for name in _ENGINES:
        engine = open_engine(name, settings)
        problem = _problem(engine)
        if problem is None:
            return engine
        problems.append(f"{name}: {problem}")
    raise ContainerError(
        "find something that runs containers",
        reason="\n" + "\n".join(f"  {problem}" for problem in problems),
        remedy=f"mend one of them, and set METAFLOW_{SETTING} to choose it",
    )


def _problem(engine: Engine) -> ContainerError | None:
    try:
        engine.check()
    except ContainerError as error:
        return error
    return None
