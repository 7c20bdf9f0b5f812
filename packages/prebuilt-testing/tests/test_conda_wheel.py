"""Wheels become conda packages that solve and install as the wheels would."""

from __future__ import annotations

from pathlib import Path

import pytest

from prebuilt.core.platforms import Platform
from prebuilt.core.tree import BytesContent, FileEntry
from prebuilt.testing.conda_channel import build_channel
from prebuilt.testing.conda_package import CondaPackageSpec
from prebuilt.testing.conda_wheel import wheel_as_conda
from prebuilt.testing.python_index import make_wheel

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
COMMANDS = {"entry_points.txt": "[console_scripts]\nsay-it = demo.cli:main\n[other]\nx = y:z\n"}


def texts(spec: CondaPackageSpec) -> dict[str, str]:
    """Return the files of a package as text, by path."""
    return {
        entry.path: entry.content.data.decode()
        for entry in spec.files
        if isinstance(entry, FileEntry) and isinstance(entry.content, BytesContent)
    }


def test_a_pure_wheel_becomes_a_noarch_package(tmp_path: Path) -> None:
    """Its commands are left to the installer."""
    spec = wheel_as_conda(make_wheel(tmp_path, "De.mo", "1.2", dist_info=COMMANDS), python_xy="3.11", platform=AMD64)
    assert (spec.name, spec.version, spec.noarch, spec.entry_points) == (
        "de-mo",
        "1.2",
        "python",
        ("say-it = demo.cli:main",),
    )
    assert {path.split("/")[0] for path in texts(spec)} == {"site-packages"}
    assert build_channel(tmp_path / "channel", [spec]).package("de-mo").parent.name == "noarch"


def test_a_compiled_wheel_becomes_a_package_of_its_platform(tmp_path: Path) -> None:
    """It is for one Python, and brings scripts for its commands."""
    wheel = make_wheel(tmp_path, "demo", "1.2", tag="cp311-cp311-manylinux_2_17_aarch64", dist_info=COMMANDS)
    spec = wheel_as_conda(wheel, python_xy="3.11", platform=ARM64)
    assert (spec.subdir, spec.noarch, spec.depends) == ("linux-aarch64", None, ("python 3.11.*",))
    assert "lib/python3.11/site-packages/demo.py" in texts(spec)
    assert texts(spec)["bin/say-it"].splitlines() == [
        "#!@PREFIX@/bin/python",
        "import sys",
        "from demo.cli import main",
        "sys.exit(main())",
    ]


def test_files_outside_site_packages_go_where_an_installer_puts_them(tmp_path: Path) -> None:
    """Scripts get the environment's Python."""
    files = {"demo-1.data/scripts/run": "#!python\n", "demo-1.data/data/share/x": "x", "demo-1.data/purelib/y.py": "y"}
    found = texts(wheel_as_conda(make_wheel(tmp_path, "demo", "1", files=files), python_xy="3.11"))
    assert found["bin/run"] == "#!@PREFIX@/bin/python\n"
    assert found["share/x"] == "x"
    assert found["site-packages/y.py"] == "y"


@pytest.mark.parametrize(
    ("requires", "depends"),
    [
        ("Some.Thing", "some-thing"),
        ("a>=1,<2", "a <2,>=1"),
        ("a==1.*", "a 1.*"),
        ("a===1.5", "a ==1.5"),
        ("a~=1.4", "a ~=1.4"),
        ("a; python_version < '3.12'", "a"),
        ("a; python_version < '3.11'", None),
        ("a; sys_platform == 'win32'", None),
        ("a; platform_machine == 'x86_64'", "a"),
        ("a; extra == 'more'", None),
    ],
)
def test_needs_are_those_of_the_target(tmp_path: Path, requires: str, depends: str | None) -> None:
    """Markers are evaluated for it; extras are not asked for."""
    wheel = make_wheel(tmp_path, "demo", "1", requires=[requires])
    assert wheel_as_conda(wheel, python_xy="3.11", platform=AMD64).depends[1:] == ((depends,) if depends else ())
