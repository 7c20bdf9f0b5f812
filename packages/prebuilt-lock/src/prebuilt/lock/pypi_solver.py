"""PyPI requirements to wheels, by uv."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prebuilt.core.errors import ResolveError, without_credentials
from prebuilt.core.lock import Wheel
from prebuilt.core.storage import scratch_folder
from prebuilt.core.url_secrets import remembered_credentials
from prebuilt.lock.beside import beside
from prebuilt.lock.conda_distributions import CondaDistribution
from prebuilt.lock.conda_stubs import write_stubs
from prebuilt.lock.download import Check
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.pylock import DistFile, PylockPackage, parse_pylock
from prebuilt.lock.pypi_specs import PypiSpec
from prebuilt.lock.remote_file import RemoteFiles
from prebuilt.lock.source_build import SourceBuilder
from prebuilt.lock.targets import PythonTarget
from prebuilt.lock.url_credentials import with_credentials
from prebuilt.lock.uv import UvResult, interpreter, resolve_error, run_uv
from prebuilt.lock.wheel_name import parse_wheel_name
from prebuilt.lock.wheelhouse import WheelHouse

_TOLD = ("is yanked", "does not have an extra")  # which of uv's warnings matter to the user
_WORKERS = 8  # requests for what an index left out; they wait, they do not compute


@dataclass(frozen=True, slots=True, kw_only=True)
class PypiSolver:
    """Resolves for one configuration of indexes. Concurrent calls are fine.

    Attributes:
        note: Told, in one line each, what the user should know.
        folder: Where uv runs: relative paths and uv's project configuration are looked up from there.
        check: Called now and then; raises to stop.
    """

    config: IndexConfig
    wheelhouse: WheelHouse
    note: Callable[[str], None]
    folder: Path
    check: Check = lambda: None

    def solve(
        self, specs: Sequence[PypiSpec], target: PythonTarget, *, brought: Sequence[CondaDistribution] = ()
    ) -> tuple[Wheel, ...]:
        """Return the wheels that `specs` need on `target`, without what conda brings. Each has the role ``user``.

        Args:
            specs: What is asked for.
            target: Where it shall run.
            brought: What conda brings; it is taken as it is.

        Raises:
            ResolveError: There is no solution, or none that has a file for the target.
            FetchError: A file whose size or hash the index does not say could not be read.
        """
        packages = self._packages(specs, target, brought)
        with beside(_WORKERS, self.check) as (pool, check):
            solver = replace(self, check=check)
            return tuple(pool.map(lambda package: solver._wheel(package, target), packages))  # noqa: SLF001 - it is a self

    def names(
        self,
        specs: Sequence[PypiSpec],
        target: PythonTarget,
        *,
        brought: Sequence[CondaDistribution],
        direct: Sequence[PypiSpec],
    ) -> frozenset[str]:
        """Return the names of `specs` and all that they need.

        Args:
            specs: What is asked for.
            target: Where it shall run.
            brought: What conda brings; it is not among the names.
            direct: What comes from a URL or path if it is needed.

        Raises:
            ResolveError: There is no solution.
        """
        return frozenset(package.name for package in self._packages(specs, target, brought, direct))

    def _packages(
        self,
        specs: Sequence[PypiSpec],
        target: PythonTarget,
        brought: Sequence[CondaDistribution],
        direct: Sequence[PypiSpec] = (),
    ) -> list[PylockPackage]:
        if not specs:
            return []
        with scratch_folder("prebuilt-resolve-") as folder:
            urls = {spec.name: spec.url for spec in direct if spec.url} | write_stubs(brought, folder)
            constraints = folder / "constraints.txt"
            constraints.write_text(
                "".join(f"{name} @ {_authorized(url, url)}\n" for name, url in urls.items()), encoding="utf-8"
            )
            result = self._compile(specs, target, constraints)
        if result.returncode != 0:
            names = ", ".join(spec.text for spec in specs)
            versions = {distribution.name: distribution.version for distribution in brought}
            raise resolve_error(result, f"resolve {names} for {target}", versions)
        for warning in result.warnings:
            if any(told in warning for told in _TOLD):
                self.note(f"prebuilt: {warning}")
        return [
            package
            for package in parse_pylock(result.stdout, self.folder)
            if package.name not in {distribution.name for distribution in brought} and target.fulfils(package.marker)
        ]

    def _compile(self, specs: Sequence[PypiSpec], target: PythonTarget, constraints: Path) -> UvResult:
        """Run uv: with wheels alone if that is possible, since nothing of strangers is executed then; else with source."""
        environ = self.config.uv_environment()
        arguments = [
            "pip",
            "compile",
            "-",
            "--format=pylock.toml",
            "--no-header",
            f"--constraints={constraints}",
            f"--python-version={target.python_version}",
            f"--python-platform={target.uv_platform}",
            *self.config.uv_arguments,
        ]
        requirements = "".join(f"{_authorized(spec.text, spec.url)}\n" for spec in specs)

        def run(*more: str) -> UvResult:
            return run_uv([*arguments, *more], environ, stdin=requirements, folder=self.folder, check=self.check)

        if not any(spec.needs_build for spec in specs):
            result = run("--no-build", f"--python={interpreter(target.xy, environ)}")
            if not result.wants_source:
                return result
        return run(f"--python={interpreter(target.xy, environ)}")

    def _wheel(self, package: PylockPackage, target: PythonTarget) -> Wheel:
        """Return the best of the package's wheels for the target, or one that is built of its source."""
        ranked = [(rank, wheel) for wheel in package.wheels if (rank := target.rank(wheel.filename)) is not None]
        if ranked:
            return self._locked(min(ranked, key=lambda pair: pair[0])[1])
        if package.source is None:
            there = ", ".join(sorted(wheel.filename for wheel in package.wheels))
            raise ResolveError(
                f"resolve {package.name} {package.version} for {target}",
                reason=f"there is no fitting wheel and no source; there is {there or 'nothing'}",
                remedy="choose another version, or take the package from conda (@conda)",
            )
        builder = SourceBuilder(
            config=self.config,
            files=RemoteFiles(config=self.config, check=self.check),
            wheelhouse=self.wheelhouse,
            check=self.check,
        )
        return builder.build(package, target)

    def _locked(self, file: DistFile) -> Wheel:
        if file.local_path is not None:
            return self.wheelhouse.add(file.local_path)
        measured = RemoteFiles(config=self.config, check=self.check).measure(file)
        parts = parse_wheel_name(file.filename)
        return Wheel(
            name=parts.distribution,
            version=str(parts.version),
            filename=file.filename,
            url=without_credentials(file.url),
            sha256=measured.sha256 or "",
            size_bytes=measured.size_bytes or 0,
            role="user",
        )


def _authorized(text: str, url: str | None) -> str:
    """Return `text` with `url` in it as the user wrote it, with credentials; it goes to uv where no process list shows it."""
    credentials = remembered_credentials(url) if url else None
    return text if url is None or credentials is None else text.replace(url, with_credentials(url, credentials))
