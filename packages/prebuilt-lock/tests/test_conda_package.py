"""Conda packages as files: prefixes, links, entry points, records."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.errors import PackageError
from prebuilt.core.lock import CondaPackage
from prebuilt.core.tree import Entry, FileEntry
from prebuilt.lock.conda_package import conda_entries, link_scripts
from prebuilt.lock.install_target import InstallTarget
from prebuilt.testing.conda_channel import CondaChannel

Read = Callable[[Iterable[Entry], InstallTarget], dict[str, Any]]
Install = Callable[..., list[Entry]]


@pytest.fixture
def installed(
    channel: CondaChannel,
    conda_package: Callable[..., CondaPackage],
    target: InstallTarget,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., list[Entry]]:
    """Give a function that installs one package of the channel."""

    def install(package: CondaPackage, into: InstallTarget = target) -> list[Entry]:
        archive = channel.folder / package.subdir / package.filename
        return conda_entries(archive, package, into, tmp_path_factory.mktemp("work"))

    return install


def test_the_prefix_is_written_into_text_binaries_and_scripts(
    installed: Install, conda_package: Callable[..., CondaPackage], listing: Read, target: InstallTarget
):
    """Files hold the prefix of the image, wherever they were installed; a binary keeps its length."""
    files = listing(installed(conda_package("prefixed")), target)
    assert files["etc/prefixed.conf"] == b"root = /opt/prebuilt/env\nshare = /opt/prebuilt/env/share\n"
    assert files["bin/prefixed"].startswith(b"#!/opt/prebuilt/env/bin/python\n")
    assert b"\0/opt/prebuilt/env/share\0" in files["lib/libprefixed.so"]


def test_executables_stay_executable_and_other_modes_do_not_matter(
    installed: Install, conda_package: Callable[..., CondaPackage], target: InstallTarget
):
    """Only the execute bit of a mode survives."""
    entries = installed(conda_package("prefixed"))
    executable = {target.in_prefix(e.path) for e in entries if isinstance(e, FileEntry) and e.executable}
    assert executable == {"bin/prefixed", "lib/libprefixed.so"}


def test_links_stay_links(
    installed: Install, conda_package: Callable[..., CondaPackage], listing: Read, target: InstallTarget
):
    """Links to files, folders and nothing come through as they are, with nothing of what they point at."""
    files = listing(installed(conda_package("linked")), target)
    assert files["share/linked/file"] == "real.txt"
    assert files["share/linked-folder"] == "linked"
    assert files["share/linked/nothing"] == "not-there"
    assert not any(path.startswith("share/linked-folder/") for path in files)


def test_a_noarch_python_package_needs_no_python_to_be_installed(
    installed: Install, conda_package: Callable[..., CondaPackage], listing: Read, target: InstallTarget
):
    """Its files go to the target's site-packages, its entry points become scripts for the target's Python."""
    package = conda_package("idna")
    files = listing(installed(package), target)
    assert f"{target.site_packages}/idna/__init__.py" in files
    assert not any(path.startswith("lib/") and "site-packages" not in path for path in files)


def test_an_entry_point_of_a_noarch_package_runs_the_targets_python(
    channel: CondaChannel, target: InstallTarget, listing: Read, tmp_path: Path
):
    """The script's first line names the interpreter in the image, and the script is executable."""
    archive = channel.package("greeter", "1.0")
    package = CondaPackage(
        name="greeter",
        version="1.0",
        build=archive.name.removesuffix(".conda").rsplit("-", 1)[1],
        build_number=0,
        subdir="noarch",
        url=f"{channel.url}/noarch/{archive.name}",
        sha256="0" * 64,
        size_bytes=archive.stat().st_size,
        role="user",
        noarch="python",
        depends=("python >=3.8",),
    )
    entries = conda_entries(archive, package, target, tmp_path)
    script = listing(entries, target)["bin/greet"]
    assert script.startswith(f"#!/opt/prebuilt/env/bin/python{target.python_xy}\n".encode())
    assert next(e for e in entries if e.path.endswith("bin/greet")).executable


def test_a_package_of_another_platform_is_installed_on_any_host(
    installed: Install, conda_package: Callable[..., CondaPackage], listing: Read, target: InstallTarget
):
    """A linux-aarch64 package becomes files on whatever machine this is."""
    arm = replace(target, platform=target.platform.parse("linux/arm64"))
    files = listing(installed(conda_package("small-b", "linux-aarch64"), arm), target)
    assert files["lib/libsmall-b.so"] == "libsmall-b.so.1.0"


def test_a_record_names_the_package_and_nothing_of_this_machine(
    installed: Install,
    conda_package: Callable[..., CondaPackage],
    listing: Read,
    target: InstallTarget,
    channel: CondaChannel,
):
    """Scanners, and conda itself, find name, version, files and the locked URL; no local path, no time, no user."""
    package = replace(conda_package("prefixed"), url="https://channel.example/c/linux-64/prefixed-1.0-0.conda")
    files = listing(installed(package), target)
    (name,) = (path for path in files if path.startswith("conda-meta/"))
    record = json.loads(files[name])
    assert (record["name"], record["version"], record["url"]) == ("prefixed", "1.0", package.url)
    assert record["channel"] == "https://channel.example/c"
    assert record["files"] == ["bin/prefixed", "etc/prefixed.conf", "lib/libprefixed.so"]
    assert str(channel.folder).encode() not in files[name]
    assert b"file://" not in files[name]


def test_only_the_packages_own_files_and_record_come_out(
    installed: Install, conda_package: Callable[..., CondaPackage], listing: Read, target: InstallTarget
):
    """The bookkeeping of rattler in a prefix is no part of a package."""
    files = listing(installed(conda_package("small-c")), target)
    assert sorted(files) == ["conda-meta/small-c-1.0-0.json", "lib/libsmall-c.so", "lib/libsmall-c.so.1.0"]


def test_the_bytes_do_not_depend_on_umask_or_folder(
    installed: Install, conda_package: Callable[..., CondaPackage], listing: Read, target: InstallTarget
):
    """Two installs, in two folders and under two umasks, give equal trees."""
    package = conda_package("prefixed")
    before = os.umask(0o077)
    try:
        first = installed(package)
    finally:
        os.umask(before)
    second = installed(package)
    assert listing(first, target) == listing(second, target)
    assert [getattr(e, "executable", None) for e in first] == [getattr(e, "executable", None) for e in second]


def test_link_scripts_are_found_and_not_run(
    installed: Install, conda_package: Callable[..., CondaPackage], listing: Read, target: InstallTarget
):
    """The script is a file like any other; what it would have made is not there."""
    package = conda_package("scripted")
    entries = installed(package)
    assert link_scripts(package, entries, target) == ["post-link"]
    assert "share/scripted-ran.txt" not in listing(entries, target)


def test_a_damaged_archive_is_named(conda_package: Callable[..., CondaPackage], target: InstallTarget, tmp_path: Path):
    """Bytes that are no package give an error with the file's name."""
    package = conda_package("linked")
    (tmp_path / package.filename).write_bytes(b"no package")
    with pytest.raises(PackageError, match=r"install linked-1\.0-0\.conda"):
        conda_entries(tmp_path / package.filename, package, target, tmp_path / "work")


def test_a_tar_bz2_package_is_installed_as_well(
    conda_package: Callable[..., CondaPackage], target: InstallTarget, listing: Read, tmp_path: Path
):
    """The older of the two formats works."""
    archive = tmp_path / "old-1.0-0.tar.bz2"
    index = {"name": "old", "version": "1.0", "build": "0", "build_number": 0, "depends": [], "subdir": "linux-64"}
    paths = {"paths": [{"_path": "share/old.txt", "path_type": "hardlink"}], "paths_version": 1}
    with tarfile.open(archive, "w:bz2") as tar:
        for name, data in (
            ("info/index.json", json.dumps(index).encode()),
            ("info/paths.json", json.dumps(paths).encode()),
            ("share/old.txt", b"old\n"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    package = replace(conda_package("linked"), name="old", url="https://channel.example/linux-64/old-1.0-0.tar.bz2")
    files = listing(conda_entries(archive, package, target, tmp_path / "work"), target)
    assert files["share/old.txt"] == b"old\n"
    assert "conda-meta/old-1.0-0.json" in files
