"""A channel with one package for everything that a conda package can be, and the smallest ones that Metaflow's runtime needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prebuilt.core.tree import SymlinkEntry
from prebuilt.testing.conda_channel import CondaChannel, build_channel
from prebuilt.testing.conda_package import PREFIX_MARK, CondaPackageSpec, binary_file, text_file
from prebuilt.testing.conda_python import dummy_python_package, python_package
from prebuilt.testing.interpreter import Interpreter


def sample_channel(folder: Path, *, python: Path | None = None) -> CondaChannel:
    """Return a channel in `folder` with a real Python, that of `python` or the running one, and all :func:`sample_packages`.

    It takes some 3 seconds; keep it for a test session.
    """
    interpreter = Interpreter.inspect(python)
    return build_channel(folder, [python_package(interpreter), *sample_packages(interpreter.version)])


def sample_packages(python_version: str) -> Iterator[CondaPackageSpec]:
    """Yield the sample packages, for `python_version` where it matters; the real Python is not among them.

    ======================================  =============================================================================
    ``greeter``                             noarch Python with the command ``greet``; 1.0, 1.1 and 2.0, which differ little
    ``small-a`` … ``small-d``               small libraries for both platforms; ``small-b`` needs ``small-a``
    ``large``                               6 MB that do not compress, a layer of its own
    ``linked``                              symbolic links to files, folders and nothing
    ``prefixed``                            its prefix in text, in a binary, and in a script's first line
    ``scripted``                            a post-link script, which is not to be run
    ``owner-one``, ``owner-two``            both own ``share/owned.txt``
    ``left``, ``right``                     cannot be together: they need different ``small-a``
    ``needs-cuda``, ``needs-new-glibc``     need ``__cuda >=12`` and ``__glibc >=2.99``
    ``requests``, ``boto3``, …              what Metaflow's runtime asks for, each a module that says its version
    ======================================  =============================================================================
    """
    for version, text in (("1.0", "Hello"), ("1.1", "Hello!"), ("2.0", "Good day")):
        yield _greeter(version, text)
    for subdir in ("linux-64", "linux-aarch64"):
        yield from _compiled(subdir)
    yield dummy_python_package(python_version, "linux-aarch64")
    yield from _odd()
    yield from _runtime()


def _greeter(version: str, text: str) -> CondaPackageSpec:
    module = f"__version__ = {version!r}\n\n\ndef main() -> None:\n    print({text!r})\n"
    return CondaPackageSpec(
        name="greeter",
        version=version,
        noarch="python",
        files=(
            text_file("site-packages/greeter/__init__.py", module),
            text_file("site-packages/greeter/data.txt", "the same in all versions\n" * 100),
        ),
        entry_points=("greet = greeter:main",),
        depends=("python >=3.8",),
    )


def _compiled(subdir: str) -> Iterator[CondaPackageSpec]:
    def library(name: str, version: str, *depends: str, size_bytes: int = 20_000) -> CondaPackageSpec:
        path = f"lib/lib{name}.so.{version}"
        return CondaPackageSpec(
            name=name,
            version=version,
            subdir=subdir,
            files=(
                binary_file(path, size_bytes),
                SymlinkEntry(path=f"lib/lib{name}.so", target=f"lib{name}.so.{version}"),
            ),
            depends=("__glibc >=2.17", *depends),
        )

    yield library("small-a", "1.0")
    yield library("small-a", "2.0")
    yield library("small-b", "1.0", "small-a")
    yield library("small-c", "1.0")
    yield library("small-d", "1.0")
    yield library("large", "1.0", size_bytes=6_000_000)
    yield library("needs-new-glibc", "1.0", "__glibc >=2.99")
    yield library("needs-cuda", "1.0", "__cuda >=12")


def _odd() -> Iterator[CondaPackageSpec]:
    yield CondaPackageSpec(
        name="linked",
        version="1.0",
        files=(
            text_file("share/linked/real.txt", "real\n"),
            SymlinkEntry(path="share/linked/file", target="real.txt"),
            SymlinkEntry(path="share/linked-folder", target="linked"),
            SymlinkEntry(path="share/linked/nothing", target="not-there"),
        ),
    )
    yield CondaPackageSpec(
        name="prefixed",
        version="1.0",
        files=(
            text_file("etc/prefixed.conf", f"root = {PREFIX_MARK}\nshare = {PREFIX_MARK}/share\n"),
            text_file("bin/prefixed", f"#!{PREFIX_MARK}/bin/python\nprint({PREFIX_MARK!r})\n", executable=True),
            binary_file("lib/libprefixed.so", with_prefix=True, executable=True),
        ),
        depends=("python",),
    )
    yield CondaPackageSpec(
        name="scripted",
        version="1.0",
        files=(text_file("share/scripted.txt", "scripted\n"),),
        post_link='echo "the post-link script ran" > "$PREFIX/share/scripted-ran.txt"',
    )
    for name in ("owner-one", "owner-two"):
        files = (text_file("share/owned.txt", f"{name}\n"), text_file(f"share/{name}.txt", f"{name}\n"))
        yield CondaPackageSpec(name=name, version="1.0", files=files)
    yield CondaPackageSpec(name="left", version="1.0", noarch="generic", depends=("small-a 1.*",))
    yield CondaPackageSpec(name="right", version="1.0", noarch="generic", depends=("small-a 2.*",))


def _runtime() -> Iterator[CondaPackageSpec]:
    def module(name: str, version: str, *depends: str) -> CondaPackageSpec:
        place = f"site-packages/{name.replace('-', '_')}"
        info = f"site-packages/{name.replace('-', '_')}-{version}.dist-info"
        return CondaPackageSpec(
            name=name,
            version=version,
            noarch="python",
            files=(
                text_file(f"{place}/__init__.py", f"__version__ = {version!r}\n"),
                text_file(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"),
                text_file(f"{info}/INSTALLER", "conda\n"),
            ),
            depends=("python >=3.8", *depends),
        )

    yield module("certifi", "2024.12.14")
    yield module("charset-normalizer", "3.4.0")
    yield module("idna", "3.10")
    yield module("urllib3", "2.2.3")
    yield module("requests", "2.32.3", "certifi", "charset-normalizer >=2,<4", "idna >=2.5,<4", "urllib3 >=1.21.1,<3")
    yield module("boto3", "1.35.0", "botocore >=1.35.0,<1.36.0")
    yield module("botocore", "1.35.0", "urllib3")
