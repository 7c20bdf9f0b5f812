"""What a release of one package needs: a clean tree, a new tag, and a changelog that says what it changes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.packages import Package, all_packages

FRAGMENTS = "changelog.d"
CHANGELOG = "CHANGELOG.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One release to be made.

    Attributes:
        package: What is released.
        tag: The git tag: ``prebuilt-ecr/v1.2.0``.
    """

    package: Package
    tag: str


class NotReadyError(Exception):
    """The package cannot be released; the message says why and what to do."""


def plan(package: Package, root: Path) -> Release:
    """Return the next release of `package`, whose changelog has its entry: the built files contain it.

    Raises:
        NotReadyError: The tree has changes, the version was released already, or the changelog does not tell of it yet.
    """
    changes = _git(root, "status", "--porcelain")
    if changes:
        raise NotReadyError(f"the tree has changes that are not committed:\n{changes}\nCommit them first.")
    tag = _tag(package)
    if _git(root, "tag", "--list", tag):
        raise NotReadyError(f"{tag} is there already: raise the version in _version.py")
    if fragments(package):
        command = " ".join(_towncrier(package, root))
        raise NotReadyError(
            f"{package.name} has a changelog to be written. Write it, read it and commit it:\n{command}"
        )
    if not _tells(package):
        raise NotReadyError(
            f"{package.name} has nothing in {FRAGMENTS}/ and no {package.version} in {CHANGELOG}: say what this release changes"
        )
    return Release(package=package, tag=tag)


def _tag(package: Package) -> str:
    return f"{package.name}/v{package.version}"


def _towncrier(package: Package, root: Path) -> tuple[str, ...]:
    """Return the command that turns the fragments of `package` into an entry of its changelog, to be run in `root`."""
    folder = package.folder.relative_to(root)
    return (
        *("towncrier", "build", "--yes", "--config=pyproject.toml"),
        *(f"--dir={folder}", f"--name={package.name}", f"--version={package.version}"),
    )


def _tells(package: Package) -> bool:
    """Return whether the changelog has an entry for the version that main has."""
    changelog = package.folder / CHANGELOG
    entry = re.compile(rf"^## {re.escape(package.version)} ", re.MULTILINE)
    return changelog.is_file() and entry.search(changelog.read_text()) is not None


def fragments(package: Package) -> list[Path]:
    """Return the changelog fragments of `package` that no release has used up."""
    return sorted((package.folder / FRAGMENTS).glob("*.md"))


def untold(packages: Iterable[Package], root: Path) -> list[Package]:
    """Return the packages whose ``src/`` changed without a changelog fragment since their last release, or since the entry of the next."""
    return [package for package in packages if not fragments(package) and _changed(package, root)]


def _changed(package: Package, root: Path) -> bool:
    since = _told_at(package, root)
    if since is None:
        return True
    version = ":(exclude,glob)**/_version.py"  # raised after a release, which is no change for users
    return bool(_git(root, "diff", "--name-only", since, "HEAD", "--", str(package.folder / "src"), version))


def _told_at(package: Package, root: Path) -> str | None:
    """Return the last commit whose every change the changelog has: that of an entry without a tag yet, or the last tag."""
    if _tells(package) and not _git(root, "tag", "--list", _tag(package)):
        return _git(root, "log", "-1", "--format=%H", "--", str(package.folder / CHANGELOG)) or None
    tags = _git(root, "tag", "--list", "--sort=-version:refname", f"{package.name}/v*").splitlines()
    return tags[0] if tags else None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, text=True, capture_output=True).stdout.strip()


def main() -> int:
    """Name the packages that changed and do not say so; return the exit status."""
    root = Path(__file__).resolve().parent.parent
    silent = untold(all_packages(root).values(), root)
    for package in silent:
        folder = package.folder.relative_to(root) / FRAGMENTS
        print(f"{package.name} changed: say what in {folder}/NUMBER.added.md (or changed, fixed, removed)")
    return 1 if silent else 0


if __name__ == "__main__":
    raise SystemExit(main())
