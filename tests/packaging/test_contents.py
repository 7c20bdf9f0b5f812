"""What is in the files that an index would get."""

from __future__ import annotations

import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import PurePosixPath

import pytest

from tools.packages import Package, all_packages
from tools.wheels import Built

PACKAGES = all_packages()
each_package = pytest.mark.parametrize("package", PACKAGES.values(), ids=list(PACKAGES))


def _names_in_wheel(built: Built) -> list[str]:
    with zipfile.ZipFile(built.wheel) as wheel:
        return [name for name in wheel.namelist() if not name.endswith("/")]


def _read_from_dist_info(built: Built, file: str) -> str:
    with zipfile.ZipFile(built.wheel) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(f".dist-info/{file}"))
        return wheel.read(name).decode()


def _metadata(built: Built) -> Message:
    return Parser().parsestr(_read_from_dist_info(built, "METADATA"))


@each_package
def test_holds_every_file_of_its_sources_and_no_other(package: Package, built: dict[str, Built]) -> None:
    """A wheel has the files of src/, and beside them only its own dist-info."""
    source = package.folder / "src"
    wanted = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    wanted = {name for name in wanted if "__pycache__" not in name}
    held = {name for name in _names_in_wheel(built[package.short]) if ".dist-info/" not in name}
    assert held == wanted


@each_package
def test_puts_nothing_into_its_namespace(package: Package, built: dict[str, Built]) -> None:
    """No wheel has a file above its own package: one would make every other package unimportable."""
    own = PurePosixPath(*package.module.split("."))
    held = {PurePosixPath(name) for name in _names_in_wheel(built[package.short]) if ".dist-info/" not in name}
    assert all(path.is_relative_to(own) for path in held)


@each_package
def test_is_typed(package: Package, built: dict[str, Built]) -> None:
    """Type checkers take the annotations of each package."""
    assert f"{package.module.replace('.', '/')}/py.typed" in _names_in_wheel(built[package.short])


@each_package
def test_brings_its_licence(package: Package, built: dict[str, Built]) -> None:
    """Each wheel carries the text of its licence and names it."""
    assert "Apache License" in _read_from_dist_info(built[package.short], "licenses/LICENSE")
    assert _metadata(built[package.short])["License-Expression"] == "Apache-2.0"


@each_package
def test_says_what_it_is(package: Package, built: dict[str, Built]) -> None:
    """The page that an index makes has a summary, a description and the version of the sources."""
    said = _metadata(built[package.short])
    assert said["Version"] == package.version
    assert said["Summary"] == package.project["description"]
    assert said["Requires-Python"] == ">=3.10"
    assert f"# {package.name}" in str(said.get_payload())


@each_package
def test_needs_its_neighbours_by_range(package: Package) -> None:
    """No package pins another to one version: each is released by itself."""
    neighbours = {other.name for other in PACKAGES.values()}
    for need in package.dependencies:
        if need.startswith(tuple(neighbours)):
            assert ">=" in need
            assert ",<" in need
            assert "==" not in need


@each_package
def test_lists_its_plugins_where_they_are(package: Package) -> None:
    """Entry points of a package lead into the package itself."""
    for group, points in package.project.get("entry-points", {}).items():
        assert group in {f"metaflow_prebuilt.{kind}" for kind in ("build_services", "image_registries", "logins")}
        assert all(target.startswith(f"{package.module}") for target in points.values())


@each_package
def test_sdist_can_be_tested(package: Package, built: dict[str, Built]) -> None:
    """Whoever repackages a source distribution finds the tests, the licence and the changelog in it."""
    with tarfile.open(built[package.short].sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml"} <= names
    assert any(name.startswith("tests/test_") for name in names)


@each_package
def test_only_the_extension_claims_a_top_level(package: Package, built: dict[str, Built]) -> None:
    """Metaflow finds extensions through top_level.txt; prebuilt itself belongs to no single package."""
    claims = [name for name in _names_in_wheel(built[package.short]) if name.endswith("/top_level.txt")]
    if package.short == "metaflow":
        assert _read_from_dist_info(built[package.short], "top_level.txt").split() == ["metaflow_extensions"]
    else:
        assert not claims
