"""What the build stage of a Dockerfile needs, gathered on the machine that deploys."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from prebuilt.core.build_service import Cancellation
from prebuilt.core.dockerfile import PROGRAM, BuildMaterials
from prebuilt.core.errors import SettingError
from prebuilt.core.lock import LockedPackage
from prebuilt.core.locks import Locks
from prebuilt.core.progress import ImageProgress
from prebuilt.core.settings import Settings
from prebuilt.core.spec import ImageSpec
from prebuilt.core.storage import cache_dir, storage_errors
from prebuilt.core.tool_process import removed_if_killed
from prebuilt.core.tree import BytesContent, Content, PathContent
from prebuilt.lock.fetch import DOWNLOADS, PackageFiles
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.installer import link_scripts_setting
from prebuilt.lock.stage.order import CERTIFICATES, ORDER, TOOLS, StageOrder
from prebuilt.lock.stage.program import program_bytes
from prebuilt.lock.stage.tool_locks import ToolLocks
from prebuilt.lock.stage.travel import TravelRules

if TYPE_CHECKING:
    from prebuilt.core.dockerfile import MaterialsSource

_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class LockMaterials:
    """Gathers the program, its tools, certificates, and the packages that a build machine could not fetch.

    The same lock gives the same materials, on whichever machine they are gathered by whom, if configurations agree. Concurrent
    calls are fine.

    Attributes:
        settings: ``METAFLOW_PREBUILT_BUILD_IMAGE``, ``_SEND_PACKAGES``, ``_CA_BUNDLE``, and the cache folder.
        locks: Resolves the tools, and keeps what they resolved to.
    """

    settings: Settings
    locks: Locks

    @contextlib.contextmanager
    def gather(
        self, spec: ImageSpec, progress: ImageProgress, *, check: Callable[[], None]
    ) -> Iterator[BuildMaterials]:
        """Give the materials for an image of `spec`; packages among them are files that are gone afterwards.

        Raises:
            FetchError: A package that has to travel could not be downloaded.
            DigestMismatchError: One is not what was locked.
            ResolveError: The package index lacks the tools.
            SettingError: A setting is malformed.
            StorageError: The disk is full.
        """
        order = StageOrder(
            python=spec.lock.python_xy,
            tools=self._tools.get(spec.lock, check=check),
            link_scripts=link_scripts_setting(self.settings),
        )
        wheels = [wheel for tools in order.tools.values() for wheel in tools]
        travelling = [package for package in (*wheels, *spec.lock.packages) if self._rules.travels(package)]
        files: dict[str, Content] = {
            PROGRAM: BytesContent(program_bytes()),
            ORDER: BytesContent(order.to_bytes()),
            **({CERTIFICATES: BytesContent(self._certificates)} if self._certificates else {}),
        }
        with self._fetched(travelling, progress, check) as fetched:
            for wheel in wheels:
                if wheel.sha256 in fetched:
                    files[f"{TOOLS}/{wheel.sha256}/{wheel.filename}"] = fetched[wheel.sha256]
            of_lock = {package.sha256 for package in spec.lock.packages}
            yield BuildMaterials(
                files=files,
                packages={sha256: content for sha256, content in fetched.items() if sha256 in of_lock},
                image=self.settings.get("PREBUILT_BUILD_IMAGE"),
            )

    @contextlib.contextmanager
    def _fetched(
        self, packages: Sequence[LockedPackage], progress: ImageProgress, check: Callable[[], None]
    ) -> Iterator[dict[str, Content]]:
        """Give the files of `packages` by SHA-256."""
        each = {package.sha256: package for package in packages}
        if not each:
            yield {}
            return
        progress.add_total(sum(package.size_bytes for package in each.values()))
        progress.state("fetching packages that the build cannot")
        stop = Cancellation()

        def check_all() -> None:
            check()
            stop.check()

        def fetch(package: LockedPackage) -> Path:
            return stack.enter_context(files.get(package, advance=progress.advance, check=check_all))

        with (
            self._download_folder() as folder,
            PackageFiles(self.settings, self._index_config, cache_dir(self.settings), folder=folder) as files,
            contextlib.ExitStack() as stack,
        ):
            with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="travel") as pool:
                fetching = {sha256: pool.submit(fetch, package) for sha256, package in each.items()}
                try:
                    fetched: dict[str, Content] = {sha256: PathContent(f.result()) for sha256, f in fetching.items()}
                except BaseException:
                    stop.cancel()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
            yield fetched

    @contextlib.contextmanager
    def _download_folder(self) -> Iterator[Path]:
        """Give a folder for the packages of one build: they stay until it ends, and not longer if this process is killed."""
        downloads = cache_dir(self.settings) / DOWNLOADS
        with storage_errors("make a folder for the packages of a build", downloads):
            downloads.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(prefix="build-", dir=downloads)
        with folder as name, removed_if_killed(Path(name)):
            yield Path(name)

    @cached_property
    def _index_config(self) -> IndexConfig:
        return IndexConfig.load(self.settings)

    @cached_property
    def _rules(self) -> TravelRules:
        return TravelRules(settings=self.settings, index_config=self._index_config)

    @cached_property
    def _tools(self) -> ToolLocks:
        return ToolLocks(locks=self.locks, note=self.locks.progress.note)

    @cached_property
    def _certificates(self) -> bytes:
        """The authorities that this user was told to trust: for package indexes, and for everything. Empty without any."""
        return b"\n".join(dict.fromkeys(_read(path) for path in self._index_config.named_authorities))


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise SettingError(
            "METAFLOW_PREBUILT_CA_BUNDLE, SSL_CERT_FILE, SSL_CERT_DIR (pip: cert)",
            at=str(path),
            reason="no such file or folder",
            remedy="name a PEM file with certificate authorities, or a folder of such files",
        )
    with storage_errors("read certificates", path):
        return path.read_bytes()


if TYPE_CHECKING:
    _: type[MaterialsSource] = LockMaterials
