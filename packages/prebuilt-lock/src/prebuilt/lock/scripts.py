"""Scripts in ``bin``: their first line, and the ones that entry points ask for."""

from __future__ import annotations

import configparser
import re

from prebuilt.core.errors import PackageError

_MAX_SHEBANG = 126  # Linux before 5.1 cuts the line at 127 bytes, newline included
_ENTRY_POINT = re.compile(r"(?P<module>[\w.]+)\s*:\s*(?P<attribute>[\w.]+)\s*(\[.*\])?")
_SCRIPT_NAME = re.compile(r"[^/\\\0\s]+")

_TEMPLATE = """\
# -*- coding: utf-8 -*-
import sys
from {module} import {imported}
if __name__ == "__main__":
    sys.exit({attribute}())
"""


def shebang(python: str) -> bytes:
    """Return the first line (or lines) of a script for the interpreter at `python`.

    A path with spaces, or one that is too long for the kernel, goes by way of the shell: the lines are a string to Python.

    Source: pypa/distlib, ``ScriptMaker._build_shebang``
    """
    if len(python) + 2 <= _MAX_SHEBANG and not re.search(r"\s", python):
        return f"#!{python}\n".encode()
    return f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n".encode()


def rewritten(script: bytes, python: str) -> bytes:
    """Return a wheel's script with its ``#!python`` line made real.

    Source: binary distribution format, "Recommended installer features"
    """
    _, _, rest = script.partition(b"\n")
    return shebang(python) + rest


def console_scripts(entry_points: str, *, of: str) -> dict[str, tuple[str, str]]:
    """Return the module and attribute of each console and GUI script, by script name, from an ``entry_points.txt``.

    Raises:
        PackageError: The file, or one of its lines, is malformed; `of` names the wheel.
    """
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # names keep their case
    try:
        parser.read_string(entry_points)
    except configparser.Error as error:
        raise PackageError(f"read the entry points of {of}", reason=str(error).replace("\n", " ")) from error
    scripts = {}
    for section in ("console_scripts", "gui_scripts"):
        for name, value in parser.items(section) if parser.has_section(section) else ():
            match = _ENTRY_POINT.fullmatch(value.strip())
            if match is None or not _SCRIPT_NAME.fullmatch(name) or name in {".", ".."}:
                raise PackageError(f"read the entry points of {of}", reason=f"{name!r} = {value!r} is not a script")
            scripts[name] = (match["module"], match["attribute"])
    return scripts


def console_script(module: str, attribute: str, python: str) -> bytes:
    """Return a script that calls ``module:attribute``."""
    body = _TEMPLATE.format(module=module, attribute=attribute, imported=attribute.partition(".")[0])
    return shebang(python) + body.encode()
