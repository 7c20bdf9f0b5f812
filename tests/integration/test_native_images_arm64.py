"""Images for linux/arm64 from a machine that cannot run them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.lock import CondaPackage
from prebuilt.core.platforms import Platform
from prebuilt.core.spec import PREFIX
from prebuilt.core.tree import BytesContent, FileEntry
from prebuilt.oci.layer import read_layer
from prebuilt.oci.layout import LayoutRepository
from prebuilt.oci.reference import parse_reference
from prebuilt.testing.base_image import BaseContents, push_base_image
from prebuilt.testing.conda_package import CondaPackageSpec
from prebuilt.testing.engines.wanted import wanted_program
from prebuilt.testing.image_tree import subtree
from prebuilt.testing.validate import validate

pytestmark = pytest.mark.layout

ARM64 = Platform.parse("linux/arm64")
XY = f"{sys.version_info[0]}.{sys.version_info[1]}"
TAG = sys.implementation.cache_tag
MACHINES = {"linux-64": 62, "linux-aarch64": 183}  # Source: <elf.h>, EM_X86_64 and EM_AARCH64


def elf(machine: int) -> bytes:
    """Return the head of a program for a machine, as it is in every library."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 3, machine, 1) + bytes(40) + b"content\0" * 100


@dataclass(frozen=True)
class Cross:
    """A bakery for arm64, what it takes from, and the report of its base."""

    bakery: Any
    channels: list[str]
    index: str
    base: Any

    def bake(self, **asked: Any) -> tuple[Any, Any]:
        """Return the image and its report."""
        image = self.bakery.bake(channels=self.channels, index=self.index, **asked)
        return image, image.validate(self.base)


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory, make_bakery: Callable[..., Any], pantry: Any) -> Cross:
    """An index image of both platforms as the base, and packages with compiled code for both."""
    folder = tmp_path_factory.mktemp("cross")
    layout = LayoutRepository(folder / "base")
    platforms = [Platform.parse("linux/amd64"), ARM64]
    base = push_base_image(layout, platforms=platforms, contents=BaseContents())
    for subdir, machine in MACHINES.items():
        files = (FileEntry(path="lib/libcompiled-code.so", content=BytesContent(elf(machine))),)
        pantry.channel.add(CondaPackageSpec(name="code", version="1.0", subdir=subdir, files=files))
        arch = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}[subdir]
        pantry.add_wheel(
            "extension",
            files={
                f"extension/_code.cpython-{XY.replace('.', '')}-{arch}-linux-gnu.so": elf(machine),
                "extension/more.py": "A = 1\n",
            },
            tag=f"cp{XY.replace('.', '')}-cp{XY.replace('.', '')}-manylinux_2_17_{arch}",
        )
    bakery = make_bakery(folder / "machine", f"oci:{folder / 'images'}", base=base, platform="linux/arm64")
    report = validate(layout, parse_reference(base).identifier, platform=ARM64)
    return Cross(bakery, [pantry.channel.url], pantry.index.url, report)


def machines(image: Any, report: Any, base: Any) -> dict[str, int]:
    """Return the machine of each ELF file in the layers that are ours."""
    found = {}
    for layer in report.manifest.layers[len(base.layers) :]:
        with image.repository.open_blob(layer) as chunks:
            for member in read_layer(chunks, layer.media_type):
                head = member.content.read(20) if member.content is not None else b""
                if head.startswith(b"\x7fELF"):
                    found[member.info.name] = struct.unpack_from("<H", head, 18)[0]
    return found


def test_wheels_for_arm64(cross: Cross) -> None:
    """The arm64 wheel is taken and the pure ones, on the base's Python; bytecode is there, made by this machine's interpreter."""
    image, report = cross.bake(pypi={"extension": "", "talker": ""})
    assert image.lock.python_source == "base"
    assert {wheel.filename for wheel in image.lock.packages if wheel.name == "extension"} == {
        f"extension-1.0-cp{XY.replace('.', '')}-cp{XY.replace('.', '')}-manylinux_2_17_aarch64.whl"
    }
    found = machines(image, report, cross.base)
    assert len(found) == 1
    assert set(found.values()) == {MACHINES["linux-aarch64"]}
    site_packages = subtree(report.tree, f"{PREFIX}/lib/python{XY}/site-packages")
    assert {f"extension/__pycache__/more.{TAG}.pyc", f"talker/__pycache__/cli.{TAG}.pyc"} <= site_packages.keys()
    assert "bin/talk" in subtree(report.tree, PREFIX)


def test_conda_packages_for_arm64(cross: Cross) -> None:
    """All are of linux-aarch64 or noarch, Python too; bytecode is there."""
    image, report = cross.bake(conda={"code": "", "greeter": "", "small-b": "", "large": "", "requests": ""})
    subdirs = {package.subdir for package in image.lock.packages if isinstance(package, CondaPackage)}
    assert image.lock.python_source == "conda"
    assert subdirs == {"linux-aarch64", "noarch"}
    assert machines(image, report, cross.base) == {
        f"{PREFIX.lstrip('/')}/lib/libcompiled-code.so": MACHINES["linux-aarch64"]
    }
    environment = subtree(report.tree, PREFIX)
    for module in (
        "site-packages/greeter/__pycache__/__init__",
        "site-packages/requests/__pycache__/__init__",
        "__pycache__/os",
    ):
        assert f"lib/python{XY}/{module}.{TAG}.pyc" in environment


def test_conda_and_wheels_for_arm64(cross: Cross, tmp_path: Path) -> None:
    """Both agree on the platform, and so do the config, and skopeo."""
    image, report = cross.bake(conda={"code": ""}, pypi={"extension": ""})
    assert set(machines(image, report, cross.base).values()) == {MACHINES["linux-aarch64"]}
    assert report.config.platform_name == "linux/arm64"
    wanted_program("skopeo", brought_by="apt-get install skopeo")
    layout = image.reference.partition("@")[0]
    index = json.loads((Path(layout.removeprefix("oci:")) / "index.json").read_bytes())
    [tag] = [
        entry["annotations"]["org.opencontainers.image.ref.name"]
        for entry in index["manifests"]
        if entry["digest"] == image.digest
    ]
    told = subprocess.run(["skopeo", "inspect", f"{layout}:{tag}"], check=True, capture_output=True, text=True).stdout
    assert json.loads(told)["Architecture"] == "arm64"


def test_the_platform_is_part_of_the_image_and_not_of_its_pure_packages(cross: Cross, pantry: Any) -> None:
    """The same requirements for amd64 take the other files."""
    from dataclasses import replace

    other = Cross(replace(cross.bakery, platform="linux/amd64"), cross.channels, cross.index, cross.base)
    image = other.bakery.bake(channels=cross.channels, index=cross.index, conda={"code": ""}, pypi={"extension": ""})
    report = image.validate()
    assert set(machines(image, report, cross.base).values()) == {MACHINES["linux-64"]}
    assert report.config.platform_name == "linux/amd64"
