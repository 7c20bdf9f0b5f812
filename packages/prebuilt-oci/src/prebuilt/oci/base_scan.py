"""Reading C library, Python and shell of a base image off its layers, in one pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.spec import DEFAULT_PATH, BasePython
from prebuilt.oci.base_facts import BaseFacts
from prebuilt.oci.image import ImageConfig, ImageManifest
from prebuilt.oci.image_tree import ImageTree, LayerListing
from prebuilt.oci.layer import read_layer
from prebuilt.oci.repository import Repository

_AT_ONCE = 4
_PIECE_BYTES = 1 << 20
_OVERLAP_BYTES = 256  # longer than anything that is looked for

_PYTHON_FILE = re.compile(r"(?:.*/)?(?:python[0-9.]*|libpython3(?:\.\d+)?\.so[0-9.]*)")
_LIBC_FILE = re.compile(r"(?:.*/)?(?:libc\.so\.6|libc-2\.\d+\.so)")
# Where Py_GetVersion is, PY_VERSION is a string of its own: "3.11.2", with a + in builds between releases. It is in the
# interpreter, or in libpython where that is shared. Linkers may make it the end of a longer string, so what is before it is
# looked at only so far as not to take a part of a longer version; not in the pattern, which is ten times as fast without.
_PYTHON_VERSION = re.compile(rb"(3\.\d{1,2}\.\d{1,2}(?:(?:a|b|rc)\d{1,2})?)\+?\0")
_GLIBC_VERSION = re.compile(rb"GNU C Library [^\0]{0,120}? version (\d+\.\d+)")
_VERSION_BYTES = frozenset(b"0123456789.")
_STDLIB_FILES = ("os.py", "json/__init__.py", "ssl.py")
"""Some of what is only there if the standard library is: Debian's python3-minimal has an ``os.py`` and little else."""
_TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}


def read_facts(
    repository: Repository, manifest: ImageManifest, config: ImageConfig, check: Callable[[], None] = lambda: None
) -> BaseFacts:
    """Return the facts about an image, for which all of its layers are read once, some at a time, and none is unpacked.

    `check` is called for each piece of a layer, and raises to stop.

    Raises:
        RegistryError: A layer could not be read.
        InvalidValueError: A layer is damaged, or of a kind that is not known.
    """

    def listing(layer: Descriptor) -> LayerListing:
        with repository.open_blob(layer) as chunks:
            return LayerListing.read(read_layer(_checked(chunks, check), layer.media_type), inspect)

    tree = ImageTree()
    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="base-image") as pool:
        try:
            for layer in pool.map(listing, manifest.layers):
                tree.apply(layer)
        except BaseException:  # the layers that are not begun yet need not be
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return facts_of(tree, config, layer_count=len(manifest.layers))


def _checked(chunks: Iterator[bytes], check: Callable[[], None]) -> Iterator[bytes]:
    for chunk in chunks:
        check()
        yield chunk


def facts_of(tree: ImageTree, config: ImageConfig, *, layer_count: int) -> BaseFacts:
    """Return the facts that a tree, made with :func:`inspect`, and a config tell."""
    path = [folder for folder in (config.env.get("PATH") or DEFAULT_PATH).split(":") if folder.startswith("/")]
    return BaseFacts(
        platform=f"{config.os}/{config.architecture}",
        layer_count=layer_count,
        glibc=_glibc(tree, config.architecture),
        has_musl=any(name.startswith("ld-musl-") for name in tree.names("/lib")),
        python=_python(tree, path),
        commands=frozenset(name for name in ("bash", "tar") if _executables(tree, path, [name])),
    )


def inspect(path: str, content: IO[bytes]) -> frozenset[str]:
    """Return the versions that are written in an interpreter, in libpython or in the C library."""
    if _PYTHON_FILE.fullmatch(path):
        return frozenset(_versions(_PYTHON_VERSION, content))
    if _LIBC_FILE.fullmatch(path):
        return frozenset(_versions(_GLIBC_VERSION, content))
    return frozenset()


def _versions(pattern: re.Pattern[bytes], content: IO[bytes]) -> Iterator[str]:
    rest = b"\0"
    while piece := content.read(_PIECE_BYTES):
        window = rest + piece
        for match in pattern.finditer(window):
            # A match at the very start was seen whole in the window before.
            if match.start() and window[match.start() - 1] not in _VERSION_BYTES:
                yield match[1].decode()
        rest = window[-_OVERLAP_BYTES:]


def _executables(tree: ImageTree, path: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the real paths of the commands that have one of `names`, in the order in which a shell finds them."""
    found = []
    for folder in path:
        for name in names:
            node = tree.find(f"{folder}/{name}")
            real = tree.real_path(f"{folder}/{name}")
            if node is not None and real is not None and node.is_file and node.is_executable:
                found.append(real)
    return found


def _python(tree: ImageTree, path: Sequence[str]) -> BasePython | None:
    """Return the first interpreter on PATH that is one: a script of that name, or one without its library, is not."""
    for executable in _executables(tree, path, ["python3", "python"]):
        version = _python_version(tree, executable)
        if version is not None:
            return BasePython(path=executable, version=version)
    return None


def _python_version(tree: ImageTree, executable: str) -> str | None:
    prefix = executable.rpartition("/")[0].rpartition("/")[0]
    folders = [f"{prefix}/lib", f"{prefix}/lib64"]
    stdlibs = [
        name.removeprefix("python")
        for folder in folders
        for name in tree.names(folder)
        if name.startswith("python3.") and all(tree.find(f"{folder}/{name}/{file}") for file in _STDLIB_FILES)
    ]
    named = re.fullmatch(r"python(3\.\d+)", executable.rpartition("/")[2])
    for xy in [named[1]] if named else stdlibs:
        if xy not in stdlibs:
            continue
        written = _versions_at(tree, executable) or _versions_in_libpython(tree, prefix, xy)
        fitting = {version for version in written if version.startswith(f"{xy}.")}
        if len(fitting) == 1:
            return fitting.pop()
    return None


def _versions_in_libpython(tree: ImageTree, prefix: str, xy: str) -> frozenset[str]:
    folders = [f"{prefix}/lib", f"{prefix}/lib64", *_library_folders(tuple(_TRIPLETS.values()))]
    return next(
        (facts for folder in folders if (facts := _versions_at(tree, f"{folder}/libpython{xy}.so.1.0"))), frozenset()
    )


def _versions_at(tree: ImageTree, path: str) -> frozenset[str]:
    node = tree.find(path)
    return node.facts if node is not None else frozenset()


def _glibc(tree: ImageTree, architecture: str) -> str | None:
    triplet = _TRIPLETS.get(architecture)
    for folder in _library_folders((triplet,) if triplet else ()):
        versions = _versions_at(tree, f"{folder}/libc.so.6")
        if versions:
            return max(versions, key=lambda version: tuple(map(int, version.split("."))))
        real = tree.real_path(f"{folder}/libc.so.6") or ""
        named = re.search(r"/libc-(2\.\d+)\.so$", real)
        if named:
            return named[1]
    return None


def _library_folders(triplets: tuple[str, ...]) -> list[str]:
    """Return where libraries are, those of the architecture first: another one's may be installed beside them."""
    return [
        f"{root}/{folder}"
        for folder in (*(f"lib/{triplet}" for triplet in triplets), "lib64", "lib")
        for root in ("", "/usr")
    ]
