"""Requirements to a lock, for any target from any host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from prebuilt.core.errors import ResolveError
from prebuilt.core.lock import Lock, LockedPackage, Wheel
from prebuilt.core.requirements import Requirements
from prebuilt.core.settings import Settings
from prebuilt.core.storage import cache_dir
from prebuilt.lock.beside import beside
from prebuilt.lock.conda_distributions import CondaDistribution
from prebuilt.lock.conda_solver import CondaRequest, CondaSolution, CondaSolver
from prebuilt.lock.download import Check
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.pypi_solver import PypiSolver
from prebuilt.lock.pypi_specs import PypiSpec
from prebuilt.lock.targets import PythonTarget
from prebuilt.lock.uv import uv_version
from prebuilt.lock.wheelhouse import wheelhouse

if TYPE_CHECKING:
    from prebuilt.core.locks import Resolver


class LockResolver:
    """Resolves by rattler and uv. Concurrent calls are fine."""

    def __init__(
        self, settings: Settings, *, note: Callable[[str], None] = lambda _: None, folder: Path | None = None
    ) -> None:
        """Read settings; neither channels nor indexes yet. rattler is loaded only where conda is asked.

        Args:
            settings: ``METAFLOW_PREBUILT_CONDA_CHANNEL_PRIORITY`` (``strict``, or ``disabled``) and the cache folder.
            note: Told, in one line each, what the user should know: a yanked version, say.
            folder: What relative paths in requirements are relative to; the working folder, unless given.

        Raises:
            SettingError: A setting is malformed.
        """
        self._settings = settings
        self._note = note
        self._folder = folder or Path.cwd()
        self._wheelhouse = wheelhouse(settings)
        priority = settings.choice("PREBUILT_CONDA_CHANNEL_PRIORITY", ("strict", "disabled"), default="strict")
        self._conda_solver = CondaSolver(
            cache=cache_dir(settings) / "repodata",
            priority="strict" if priority == "strict" else "disabled",
            folder=self._folder,
            authorities=lambda: IndexConfig.load(settings, folder=self._folder).ca_bundle,
        )

    def resolve(self, requirements: Requirements, *, check: Check = lambda: None) -> Lock:
        """Resolve anew, for the target of `requirements`; `check` is called now and then, and raises to stop.

        Raises:
            ResolveError: There is no solution, or none that has a usable file; the message names the packages.
            FetchError: A file that has to be read for the lock could not be.
            SettingError: A setting, or pip's or uv's configuration, is malformed.
        """
        pypi = self._specs(requirements.pypi)
        if requirements.python_source == "conda":
            python_version, packages = self._on_conda(requirements, pypi, check)
        else:
            python_version, packages = self._on_base(requirements, pypi, check)
        return Lock(
            req_id=requirements.req_id,
            target=requirements.target,
            python_version=python_version,
            python_source=requirements.python_source,
            packages=tuple(packages),
            resolved_at=datetime.now(timezone.utc).replace(microsecond=0),
            resolver=f"py-rattler {version('py-rattler')}, uv {uv_version()}",
        )

    def _on_base(
        self, requirements: Requirements, pypi: list[PypiSpec], check: Check
    ) -> tuple[str, Iterable[LockedPackage]]:
        """Resolve wheels alone, for the interpreter that is there."""
        python_version = requirements.target.base_python or requirements.python
        target = PythonTarget(target=requirements.target, python_version=python_version)
        solver, runtime = self._pypi_solver(check), self._specs(requirements.runtime)
        return python_version, _with_roles(solver, pypi, runtime, target, ())

    def _on_conda(
        self, requirements: Requirements, pypi: list[PypiSpec], check: Check
    ) -> tuple[str, Iterable[LockedPackage]]:
        """Resolve conda packages, then wheels on top of them.

        What Metaflow needs comes from conda, but for what the user asks of PyPI by name. If the user's wheels do not agree
        with that, PyPI is asked for all that Metaflow needs: there the user's own packages decide on versions.
        """
        named = {spec.name for spec in pypi}
        moved = {name: spec for name, spec in requirements.runtime.items() if canonicalize_name(name) in named}
        runtime = {name: spec for name, spec in requirements.runtime.items() if name not in moved}
        try:
            return self._stacked(requirements, pypi, runtime, moved, check)
        except _ClashError as clash:
            if not runtime:
                raise clash.error from None
            try:
                return self._stacked(requirements, pypi, {}, requirements.runtime, check)
            except (_ClashError, ResolveError):
                raise clash.error from None

    def _stacked(
        self,
        requirements: Requirements,
        pypi: list[PypiSpec],
        of_conda: Mapping[str, str],
        of_pypi: Mapping[str, str],
        check: Check,
    ) -> tuple[str, Iterable[LockedPackage]]:
        """Resolve with Metaflow's needs divided between conda and PyPI."""
        solution = self._conda(requirements, of_conda, pypi, check)
        if not pypi:
            return solution.python_version, solution.packages
        target = PythonTarget(target=requirements.target, python_version=solution.python_version)
        solver, runtime = self._pypi_solver(check), self._specs(of_pypi)
        try:
            wheels = _with_roles(solver, pypi, runtime, target, solution.distributions)
        except ResolveError as error:
            raise _ClashError(error) from error
        return solution.python_version, [*solution.packages, *wheels]

    def _conda(
        self, requirements: Requirements, runtime: Mapping[str, str], pypi: list[PypiSpec], check: Check
    ) -> CondaSolution:
        request = CondaRequest(
            python=requirements.python,
            packages=requirements.conda,
            runtime=runtime,
            limits={spec.name: spec.conda_version for spec in pypi if spec.conda_version},
            channels=requirements.channels,
            target=requirements.target,
        )
        try:
            return self._conda_solver.solve(request, check)
        except ResolveError as error:
            if requirements.conda:
                raise
            # Who asked for nothing of conda's is told why it was asked at all.
            why = f"there is no Python {requirements.python} in the base image (for a local step: on this machine)"
            remedy = f"{error.remedy}; conda was asked because {why}"
            raise ResolveError(error.tried, at=error.at, reason=error.reason, remedy=remedy) from error

    def _pypi_solver(self, check: Check) -> PypiSolver:
        config = IndexConfig.load(self._settings, folder=self._folder)
        return PypiSolver(config=config, wheelhouse=self._wheelhouse, note=self._note, folder=self._folder, check=check)

    def _specs(self, packages: Mapping[str, str]) -> list[PypiSpec]:
        return [PypiSpec.parse(name, spec, folder=self._folder) for name, spec in packages.items()]


class _ClashError(Exception):
    """Wheels could not be resolved on top of what conda brings."""

    def __init__(self, error: ResolveError) -> None:
        self.error = error
        super().__init__(str(error))


def _with_roles(
    solver: PypiSolver,
    pypi: Sequence[PypiSpec],
    runtime: Sequence[PypiSpec],
    target: PythonTarget,
    brought: Sequence[CondaDistribution],
) -> list[Wheel]:
    """Return the wheels of both; those that `runtime` needs have its role."""
    with beside(1, solver.check) as (pool, check):
        solver = replace(solver, check=check)
        # Asked at the same time, hence of the newest versions: that decides on a layer, not on what is installed.
        of_runtime = pool.submit(solver.names, runtime, target, brought=brought, direct=pypi)
        wheels = solver.solve([*pypi, *runtime], target, brought=brought)
    return [replace(wheel, role="runtime") if wheel.name in of_runtime.result() else wheel for wheel in wheels]


if TYPE_CHECKING:
    _: type[Resolver] = LockResolver
