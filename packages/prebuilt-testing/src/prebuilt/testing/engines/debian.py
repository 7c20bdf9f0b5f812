"""Packages of any Debian suite and architecture, unpacked without being installed: nothing of the machine changes.

They come through the machine's own apt: its mirror, its proxy, its keys. What apt knows of the suite is kept in a folder that is
thrown away afterwards, so that the machine's own lists and pins stay as they are.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prebuilt.testing.engines.process import EngineError, find_program

_KEYRINGS = Path("/usr/share/keyrings")
_CONFIG = """\
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{folder}/state";
Dir::State::Status "{folder}/status";
Dir::Cache "{folder}/cache";
Acquire::Languages "none";
Acquire::Retries "5";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
"""

_ENVIRON = dict(os.environ)  # as this process began: a test may have set a proxy that leads to servers of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianSuite:
    """A suite whose index was read just now.

    Attributes:
        folder: Of apt's configuration and state.
        environ: Has apt use it.
    """

    folder: Path
    environ: Mapping[str, str]

    def version(self, package: str) -> str:
        """Return the version of a package that the suite has.

        Raises:
            EngineError: It has none.
        """
        for line in self._apt("apt-cache", "show", "--no-all-versions", package).splitlines():
            if line.startswith("Version: "):
                return line.removeprefix("Version: ")
        raise EngineError(f"find the Debian package {package}", reason="the suite does not have it")

    def unpack(self, packages: Sequence[str], folder: Path) -> None:
        """Unpack packages, and nothing that they depend on, into `folder`.

        Raises:
            EngineError: One is not there or could not be downloaded.
        """
        place = self.folder / "cache" / "archives"
        self._apt("apt-get", "download", *packages, cwd=place)
        self._unpack_all(place, folder)

    def unpack_closure(self, packages: Sequence[str], folder: Path) -> None:
        """Unpack packages and all that they depend on into `folder`; no script of any is run.

        Raises:
            EngineError: One is not there or could not be downloaded.
        """
        self._apt("apt-get", "install", "--yes", "--download-only", *packages)
        self._unpack_all(self.folder / "cache" / "archives", folder)

    def _unpack_all(self, place: Path, folder: Path) -> None:
        for package in sorted(place.glob("*.deb")):
            self._apt("dpkg-deb", "--extract", str(package), str(folder))
            package.unlink()

    def _apt(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(command, env=self.environ, cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EngineError(f"run {' '.join(command)}", reason=done.stderr[-2000:] or done.stdout[-2000:])
        return done.stdout


@contextlib.contextmanager
def debian_suite(name: str, *, architecture: str | None = None) -> Iterator[DebianSuite]:
    """Give a suite of the Debian archive that this machine uses: ``sid``, ``bookworm``.

    Args:
        name: Of the suite.
        architecture: In Debian's words, ``arm64``; None for this machine's.

    Raises:
        EngineError: This is no Debian machine, or the archive cannot be reached.
    """
    find_program("apt-get", brought_by="these tests need Debian")
    with tempfile.TemporaryDirectory(prefix="prebuilt-apt-") as temporary:
        folder = Path(temporary)
        for place in ("state/lists/partial", "cache/archives/partial"):
            (folder / place).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(f"deb [signed-by={_keyring()}] {_archive()} {name} main\n", "utf-8")
        config = _CONFIG.format(folder=folder, architecture=architecture or _output("dpkg", "--print-architecture"))
        (folder / "apt.conf").write_text(config, "utf-8")
        suite = DebianSuite(folder=folder, environ={**_ENVIRON, "APT_CONFIG": str(folder / "apt.conf")})
        suite._apt("apt-get", "update")  # noqa: SLF001 - of the module
        yield suite


def _archive() -> str:
    """Return the address of the Debian archive that apt uses here; which one is the machine's business alone."""
    targets = _output("apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages")
    for line in targets.splitlines():
        label, _, address = line.partition("|")
        if label == "Debian":
            return address
    raise EngineError(
        "find the Debian archive", reason="apt knows of none", remedy="use Debian, and run apt-get update"
    )


def _keyring() -> Path:
    """Return the keys that sign the archive."""
    for keyring in sorted(_KEYRINGS.glob("debian-archive-keyring.*")):
        return keyring
    raise EngineError(
        "find the keys of the Debian archive", reason="not installed", remedy="install debian-archive-keyring"
    )


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
