"""Packages in the order of their lock, each with its files, while those after it are on their way."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias, final

from prebuilt.core.build_service import Cancellation
from prebuilt.core.lock import LockedPackage
from prebuilt.core.tree import Entry
from prebuilt.lock.download import Advance, Check
from prebuilt.lock.installer import PackageInstaller

_AT_ONCE = 4  # packages that are fetched while one is written

_Open: TypeAlias = tuple[list[Entry], contextlib.ExitStack]


@final
class PreparedPackages:
    """An iterator of packages and their files, which can be read until the next step. A context: leaving it stops the rest."""

    def __init__(
        self,
        packages: Sequence[LockedPackage],
        installer: PackageInstaller,
        *,
        advance: Advance = lambda _: None,
        check: Check = lambda: None,
    ) -> None:
        """Prepare `packages` by `installer`, in their order: of two that own a file the later one must win.

        Args:
            packages: Of one lock.
            installer: For its target.
            advance: Told the bytes that have come.
            check: Called now and then; raises to stop.
        """
        self._packages, self._installer, self._advance, self._check_caller = packages, installer, advance, check
        self._stop = Cancellation()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="prepare")
        self._ahead: deque[Future[_Open]] = deque()

    def __enter__(self) -> PreparedPackages:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.cancel()
        self._pool.shutdown(cancel_futures=True)
        for future in self._ahead:
            if not future.cancelled() and future.exception() is None:
                future.result()[1].close()

    def __iter__(self) -> Iterator[tuple[LockedPackage, list[Entry]]]:
        left = iter(self._packages)
        self._ahead.extend(self._start(package) for package in itertools.islice(left, _AT_ONCE))
        for package in self._packages:
            entries, opened = self._ahead[0].result()
            self._ahead.popleft()
            with opened:
                yield package, entries
            self._ahead.extend(self._start(following) for following in itertools.islice(left, 1))

    def _start(self, package: LockedPackage) -> Future[_Open]:
        return self._pool.submit(self._open, package)

    def _open(self, package: LockedPackage) -> _Open:
        with contextlib.ExitStack() as stack:
            context = self._installer.entries(package, advance=self._advance, check=self._check)
            entries = stack.enter_context(context)
            return entries, stack.pop_all()

    def _check(self) -> None:
        self._stop.check()
        self._check_caller()
