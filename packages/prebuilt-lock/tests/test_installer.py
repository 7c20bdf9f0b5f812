"""One package to its files, whole: the same bytes whatever the machine was like."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from prebuilt.core.errors import CancelledError, DigestMismatchError, SettingError
from prebuilt.core.lock import CondaPackage, Lock, LockedPackage, Wheel
from prebuilt.core.platforms import Platform
from prebuilt.core.requirements import Target
from prebuilt.core.settings import Settings
from prebuilt.core.tree import DirectoryEntry, FileEntry
from prebuilt.lock.bytecode import BytecodeCompiler
from prebuilt.lock.fetch import PackageFiles
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.install_target import InstallTarget
from prebuilt.lock.installer import PackageInstaller, link_scripts_setting
from prebuilt.lock.wheelhouse import WheelHouse
from prebuilt.testing.conda_channel import CondaChannel, serve_channel
from prebuilt.testing.python_index import make_wheel

MODULES = {f"demo/module_{number}.py": f"x = {{'a', 'b', {number}}}\ny = 1 in {{'a', 'b'}}\n" for number in range(30)}

Fingerprint = Callable[..., str]


@pytest.fixture
def fingerprint(tmp_path: Path, target: InstallTarget) -> Iterator[Fingerprint]:
    """Give a function that installs a package and hashes everything about its files."""
    with PackageFiles(Settings({}, {}), IndexConfig(), tmp_path / "cache") as files:

        def install(package: LockedPackage, into: InstallTarget = target, workers: int = 1) -> str:
            digest = hashlib.sha256()
            with BytecodeCompiler(Path(sys.executable), into.python_xy, workers=workers) as compiler:
                installer = PackageInstaller(files, into, compiler=compiler, work_dir=tmp_path / f"work-{workers}")
                with installer.entries(package) as entries:
                    for entry in entries:
                        digest.update(entry.path.encode())
                        if isinstance(entry, FileEntry):
                            with entry.content.open() as stream:
                                digest.update(bytes([entry.executable]) + stream.read())
                        elif not isinstance(entry, DirectoryEntry):
                            digest.update(entry.target.encode())
            return digest.hexdigest()

        yield install


@pytest.fixture
def demo(tmp_path: Path) -> Wheel:
    """Give a wheel that lies in the wheelhouse."""
    made = make_wheel(
        tmp_path, "demo", "1.0", files=MODULES, dist_info={"entry_points.txt": "[console_scripts]\nd = demo:d\n"}
    )
    return WheelHouse(tmp_path / "cache" / "wheels").add(made)


def test_a_wheel_gives_the_same_files_each_time(fingerprint: Fingerprint, demo: Wheel):
    """Whatever the umask and the number of compiling processes."""
    first = fingerprint(demo, workers=1)
    before = os.umask(0o077)
    try:
        second = fingerprint(demo, workers=3)
    finally:
        os.umask(before)
    assert first == second


def test_a_conda_package_gives_the_same_files_each_time(
    fingerprint: Fingerprint, conda_package: Callable[..., CondaPackage]
):
    """Whatever the umask and the folder it was unpacked in."""
    first = fingerprint(conda_package("idna"), workers=1)
    before = os.umask(0o077)
    try:
        second = fingerprint(conda_package("idna"), workers=2)
    finally:
        os.umask(before)
    assert first == second


def test_a_downloaded_conda_package_is_installed(
    fingerprint: Fingerprint, conda_package: Callable[..., CondaPackage], channel: CondaChannel
):
    """From a server as from a folder: it is unpacked where it was downloaded to, under a name of our own."""
    with serve_channel(channel) as served:
        assert len(fingerprint(conda_package("idna", url=served.url))) == 64


def test_another_prefix_gives_other_files(fingerprint: Fingerprint, demo: Wheel, target: InstallTarget):
    """The prefix is in scripts and in bytecode: what holds for one prefix is not taken for another."""
    assert fingerprint(demo) != fingerprint(demo, replace(target, prefix="/somewhere/else"))


def test_the_files_of_a_context_are_gone_after_it(
    tmp_path: Path, target: InstallTarget, conda_package: Callable[..., CondaPackage]
):
    """Disk is given back as soon as a package has become a layer, also where that failed."""
    with PackageFiles(Settings({}, {}), IndexConfig(), tmp_path / "cache") as files:
        installer = PackageInstaller(files, target, compiler=None, work_dir=tmp_path / "work")
        with pytest.raises(CancelledError), installer.entries(conda_package("linked")) as entries:
            assert entries
            raise CancelledError("go on", reason="other work failed")
        with pytest.raises(DigestMismatchError):
            installer.entries(replace(conda_package("linked"), sha256="0" * 64)).__enter__()
    assert list((tmp_path / "work").iterdir()) == []


def test_link_scripts_are_noted_once(tmp_path: Path, target: InstallTarget, conda_package: Callable[..., CondaPackage]):
    """However many images have the package, one line is enough."""
    notes: list[str] = []
    with PackageFiles(Settings({}, {}), IndexConfig(), tmp_path / "cache") as files:
        installer = PackageInstaller(files, target, compiler=None, work_dir=tmp_path / "work", note=notes.append)
        for _ in range(2):
            with installer.entries(conda_package("scripted")):
                pass
    assert notes == ["prebuilt: the post-link script of conda package scripted is not run"]


def test_the_setting_for_link_scripts_is_checked():
    """A typo is told, not read as the default."""
    assert link_scripts_setting(Settings({"METAFLOW_PREBUILT_LINK_SCRIPTS": "error"}, {})) == "error"
    with pytest.raises(SettingError, match="METAFLOW_PREBUILT_LINK_SCRIPTS"):
        link_scripts_setting(Settings({"METAFLOW_PREBUILT_LINK_SCRIPTS": "run"}, {}))


@pytest.mark.parametrize("stated", ["lib/python3.13t/site-packages", None])
def test_a_targets_site_packages_is_what_its_python_says(
    conda_package: Callable[..., CondaPackage], stated: str | None
):
    """Pythons without the GIL have theirs elsewhere, and say so in their package."""
    lock = Lock(
        req_id="0" * 40,
        target=Target(platform=Platform(os="linux", architecture="arm64")),
        python_version="3.13.1",
        python_source="conda",
        packages=(replace(conda_package("idna"), python_site_packages_path=stated),),
        resolved_at=datetime(2024, 1, 1, tzinfo=timezone.utc),
        resolver="by hand",
    )
    target = InstallTarget.of(lock)
    assert target.site_packages == (stated or "lib/python3.13/site-packages")
    assert target.platform == lock.target.platform
    assert target.in_prefix(target.in_tree("bin/python")) == "bin/python"


def test_loading_the_installer_loads_nothing_heavy():
    """The second deploy asks these modules little, and must not wait for rattler or an HTTP client."""
    program = (
        "import sys, prebuilt.lock.installer, prebuilt.lock.materialise, prebuilt.lock.interpreter;"
        "print([m for m in ('rattler', 'httpx2', 'isal', 'asyncio') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
