"""Which engine runs the containers of a flow: found once, while the flow's code is packaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from metaflow_extensions.prebuilt.deploy.errors import clean_errors
from prebuilt.core.settings import Settings

_LIMITS = ("memory", "cpu")


class EngineSearch:
    """Looks for an engine in the background: asking Docker and Podman takes as long as all the rest of a second deployment."""

    def __init__(self, computes: Sequence[Any], echo: Callable[..., None]) -> None:
        """Begin; `computes` are the ``@container`` decorators, which name their images by digest."""
        self._computes, self._echo = computes, echo
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._found = self._pool.submit(self._find)
        self._pool.shutdown(wait=False)

    def name(self) -> str:
        """Return the engine's name; wait until it is known.

        Raises:
            PrebuiltEnvironmentException: None works; the message says why for each that was tried.
        """
        with clean_errors():
            name, notes = self._found.result()
        for note in notes:
            self._echo(note, no_bold=True)
        return name

    def _find(self) -> tuple[str, list[str]]:
        from prebuilt.oci.containers import ContainerRun, select_engine

        engine = select_engine(Settings.load())
        runs = (
            ContainerRun(image=deco.attributes["image"], command=("true",), **_wanted_limits(deco))
            for deco in self._computes
        )
        return engine.name, sorted({note for run in runs for note in engine.notes(run)})


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
