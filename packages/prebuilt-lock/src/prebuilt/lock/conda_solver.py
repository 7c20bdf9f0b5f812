"""Conda requirements to packages, by rattler."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from prebuilt.core.errors import ResolveError, without_credentials
from prebuilt.core.lock import CondaPackage, Role
from prebuilt.core.requirements import Target
from prebuilt.core.url_secrets import remembered_credentials
from prebuilt.lock.conda_client import channel_config, conda_client
from prebuilt.lock.conda_distributions import CondaDistribution, distributions_of
from prebuilt.lock.conda_specs import (
    channel_names,
    dependency_names,
    match_specs,
    open_channels,
    python_spec,
    virtual_packages,
)
from prebuilt.lock.download import Check

if TYPE_CHECKING:
    from rattler import Channel, Gateway, MatchSpec, RepoDataRecord

ChannelPriority = Literal["strict", "disabled"]

_MAX_LINES = 30  # of an explanation; resolvo's may run to hundreds where every version of a package is listed

_REQUEST_S = (
    300  # for one file of what a channel lists, some 50 MB at most: rattler does not tell whether it stands still
)
_LOOK_S = 0.1  # how soon a cancellation is seen

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaRequest:
    """What is asked of conda.

    Attributes:
        python: ``3.11`` or ``3.11.7``.
        packages: The user's: name (may be ``channel::name``) to version spec.
        runtime: Metaflow's own needs, likewise.
        limits: Versions that a package has to have if it is there at all, by name.
        channels: Names, URLs or paths, highest priority first.
    """

    python: str
    packages: Mapping[str, str]
    runtime: Mapping[str, str]
    limits: Mapping[str, str]
    channels: tuple[str, ...]
    target: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaSolution:
    """What conda brings: packages, and which Python distributions are in them."""

    packages: tuple[CondaPackage, ...]
    distributions: tuple[CondaDistribution, ...]

    @property
    def python_version(self) -> str:
        """Full version of the interpreter."""
        return next(package.version for package in self.packages if package.name == "python")


@dataclass(kw_only=True)
class CondaSolver:
    """Resolves with channels. Concurrent calls are fine, also from threads in which an event loop runs.

    Attributes:
        cache: Folder for what channels list.
        priority: ``strict``: a package comes from the first channel that has it.
        folder: What paths of channels are relative to.
        authorities: Returns the file of certificate authorities that channels are verified with; None: the system's.
    """

    cache: Path
    priority: ChannelPriority
    folder: Path
    authorities: Callable[[], Path | None] = lambda: None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _gateways: dict[frozenset[str], Gateway] = field(default_factory=dict)

    def solve(self, request: CondaRequest, check: Check = lambda: None) -> CondaSolution:
        """Return the packages, each with its role; `check` is called now and then, and raises to stop.

        Raises:
            ResolveError: There is no solution, or a channel could not be read.
        """
        records = self._records(request, check)
        graph = {record.name.normalized: dependency_names(record.depends) for record in records}
        python = closure(["python"], graph)
        runtime = closure(match_names(request.runtime), graph)
        roles: dict[str, Role] = {
            name: "python" if name in python else "runtime" if name in runtime else "user" for name in graph
        }
        packages = [(_package(record, roles[record.name.normalized]), _purls(record)) for record in records]
        distributions = {brought for package, purls in packages for brought in distributions_of(package, purls)}
        return CondaSolution(
            packages=tuple(package for package, _ in packages),
            distributions=tuple(sorted({brought.name: brought for brought in sorted(distributions)}.values())),
        )

    def _records(self, request: CondaRequest, check: Check) -> list[RepoDataRecord]:
        from rattler.exceptions import GatewayError, SolverError

        specs = match_specs({"python": python_spec(request.python)})
        specs += match_specs(request.packages) + match_specs(request.runtime)
        names = channel_names(request.channels, [*request.packages, *request.runtime])
        channels = open_channels(names, channel_config(self.folder))
        asked = ", ".join(f"{name} {spec}".strip() for name, spec in request.packages.items())
        tried = f"resolve {asked or f'Python {request.python}'} (conda) for {request.target.platform}"
        at = ", ".join(map(without_credentials, names))
        try:
            try:
                return _run(_watched(self._solve(specs, channels, request.target, match_specs(request.limits)), check))
            except SolverError:
                if not request.limits:
                    raise
                # What the limits stand for is resolved later; there the clash is told with both of its sides.
                return _run(_watched(self._solve(specs, channels, request.target, []), check))
        except SolverError as error:
            raise ResolveError(tried, at=at, reason=_trimmed(error), remedy=_remedy(str(error))) from error
        except GatewayError as error:
            raise ResolveError(
                tried,
                at=at,
                reason=f"a channel could not be read: {_trimmed(error)}",
                remedy="check the channel's name, the network, the proxy and rattler's credentials (RATTLER_AUTH_FILE)",
            ) from error

    async def _solve(
        self, specs: list[MatchSpec], channels: list[Channel], target: Target, limits: list[MatchSpec]
    ) -> list[RepoDataRecord]:
        from rattler import ChannelPriority as Priority
        from rattler import Subdir, solve

        return await solve(
            channels,
            specs,
            gateway=self._gateway(frozenset(without_credentials(channel.base_url) for channel in channels)),
            platforms=[Subdir(target.platform.subdir), Subdir("noarch")],
            virtual_packages=virtual_packages(target),
            channel_priority=Priority.Strict if self.priority == "strict" else Priority.Disabled,
            constraints=limits,
        )

    def _gateway(self, channels: frozenset[str]) -> Gateway:
        """Return a gateway to `channels`: the same one each time, so that concurrent solves read a channel once."""
        from rattler import Gateway

        logins = {urlsplit(url).hostname or "": login for url in channels if (login := remembered_credentials(url))}
        key = channels if logins else frozenset()
        with self._lock:
            if key not in self._gateways:
                client = conda_client(self.authorities(), logins=logins, timeout_s=_REQUEST_S)
                self._gateways[key] = Gateway(cache_dir=self.cache, client=client)
            return self._gateways[key]


def closure(roots: Iterable[str], graph: Mapping[str, Iterable[str]]) -> set[str]:
    """Return `roots` and all that they need, as far as it is in `graph`."""
    found: set[str] = set()
    waiting = [root for root in roots if root in graph]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [needed for needed in graph[name] if needed in graph]
    return found


def match_names(packages: Iterable[str]) -> list[str]:
    """Return the names in ``channel::name``."""
    return [package.rpartition("::")[2].lower() for package in packages]


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end: here, or in a thread of its own where this one's event loop is busy (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="conda") as pool:
        return pool.submit(asyncio.run, work).result()


async def _watched(work: Coroutine[Any, Any, T], check: Check) -> T:
    """Run `work`, of which rattler by itself would not let go, until `check` raises."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=_LOOK_S))[0]:
            check()
        return await task
    finally:
        task.cancel()


def _package(record: RepoDataRecord, role: Role) -> CondaPackage:
    if record.sha256 is None or not record.size:
        raise ResolveError(
            f"lock {record.file_name}",
            at=without_credentials(record.channel),
            reason="the channel states no SHA-256 or no size of it",
            remedy="ask the channel's owner to index it anew",
        )
    noarch: Literal["python", "generic"] | None = None
    if record.noarch.python or record.noarch.generic:
        noarch = "python" if record.noarch.python else "generic"
    return CondaPackage(
        name=record.name.normalized,
        version=str(record.version),
        build=str(record.build),
        build_number=record.build_number,
        subdir=record.subdir,
        url=without_credentials(record.url),
        sha256=record.sha256.hex(),
        size_bytes=record.size,
        role=role,
        noarch=noarch,
        depends=tuple(record.depends),
        constrains=tuple(record.constrains),
        python_site_packages_path=record.python_site_packages_path,
    )


def _purls(record: RepoDataRecord) -> list[str]:
    """Return the package URLs of the record; rattler shows them in its JSON only."""
    return list(json.loads(record.to_json()).get("purls") or ())


def _trimmed(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    more = [f"… and {len(lines) - _MAX_LINES} lines more"] if len(lines) > _MAX_LINES else []
    return "\n".join([*lines[:_MAX_LINES], *more]).removeprefix("Cannot solve the request because of: ")


def _remedy(reason: str) -> str:
    gpu = "; what needs __cuda needs a step that asks for a GPU" if "__cuda" in reason else ""
    return f"check names and versions against the channels, or loosen a requirement{gpu}"
