"""Which engine runs the containers of a flow: found once, while the flow's code is packaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from metaflow_extensions.prebuilt.deploy.errors import clean_errors
from prebuilt.core.errors import ContainerError
from prebuilt.core.settings import Settings

_LIMITS = ("memory", "cpu")


class EngineSearch:
    """Looks for an engine in the background: asking Docker and Podman takes as long as all the rest of a second deployment."""

    def __init__(self, computes: Mapping[str, Any], echo: Callable[..., None]) -> None:
        """Begin; `computes` are the ``@container`` decorators by step, which name their images."""
        self._computes, self._echo = computes, echo
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._found = self._pool.submit(self._find)
        self._pool.shutdown(wait=False)

    def name(self) -> str:
        """Return the engine's name; wait until it is known.

        Raises:
            PrebuiltEnvironmentException: None works; the message says why for each that was tried. Or there is a step that it cannot run.
        """
        with clean_errors():
            name, notes = self._found.result()
        for note in notes:
            self._echo(note, no_bold=True)
        return name

    def _find(self) -> tuple[str, list[str]]:
        from prebuilt.oci.containers import ContainerRun, select_engine

        engine = select_engine(Settings.load())
        notes: set[str] = set()
        for step, deco in self._computes.items():
            gpus = int(float(deco.attributes["gpu"]))
            run = ContainerRun(image=deco.attributes["image"], command=("true",), gpus=gpus, **_wanted_limits(deco))
            try:
                engine.check_run(run)
            except ContainerError as error:
                tried = f"{error.tried} for step {step}"
                raise ContainerError(tried, at=error.at, reason=error.reason, remedy=error.remedy) from error
            notes.update(engine.notes(run))
        return engine.name, sorted(notes)


def _wanted_limits(compute: Any) -> dict[str, Any]:
    """Return the limits that somebody asked for: nobody need hear that a default is not held."""
    wanted = {
        name: float(compute.attributes[name])
        for name in _LIMITS
        if float(compute.attributes[name]) != float(compute.resource_defaults[name])
    }
    limits: dict[str, Any] = {}
    if "memory" in wanted:
        limits["memory_mb"] = int(wanted["memory"])
    if "cpu" in wanted:
        limits["cpus"] = wanted["cpu"]
    return limits
