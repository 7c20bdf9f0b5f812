"""Source that has no wheel: built on this machine if it is pure Python."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from prebuilt.core.errors import ResolveError, without_credentials
from prebuilt.core.lock import Wheel
from prebuilt.core.storage import scratch_folder
from prebuilt.core.tool_process import run_tool
from prebuilt.core.url_secrets import remembered_credentials
from prebuilt.lock.download import Check
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.pylock import DistFile, GitSource, PylockPackage
from prebuilt.lock.remote_file import RemoteFiles
from prebuilt.lock.source_tree import needs_compiler, unpacked
from prebuilt.lock.targets import PythonTarget
from prebuilt.lock.uv import interpreter, not_buildable, run_uv
from prebuilt.lock.wheel_name import parse_wheel_name
from prebuilt.lock.wheelhouse import WheelHouse

_SOURCE_DATE_EPOCH = "1577836800"  # 2020-01-01: zip files cannot say 1970; wheels of the same source are the same bytes
_REMEDY = (
    "choose a version that has a wheel for this platform, take the package from conda (@conda), "
    "or build the wheel on that platform and give it as '@ /path/to/the.whl'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceBuilder:
    """Builds wheels of source for any target, which pure Python allows. `check` is called now and then, and raises to stop."""

    config: IndexConfig
    files: RemoteFiles
    wheelhouse: WheelHouse
    check: Check = lambda: None

    def build(self, package: PylockPackage, target: PythonTarget) -> Wheel:
        """Return the wheel of the package's source, kept in the wheelhouse.

        Raises:
            ResolveError: The build failed, or its result runs on one platform only.
            FetchError: The source could not be downloaded.
            DigestMismatchError: The source is not what the index says.
        """
        title = " ".join(filter(None, (package.name, package.version)))
        with scratch_folder("prebuilt-build-") as folder:
            source = self._source(package, folder, title)
            why = needs_compiler(source)
            if why is not None:
                raise _needs_compiling(title, target, why)
            wheel = self._build(source, folder / "out", title, target)
            tags = parse_wheel_name(wheel.name).tags
            if any(tag.platform != "any" for tag in tags) or target.rank(wheel.name) is None:
                raise _needs_compiling(title, target, f"here it gave {wheel.name}")
            return self.wheelhouse.add(wheel)

    def _source(self, package: PylockPackage, folder: Path, title: str) -> Path:
        """Return the folder or archive to build from."""
        source = package.source
        if isinstance(source, DistFile):
            archive = source.local_path or self.files.download(source, folder)
            if source.subdirectory is None:
                return archive
            return unpacked(archive, folder / "unpacked") / source.subdirectory
        if isinstance(source, GitSource):
            return self._checkout(source, folder / "repository", title)
        if source is None:
            raise ResolveError(f"build {title}", reason="there is neither a wheel nor source of it")
        return source

    def _build(self, source: Path, out: Path, title: str, target: PythonTarget) -> Path:
        environ = self.config.uv_environment()
        arguments = ["build", "--wheel", "--no-create-gitignore", "--out-dir", str(out), *self.config.uv_arguments]
        done = run_uv(
            [*arguments, "--python", interpreter(target.xy, environ), str(source)],
            {**environ, "SOURCE_DATE_EPOCH": _SOURCE_DATE_EPOCH},
            check=self.check,
        )
        if done.returncode != 0:
            raise not_buildable(f"resolve {title} for {target}", title, done.stderr)
        return next(out.glob("*.whl"))

    def _checkout(self, source: GitSource, folder: Path, title: str) -> Path:
        """Clone the repository at the commit that was locked, with its submodules."""
        url = without_credentials(source.url) if urlsplit(source.url).scheme in {"http", "https"} else source.url
        environ = {**os.environ, **git_login(url)}
        said: list[str] = []

        def is_done(*arguments: str) -> bool:
            said.clear()
            return run_tool(["git", *arguments], output=said.append, environ=environ, check=self.check) == 0

        inside = ("-C", str(folder))
        is_whole = (
            is_done("clone", "--quiet", "--no-checkout", url, str(folder))
            # A clone has what branches and tags lead to; the head of a pull request, for one, may not be among that.
            and (
                is_done(*inside, "cat-file", "-e", f"{source.commit}^{{commit}}")
                or is_done(*inside, "fetch", "--quiet", "origin", source.commit)
            )
            and is_done(*inside, "checkout", "--quiet", source.commit)
            and is_done(*inside, "submodule", "--quiet", "update", "--init", "--recursive")
        )
        if not is_whole:
            raise ResolveError(f"get the source of {title}", at=url, reason="\n".join(said).strip())
        return folder / (source.subdirectory or "")


def _needs_compiling(title: str, target: PythonTarget, why: str) -> ResolveError:
    return ResolveError(
        f"resolve {title} for {target}",
        reason=f"there is no fitting wheel, and its source needs compiling: {why}",
        remedy=_REMEDY,
    )


def git_login(url: str) -> dict[str, str]:
    """Return variables by which git asks `url` with the credentials that it was named with: no process list shows them.

    Source: https://git-scm.com/docs/git-config#Documentation/git-config.txt-httpextraHeader
    """
    login = remembered_credentials(url)
    if login is None:
        return {}
    count = int(os.environ.get("GIT_CONFIG_COUNT") or 0)  # the user's own stay
    shown = base64.b64encode(f"{login.username}:{login.secret}".encode()).decode()
    return {
        "GIT_CONFIG_COUNT": str(count + 1),
        f"GIT_CONFIG_KEY_{count}": f"http.{url}.extraHeader",
        f"GIT_CONFIG_VALUE_{count}": f"Authorization: Basic {shown}",
    }
