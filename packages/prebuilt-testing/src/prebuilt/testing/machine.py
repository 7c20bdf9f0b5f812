"""Files of this machine that make a container: its commands, the shared libraries they need, its certificates."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from prebuilt.core.errors import BaseImageError
from prebuilt.core.tree import BytesContent, DirectoryEntry, Entry, FileEntry, PathContent, SymlinkEntry

CERTIFICATES_PATH = "etc/ssl/certs/ca-certificates.crt"
"""Where the images have the authorities that the machine trusts."""

COMMANDS = (
    "base64 basename cat chmod chown cp cut date dd df dirname du env expr false find grep head hostname id install kill "
    "ln ls md5sum mkdir mktemp mv nproc printenv printf ps pwd readlink realpath rm rmdir sed seq sh sha256sum sleep sort "
    "split stat stty sync tail tee test timeout touch tr true tty uname uniq wc which whoami xargs yes ["
).split()
"""What a small Debian image has and shell scripts expect."""

_OPTIONAL = {"hostname", "kill", "ps", "which"}  # of packages that a small system may lack
_SEARCH_PATH = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin"

# Loaded by name at run time, or needed by wheels: manylinux counts on them. The first two are stubs in newer C libraries.
# Source: https://peps.python.org/pep-0599/#the-manylinux2014-policy
_OTHER_LIBRARIES = (
    "libdl.so.2",
    "libpthread.so.0",
    "libgcc_s.so.1",
    "libnss_dns.so.2",
    "libnss_files.so.2",
    "libresolv.so.2",
    "librt.so.1",
    "libstdc++.so.6",
    "libutil.so.1",
)
_TRIPLETS = {"aarch64-linux-gnu", "x86_64-linux-gnu"}  # Debian's folders of libraries, one for each architecture
_CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_NEEDED = re.compile(r"^\s+(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)


def command_entries(names: Iterable[str]) -> Iterator[Entry]:
    """Yield the machine's commands of these names, below ``usr/bin``. A command that is a link brings what it leads to.

    Raises:
        BaseImageError: The machine lacks one.
    """
    for name in sorted(set(names)):
        found = shutil.which(name, path=_SEARCH_PATH)
        if found is None and name not in _OPTIONAL:
            raise BaseImageError("make a base image of this machine", reason=f"it has no command {name!r}")
        if found is None:
            continue
        real = Path(found).resolve()
        yield FileEntry(path=f"usr/bin/{real.name}", content=PathContent(real), executable=True)
        if real.name != name:
            yield SymlinkEntry(path=f"usr/bin/{name}", target=real.name)


def files_of(entries: Iterable[Entry]) -> list[Path]:
    """Return the files of this machine that `entries` are made of."""
    contents = (entry.content for entry in entries if isinstance(entry, FileEntry))
    return [content.path for content in contents if isinstance(content, PathContent)]


def needed_libraries(files: Sequence[Path]) -> Mapping[str, Path]:
    """Return name → file of the shared libraries that `files` need, with all that those need, the loader among them.

    A library that the machine lacks is left out: whatever needs it does not run on the machine either.

    Raises:
        BaseImageError: This is no Linux machine with the GNU C library.
    """
    try:
        # Its exit status says that some file was no dynamic executable, which the caller need not know.
        printed = subprocess.run(["ldd", *files], check=False, capture_output=True, text=True).stdout
    except OSError as error:
        raise BaseImageError("list shared libraries", reason=f"ldd does not run: {error}") from error
    found = {match["name"] or Path(match["path"]).name: Path(match["path"]) for match in _NEEDED.finditer(printed)}
    if files and "libc.so.6" not in found:
        raise BaseImageError("make a base image of this machine", reason="it does not use the GNU C library")
    return found


def library_entries(files: Sequence[Path]) -> Iterator[Entry]:
    """Yield the shared libraries that `files` need, and those that programs load by name.

    All lie in the folder in which the machine's loader finds its C library, so that no loader cache is needed.
    """
    folder = needed_libraries(files[:1])["libc.so.6"].parent
    others = [folder / name for name in _OTHER_LIBRARIES if (folder / name).exists()]
    for name, path in sorted(needed_libraries([*files, *others]).items() | {(path.name, path) for path in others}):
        # Programs name their loader by its full path; everything else is searched for.
        place = path.parent if name.startswith("ld-") else folder
        yield FileEntry(path=_merged(place / name), content=PathContent(path.resolve()), executable=True)
    if folder.name in _TRIPLETS:  # an image that claims another architecture has its libraries where that one looks
        for other in sorted(_TRIPLETS - {folder.name}):
            yield SymlinkEntry(path=_merged(folder.with_name(other)), target=folder.name)


def certificates() -> bytes | None:
    """Return the authorities that this machine trusts, as PEM: ``SSL_CERT_FILE``'s, else the system's; None without any."""
    for path in (os.environ.get("SSL_CERT_FILE"), *_CERTIFICATES):
        if path and Path(path).is_file():
            return Path(path).read_bytes()
    return None


def system_entries() -> Iterator[Entry]:
    """Yield the folders of a root, the links of a merged ``/usr``, and the few files of ``/etc`` that programs look for."""
    for name in ("bin", "lib", "lib64", "sbin"):
        yield SymlinkEntry(path=name, target=f"usr/{name}")
    for name in ("dev", "home", "opt", "proc", "root", "run", "sys", "tmp", "usr/sbin", "var/tmp"):
        yield DirectoryEntry(path=name)
    texts = {
        "etc/group": "root:x:0:\nnogroup:x:65534:\n",
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "etc/os-release": 'PRETTY_NAME="A base image made from a machine"\nNAME="prebuilt-testing"\nID=prebuilt-testing\n',
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    }
    for path, text in texts.items():
        yield FileEntry(path=path, content=BytesContent(text.encode()))
    trusted = certificates()
    if trusted is not None:
        yield FileEntry(path=CERTIFICATES_PATH, content=BytesContent(trusted))


def _merged(path: Path) -> str:
    """Return where `path` is in an image whose ``/bin``, ``/lib`` and ``/lib64`` lead into ``/usr``."""
    text = os.path.normpath(path).lstrip("/")
    return text if text.startswith("usr/") else f"usr/{text}"
