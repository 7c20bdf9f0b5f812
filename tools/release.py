"""What a release of one package needs: a clean tree, a new tag, a line in the changelog for each change."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.packages import Package, all_packages

FRAGMENTS = "changelog.d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One release to be made.

    Attributes:
        package: What is released.
        tag: The git tag: ``prebuilt-ecr/v1.2.0``.
        towncrier: Arguments of ``towncrier build`` that name the package.
    """

    package: Package
    tag: str
    towncrier: tuple[str, ...]


class NotReadyError(Exception):
    """The package cannot be released; the message says why and what to do."""


def plan(package: Package, root: Path) -> Release:
    """Return the next release of `package`.

    Raises:
        NotReadyError: The tree has changes, the version was released already, or the changelog says nothing.
    """
    changes = _git(root, "status", "--porcelain")
    if changes:
        raise NotReadyError(f"the tree has changes that are not committed:\n{changes}\nCommit them first.")
    tag = f"{package.name}/v{package.version}"
    if _git(root, "tag", "--list", tag):
        raise NotReadyError(f"{tag} is there already: raise the version in _version.py")
    if not fragments(package):
        raise NotReadyError(f"{package.name} has nothing in {FRAGMENTS}/: say what this release changes")
    return Release(
        package=package,
        tag=tag,
        towncrier=(
            f"--config={root / 'pyproject.toml'}",
            f"--dir={package.folder}",
            f"--name={package.name}",
            f"--version={package.version}",
        ),
    )


def fragments(package: Package) -> list[Path]:
    """Return the changelog fragments of `package` that no release has used up."""
    return sorted((package.folder / FRAGMENTS).glob("*.md"))


def untold(packages: Iterable[Package], root: Path) -> list[Package]:
    """Return the packages whose ``src/`` changed since their last release without a changelog fragment."""
    return [package for package in packages if not fragments(package) and _changed(package, root)]


def _changed(package: Package, root: Path) -> bool:
    tags = _git(root, "tag", "--list", "--sort=-version:refname", f"{package.name}/v*").splitlines()
    if not tags:
        return True
    return bool(_git(root, "diff", "--name-only", tags[0], "HEAD", "--", str(package.folder / "src")))


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
