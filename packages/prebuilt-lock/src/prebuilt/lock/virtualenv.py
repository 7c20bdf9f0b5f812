"""A virtual environment on an interpreter that is already there: the few files that make one."""

from __future__ import annotations

import posixpath

from prebuilt.core.spec import BasePython
from prebuilt.core.tree import BytesContent, Entry, FileEntry, SymlinkEntry
from prebuilt.lock.install_target import InstallTarget


def virtualenv_entries(base: BasePython, target: InstallTarget) -> list[Entry]:
    """Return the files that make the target's prefix a virtual environment on `base`, sorted by path.

    `base.path` should be where the interpreter really is: its standard library is looked for beside it.

    Source: PEP 405
    """
    config = f"home = {posixpath.dirname(base.path)}\ninclude-system-site-packages = false\nversion = {base.version}\n"
    links = {"python": base.path, "python3": "python", f"python{target.python_xy}": "python"}
    return [
        *(SymlinkEntry(path=target.in_tree(f"bin/{name}"), target=to) for name, to in sorted(links.items())),
        FileEntry(path=target.in_tree("pyvenv.cfg"), content=BytesContent(config.encode())),
    ]
