"""Where an environment's files will be at run time, and for which Python."""

from __future__ import annotations

from dataclasses import dataclass

from prebuilt.core.lock import Lock
from prebuilt.core.platforms import Platform
from prebuilt.core.spec import PREFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallTarget:
    """Where files go. Paths in a tree are relative to the tree's root; paths written into files are absolute.

    Attributes:
        prefix: Absolute path that the environment has at run time; it is written into scripts and libraries.
        root: The same place in the tree; empty where the tree's root is the environment.
        python_version: Full version of the interpreter, ``3.11.7``.
        platform: What the environment runs on.
        site_packages: Where importable packages are, relative to the prefix.
    """

    prefix: str = PREFIX
    root: str = PREFIX.lstrip("/")
    python_version: str
    platform: Platform
    site_packages: str

    @classmethod
    def of(cls, lock: Lock, *, prefix: str = PREFIX, root: str = PREFIX.lstrip("/")) -> InstallTarget:
        """Return the target of `lock`'s packages at `prefix`."""
        return cls(
            prefix=prefix,
            root=root,
            python_version=lock.python_version,
            platform=lock.target.platform,
            site_packages=lock.site_packages,
        )

    @property
    def python_xy(self) -> str:
        """The interpreter's version without its patch release: ``3.11``."""
        return ".".join(self.python_version.split(".")[:2])

    @property
    def library(self) -> str:
        """Folder of importable files, standard library and site-packages, relative to the prefix: ``lib/python3.11``."""
        return self.site_packages.rpartition("/")[0]

    @property
    def python(self) -> str:
        """Absolute path of the environment's interpreter at run time."""
        return f"{self.prefix}/bin/python"

    def in_tree(self, path: str) -> str:
        """Return the path in the tree of a path relative to the prefix."""
        return f"{self.root}/{path}" if self.root else path

    def in_prefix(self, tree_path: str) -> str:
        """Return the path relative to the prefix of a path in the tree; the inverse of :meth:`in_tree`."""
        return tree_path[len(self.root) + 1 :] if self.root else tree_path
