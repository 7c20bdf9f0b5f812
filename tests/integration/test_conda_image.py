"""An image of conda packages: built by the native builder, read back file by file, and run without a daemon."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import rattler

from prebuilt.core.build_service import BuildRequest
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.lock import CondaPackage, Lock
from prebuilt.core.plan import plan_layers
from prebuilt.core.platforms import Platform
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.settings import Settings
from prebuilt.core.spec import PREFIX, BaseImage, ImageSpec
from prebuilt.lock.resolver import LockResolver
from prebuilt.native.builder import NativeBuilder
from prebuilt.oci.base import BaseImageLookup
from prebuilt.oci.containers import ContainerRun, open_engine
from prebuilt.oci.open import open_repository
from prebuilt.testing.base_image import make_base_image
from prebuilt.testing.conda_channel import CondaChannel
from prebuilt.testing.conda_samples import sample_channel
from prebuilt.testing.conformance.materials import RecordingProgress
from prebuilt.testing.image_tree import Tree, folder_tree, subtree, tree_differences
from prebuilt.testing.interpreter import Interpreter
from prebuilt.testing.validate import ImageReport, inspect_image, validate

pytestmark = pytest.mark.container

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
WANTED = ("greeter", "prefixed", "linked", "scripted", "large", "small-b")


@dataclass(frozen=True, kw_only=True)
class Bakery:
    """Everything that bakes an image of the sample channel."""

    folder: Path
    channel: CondaChannel
    settings: Settings

    def base(self, tag: str, platform: Platform, *, with_python: bool = False) -> BaseImage:
        """Return a base image made of this machine."""
        reference = make_base_image(self.folder / "base", tag=tag, platform=platform, with_python=with_python)
        return BaseImageLookup(self.settings, None, FolderDocuments(self.folder / "facts")).get(reference, platform)

    def lock(self, base: BaseImage, *names: str) -> Lock:
        """Return the lock of conda packages on a base."""
        requirements = Requirements(
            python=Interpreter.inspect().xy,
            target=Target(platform=base.platform),
            conda=dict.fromkeys(names, ""),
            channels=(self.channel.url,),
        )
        return LockResolver(self.settings).resolve(requirements.on(base))

    def bake(self, spec: ImageSpec, tag: str, progress: RecordingProgress) -> Descriptor:
        """Return the manifest of what was built into the layout ``images``."""
        request = BuildRequest(spec=spec, plan=plan_layers(spec), reference=f"{self.images}:{tag}")
        return NativeBuilder(self.settings).build(request, progress)

    @property
    def images(self) -> str:
        """The layout that is pushed to."""
        return f"oci:{self.folder / 'images'}"

    def report(self, manifest: Descriptor, base: BaseImage) -> ImageReport:
        """Return the report of an image that is valid."""
        lowest = inspect_image(open_repository(base.repository), base.digest)
        return validate(open_repository(self.images), manifest.digest, base=lowest, platform=base.platform)

    def output(self, manifest: Descriptor, *command: str) -> str:
        """Return what a command prints in an image."""
        printed = self.folder / "printed"
        with printed.open("w") as file:
            run = ContainerRun(image=f"{self.images}@{manifest.digest}", command=command)
            status = open_engine("rootless", self.settings).run(run, stdout=file, stderr=subprocess.STDOUT)
        assert status == 0, printed.read_text()
        return printed.read_text()


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    """Return a bakery with empty caches."""
    folder = tmp_path_factory.mktemp("bakery")
    settings = Settings({"METAFLOW_PREBUILT_CACHE_DIR": str(folder / "cache")}, {})
    return Bakery(folder=folder, channel=sample_channel(folder / "channel"), settings=settings)


@pytest.mark.parametrize("with_python", [True, False])
def test_an_image_of_conda_packages_runs(bakery: Bakery, *, with_python: bool) -> None:
    """Python, commands and prefixes are the environment's, whether the base has a Python or not."""
    base = bakery.base(f"python-{with_python}", AMD64, with_python=with_python)
    image = bakery.bake(ImageSpec(lock=bakery.lock(base, *WANTED), base=base), "runs", RecordingProgress())
    assert bakery.output(image, "greet") == "Good day\n"
    assert bakery.output(image, "prefixed") == f"{PREFIX}\n"
    code = "import sys, ssl, sqlite3, ctypes, greeter; print(sys.prefix, greeter.__file__.startswith(sys.prefix))"
    assert bakery.output(image, "python", "-c", code) == f"{PREFIX} True\n"


def test_the_image_is_what_rattler_installs(bakery: Bakery, tmp_path: Path) -> None:
    """File by file: contents, links and modes, for all packages together."""
    base = bakery.base("compared", AMD64)
    spec = ImageSpec(lock=bakery.lock(base, *WANTED), base=base, bytecode=False)
    report = bakery.report(bakery.bake(spec, "compared", RecordingProgress()), base)
    _install(bakery, spec.lock, tmp_path / "env", tmp_path / "cache")
    there = _installed_files(folder_tree(tmp_path / "env"))
    assert tree_differences(_installed_files(subtree(report.tree, PREFIX)), there) == []
    assert len(there) > 500


def test_post_link_scripts_are_named_and_not_run(bakery: Bakery) -> None:
    """One line says so; the script's file is there, its effect is not."""
    base, progress = bakery.base("scripted", AMD64), RecordingProgress()
    spec = ImageSpec(lock=bakery.lock(base, "scripted"), base=base, labels={"of": "this test"}, bytecode=False)
    tree = subtree(bakery.report(bakery.bake(spec, "scripted", progress), base).tree, PREFIX)
    assert [text for text in progress.texts if "post-link" in text and "scripted" in text]
    assert "share/scripted.txt" in tree
    assert "share/scripted-ran.txt" not in tree


def test_of_two_owners_the_later_wins_and_both_are_named(bakery: Bakery) -> None:
    """The order is that of the lock."""
    base, progress = bakery.base("owned", AMD64), RecordingProgress()
    spec = ImageSpec(lock=bakery.lock(base, "owner-one", "owner-two"), base=base, bytecode=False)
    image = bakery.bake(spec, "owned", progress)
    bakery.report(image, base)
    assert bakery.output(image, "cat", f"{PREFIX}/share/owned.txt") == "owner-two\n"
    assert [text for text in progress.texts if "owner-one" in text and "owner-two" in text]


def test_an_image_for_another_processor_is_built_here(bakery: Bakery) -> None:
    """Nothing of it is run: its Python is a dummy."""
    base = bakery.base("arm", ARM64)
    spec = ImageSpec(lock=bakery.lock(base, "greeter", "small-b", "large"), base=base, bytecode=False)
    report = bakery.report(bakery.bake(spec, "arm", RecordingProgress()), base)
    assert report.config.platform_name == "linux/arm64"
    subdirs = {package.subdir for package in spec.lock.packages if isinstance(package, CondaPackage)}
    assert subdirs == {"linux-aarch64", "noarch"}
    assert "lib/liblarge.so" in subtree(report.tree, PREFIX)


def _install(bakery: Bakery, lock: Lock, prefix: Path, cache: Path) -> None:
    """Install a lock's packages by rattler, with the prefix of images written into them."""
    names = [f"{package.name}=={package.version}" for package in lock.packages]

    async def install() -> None:
        records = await rattler.solve(
            [rattler.Channel(bakery.channel.url)],
            [rattler.MatchSpec(name) for name in names],
            platforms=["linux-64", "noarch"],
            virtual_packages=rattler.VirtualPackage.detect(),
        )
        await rattler.install(records, prefix, cache_dir=cache, alternative_target_prefix=PREFIX)

    asyncio.run(install())


def _installed_files(tree: Tree) -> Tree:
    """Return the files and links of packages: what installers note of themselves differs, and folders follow from files."""
    return {
        path: node
        for path, node in tree.items()
        if node.kind != "directory"
        and "__pycache__" not in path
        and not path.startswith(("conda-meta/", "CACHEDIR.TAG"))
    }
