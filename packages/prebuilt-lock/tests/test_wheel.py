"""Wheels as files: places, scripts, RECORD, and what is refused."""

from __future__ import annotations

import base64
import csv
import hashlib
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.errors import PackageError
from prebuilt.core.lock import Wheel
from prebuilt.core.tree import Entry
from prebuilt.lock.install_target import InstallTarget
from prebuilt.lock.wheel import wheel_entries
from prebuilt.lock.zip_archive import ZipArchive
from prebuilt.testing.python_index import make_wheel

Read = Callable[[Iterable[Entry], InstallTarget], dict[str, Any]]
Install = Callable[..., dict[str, Any]]


@pytest.fixture
def installed(target: InstallTarget, tmp_path: Path, listing: Read):
    """Give a function that makes a wheel and reads what it becomes."""

    def install(into: InstallTarget = target, **parts: Any) -> dict[str, Any]:
        path = make_wheel(tmp_path, "demo", "1.0", **parts)
        with ZipArchive(path) as archive:
            return listing(wheel_entries(archive, _locked(path), into), into)

    return install


def _locked(path: Path) -> Wheel:
    return Wheel(name="demo", version="1.0", filename=path.name, url="", sha256="0" * 64, size_bytes=1, role="user")


def _entries_of(path: Path, target: InstallTarget) -> list[Entry]:
    with ZipArchive(path) as archive:
        return wheel_entries(archive, _locked(path), target)


def test_modules_go_to_site_packages_sorted_and_as_they_are(installed: Install, target: InstallTarget):
    """The files of a wheel are at their place with their bytes, in the order of their paths."""
    files = installed(files={"demo/__init__.py": "x = 1\n", "demo/data.bin": b"\0\1"})
    assert files[f"{target.site_packages}/demo/__init__.py"] == b"x = 1\n"
    assert files[f"{target.site_packages}/demo/data.bin"] == b"\0\1"
    assert list(files) == sorted(files)


def test_the_data_folder_is_spread(installed: Install, target: InstallTarget):
    """Each scheme of a .data folder has its place below the prefix."""
    files = installed(
        files={
            "demo-1.0.data/purelib/pure.py": "",
            "demo-1.0.data/platlib/plat.py": "",
            "demo-1.0.data/headers/demo.h": "",
            "demo-1.0.data/data/share/demo.txt": "",
            "demo-1.0.data/scripts/tool": "#!/bin/sh\n",
        }
    )
    assert {path for path in files if "dist-info" not in path} == {
        f"{target.site_packages}/pure.py",
        f"{target.site_packages}/plat.py",
        f"include/site/python{target.python_xy}/demo/demo.h",
        "share/demo.txt",
        "bin/tool",
    }


def test_a_script_gets_the_targets_interpreter(installed: Install):
    """``#!python`` becomes the interpreter in the prefix; a script for something else, or a binary, stays as it is."""
    files = installed(
        files={
            "demo-1.0.data/scripts/ours": "#!python\nprint(1)\n",
            "demo-1.0.data/scripts/windowed": "#!pythonw\nprint(2)\n",
            "demo-1.0.data/scripts/shell": "#!/bin/sh\n",
            "demo-1.0.data/scripts/binary": b"\x7fELF",
        }
    )
    assert files["bin/ours"] == b"#!/opt/prebuilt/env/bin/python\nprint(1)\n"
    assert files["bin/windowed"] == b"#!/opt/prebuilt/env/bin/python\nprint(2)\n"
    assert files["bin/shell"] == b"#!/bin/sh\n"
    assert files["bin/binary"] == b"\x7fELF"


def test_what_is_in_bin_is_executable_and_modules_are_not(target: InstallTarget, tmp_path: Path):
    """Scripts are executable whatever the archive says; elsewhere the archive's bit counts."""
    path = make_wheel(
        tmp_path,
        "demo",
        "1.0",
        files={"demo/helper": b"\x7fELF", "demo/__init__.py": "", "demo-1.0.data/scripts/tool": "x"},
        dist_info={"entry_points.txt": "[console_scripts]\ndemo = demo:main\n"},
    )
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: (info, archive.read(info)) for info in archive.infolist()}
    members["demo/helper"][0].external_attr = 0o100755 << 16
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in members.values():
            archive.writestr(info, data)
    executable = {target.in_prefix(entry.path) for entry in _entries_of(path, target) if entry.executable}
    assert executable == {"bin/demo", "bin/tool", f"{target.site_packages}/demo/helper"}


def test_record_lists_every_file_with_its_hash(installed: Install, target: InstallTarget):
    """RECORD describes what is installed, generated files too, sorted; itself without a hash."""
    files = installed(
        files={"demo.py": "x = 1\n", "demo-1.0.data/scripts/tool": "#!python\n"},
        dist_info={"entry_points.txt": "[console_scripts]\ndemo = demo:main\n"},
    )
    folder = f"{target.site_packages}/demo-1.0.dist-info"
    rows = list(csv.reader(files[f"{folder}/RECORD"].decode().splitlines()))
    assert rows == sorted(rows)
    up = "../../../"
    by_path = {
        path.removeprefix(up) if path.startswith(up) else f"{target.site_packages}/{path}": row for path, *row in rows
    }
    assert set(by_path) == set(files)
    assert by_path.pop(f"{folder}/RECORD") == ["", ""]
    for path, (digest, size) in by_path.items():
        expected = base64.urlsafe_b64encode(hashlib.sha256(files[path]).digest()).rstrip(b"=").decode()
        assert (digest, size) == (f"sha256={expected}", str(len(files[path])))


def test_the_installer_is_named(installed: Install, target: InstallTarget):
    """Tools that read INSTALLER see who put the files there."""
    assert installed()[f"{target.site_packages}/demo-1.0.dist-info/INSTALLER"] == b"metaflow-prebuilt\n"


def test_bytecode_in_a_wheel_is_left_out(installed: Install):
    """It is bound to a time that does not survive, and was made by some other Python."""
    files = installed(files={"demo.py": "", "__pycache__/demo.cpython-311.pyc": b"x", "kept.pyc": b"sourceless"})
    assert not any("__pycache__" in path for path in files)
    assert any(path.endswith("kept.pyc") for path in files)


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil", "demo/../../evil", "demo-1.0.data/data/../../evil"])
def test_a_path_that_leads_out_of_the_prefix_is_refused(target: InstallTarget, tmp_path: Path, name: str):
    """The error names the wheel and the path, and nothing is read."""
    path = make_wheel(tmp_path, "demo", "1.0", files={name: "evil"})
    with pytest.raises(PackageError, match=r"install demo-1\.0-py3-none-any\.whl: its path .*evil"):
        _entries_of(path, target)


def test_a_file_that_is_there_twice_is_refused(target: InstallTarget, tmp_path: Path):
    """Two files of one name would be two truths."""
    path = make_wheel(tmp_path, "demo", "1.0")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("demo.py", "other")
    with pytest.raises(PackageError, match=r"it has demo\.py twice"):
        _entries_of(path, target)


def test_an_unknown_place_in_the_data_folder_is_refused(target: InstallTarget, tmp_path: Path):
    """Nobody can say where such a file belongs."""
    path = make_wheel(tmp_path, "demo", "1.0", files={"demo-1.0.data/elsewhere/x": "x"})
    with pytest.raises(PackageError, match="nothing says where"):
        _entries_of(path, target)


def test_a_future_version_of_the_format_is_refused(target: InstallTarget, tmp_path: Path):
    """A wheel of format 2 may mean something else by the same files."""
    path = make_wheel(tmp_path, "demo", "1.0", dist_info={"WHEEL": "Wheel-Version: 2.0\n"})
    with pytest.raises(PackageError, match=r"Wheel-Version is '2\.0'"):
        _entries_of(path, target)


@pytest.mark.parametrize(
    ("members", "reason"),
    [({"demo.py": ""}, "0 .dist-info"), ({"d-1.dist-info/WHEEL": "Wheel-Version: 1.0"}, "no RECORD")],
)
def test_a_zip_file_that_is_no_wheel_is_refused(
    target: InstallTarget, tmp_path: Path, members: dict[str, str], reason: str
):
    """What makes a wheel is missing: the error says what."""
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    with pytest.raises(PackageError, match=reason):
        _entries_of(path, target)
