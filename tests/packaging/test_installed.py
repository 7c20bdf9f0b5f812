"""What works once a wheel is installed in an environment of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.packages import Package, all_packages, closure
from tools.wheels import Built

PACKAGES = all_packages()
IMPORT_ALL = """
import importlib, pkgutil
package = importlib.import_module({module!r})
names = [each.name for each in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""


@pytest.mark.parametrize("package", PACKAGES.values(), ids=list(PACKAGES))
def test_works_alone(
    package: Package, built: dict[str, Built], install: Callable[..., Path], run_in: Callable[[Path, str], str]
) -> None:
    """Each module of a package imports where nothing is installed but what the package declares.

    Some engines of prebuilt-testing complete servers that are extras; what users install works without any.
    """
    extras = package.project.get("optional-dependencies", {}) if package.short == "testing" else {}
    wheels = (built[need.short].wheel for need in closure([package], PACKAGES.values()))
    python = install(*wheels, *(need for needs in extras.values() for need in needs))
    assert int(run_in(python, IMPORT_ALL.format(module=package.module))) > 0
    subprocess.run(["uv", "pip", "check", "--quiet", "--python", python], check=True)


def test_core_needs_nothing(built: dict[str, Built], install: Callable[..., Path]) -> None:
    """prebuilt-core brings no other distribution."""
    python = install(built["core"].wheel)
    listed = subprocess.run(
        ["uv", "pip", "list", "--format=json", "--python", python], check=True, text=True, capture_output=True
    ).stdout
    assert [each["name"] for each in json.loads(listed)] == ["prebuilt-core"]


def test_packages_share_the_namespace(
    built: dict[str, Built], install: Callable[..., Path], run_in: Callable[[Path, str], str]
) -> None:
    """All packages install side by side, and removing one leaves the others importable."""
    python = install(*(each.wheel for each in built.values()))
    subprocess.run(["uv", "pip", "uninstall", "--quiet", "--python", python, "prebuilt-native"], check=True)
    assert run_in(python, "import prebuilt.core, prebuilt.oci, prebuilt.lock; print('ok')") == "ok\n"
