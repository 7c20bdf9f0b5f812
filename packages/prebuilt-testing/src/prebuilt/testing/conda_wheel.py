"""Conda packages made of wheels: real content for channels where no channel can be reached."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import Specifier
from packaging.utils import canonicalize_name, parse_wheel_filename

from prebuilt.core.platforms import Platform
from prebuilt.core.tree import BytesContent, Entry, FileEntry
from prebuilt.testing.conda_package import PREFIX_MARK, CondaPackageSpec, text_file

_LAUNCHER = """#!{prefix}/bin/python
import sys
from {module} import {first}
sys.exit({function}())
"""


def wheel_as_conda(wheel: Path, *, python_xy: str, platform: Platform | None = None) -> CondaPackageSpec:
    """Return a conda package with the files, commands and needs of `wheel`, which is read into memory.

    Args:
        wheel: Its file. A pure one becomes a noarch package.
        python_xy: Python for which markers are evaluated, and for which a wheel that is not pure is: ``3.11``.
        platform: For which likewise; None for this machine's.
    """
    platform = platform or Platform.host()
    name, version, _, tags = parse_wheel_filename(wheel.name)
    is_pure = all(tag.platform == "any" for tag in tags)
    site_packages = "site-packages" if is_pure else f"lib/python{python_xy}/site-packages"
    with zipfile.ZipFile(wheel) as archive:
        info = _info_folder(archive)
        files = list(_files(archive, info.removesuffix(".dist-info"), site_packages))
        commands = _commands(archive, info)
        needs = tuple(_needs(archive.read(f"{info}/METADATA").decode(), python_xy, platform))
    if not is_pure:
        files += (_launcher(command, target) for command, target in commands.items())
    return CondaPackageSpec(
        name=str(name),
        version=str(version),
        build="py_0" if is_pure else f"py{python_xy.replace('.', '')}_0",
        subdir=platform.subdir,
        files=tuple(files),
        depends=("python" if is_pure else f"python {python_xy}.*", *needs),
        noarch="python" if is_pure else None,
        entry_points=tuple(f"{command} = {target}" for command, target in commands.items()) if is_pure else (),
    )


def _info_folder(archive: zipfile.ZipFile) -> str:
    return next(name.partition("/")[0] for name in archive.namelist() if name.endswith(".dist-info/METADATA"))


def _files(archive: zipfile.ZipFile, stem: str, site_packages: str) -> Iterator[Entry]:
    """Yield a wheel's files where an installer puts them.

    Source: https://packaging.python.org/en/latest/specifications/binary-distribution-format/#the-data-directory
    """
    places = {"purelib": site_packages, "platlib": site_packages, "scripts": "bin", "data": ".", "headers": "include"}
    for member in archive.infolist():
        if member.is_dir():
            continue
        path = f"{site_packages}/{member.filename}"
        is_script = False
        if member.filename.startswith(f"{stem}.data/"):
            _, kind, rest = member.filename.split("/", 2)
            path, is_script = f"{places[kind]}/{rest}".removeprefix("./"), kind == "scripts"
        data = archive.read(member)
        if is_script and data.startswith(b"#!python"):
            data = data.replace(b"#!python", f"#!{PREFIX_MARK}/bin/python".encode(), 1)
        yield FileEntry(path=path, content=BytesContent(data), executable=is_script)


def _commands(archive: zipfile.ZipFile, info: str) -> Mapping[str, str]:
    parser = ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names are taken as they are
    if f"{info}/entry_points.txt" in archive.namelist():
        parser.read_string(archive.read(f"{info}/entry_points.txt").decode())
    return dict(parser["console_scripts"]) if parser.has_section("console_scripts") else {}


def _launcher(command: str, target: str) -> Entry:
    """Return the script that noarch packages get from their installer, and others bring."""
    module, _, function = (part.strip() for part in target.partition("[")[0].partition(":"))
    first = function.partition(".")[0]
    text = _LAUNCHER.format(prefix=PREFIX_MARK, module=module, first=first, function=function)
    return text_file(f"bin/{command}", text, executable=True)


def _needs(metadata: str, python_xy: str, platform: Platform) -> Iterator[str]:
    environment = {
        "extra": "",
        "platform_machine": platform.machine,
        "platform_system": "Linux" if platform.os == "linux" else "Darwin",
        "python_full_version": f"{python_xy}.0",
        "python_version": python_xy,
        "sys_platform": platform.os,
    }
    for line in HeaderParser().parsestr(metadata).get_all("Requires-Dist") or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            specs = sorted(_spec(specifier) for specifier in requirement.specifier)
            yield f"{canonicalize_name(requirement.name)} {','.join(specs)}".strip()


def _spec(specifier: Specifier) -> str:
    """Return conda's form: it writes ``==1.2.*`` without the signs."""
    if specifier.version.endswith(".*") and specifier.operator == "==":
        return specifier.version
    return f"{specifier.operator[:2]}{specifier.version}"
