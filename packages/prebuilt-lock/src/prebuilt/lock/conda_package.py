"""A conda package's files as they are once installed, whatever else is in the environment.

rattler installs the one package into a folder of its own, with the final prefix written into its files. A ``noarch: python``
package has to know its Python: it is told a record of one, and nothing of that Python is installed or downloaded. Two names
that differ in case only need a file system that tells them apart.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prebuilt.core.errors import PackageError
from prebuilt.core.lock import CondaPackage
from prebuilt.core.storage import storage_errors
from prebuilt.core.tree import BytesContent, DirectoryEntry, Entry, FileEntry, PathContent, SymlinkEntry
from prebuilt.lock.install_target import InstallTarget

if TYPE_CHECKING:
    from rattler import RepoDataRecord

_NOWHERE = "https://conda.invalid"  # RFC 2606: where the record of the Python that is not installed says it came from
# The archive is a file of this machine, so nothing is asked of any server; rattler's usual client, which is made in any case,
# fails in an image that has no certificates, and reads all that there are for each package.
_NO_NETWORK = "tls-no-verify = true"
_MACHINE_FIELDS = {"extracted_package_dir", "package_tarball_full_path", "link", "requested_spec", "requested_specs"}


def conda_entries(archive: Path, package: CondaPackage, target: InstallTarget, work: Path) -> list[Entry]:
    """Return the files of `package`, sorted by path; their contents are in the folder `work`, which must stay.

    Modes are normalised; of ``conda-meta`` only the package's own record stays, without what is true on this machine only.
    Link scripts are installed and not run: see :func:`link_scripts`.

    Raises:
        PackageError: The archive is damaged, or rattler refuses it.
        StorageError: The disk is full.
    """
    prefix = work / "prefix"
    _install(archive, package, target, prefix, work / "unpacked")
    entries = [entry for entry in _walk(prefix, target) if not target.in_prefix(entry.path).startswith("conda-meta/")]
    entries = [entry for entry in entries if target.in_prefix(entry.path) != "CACHEDIR.TAG"]
    entries.append(_record(prefix, package, target))
    return sorted(entries, key=lambda entry: entry.path)


def link_scripts(package: CondaPackage, entries: list[Entry], target: InstallTarget) -> list[str]:
    """Return which of conda's link scripts are among `entries`: the ones that conda would run, and nothing here does.

    Source: https://docs.conda.io/projects/conda-build/en/stable/resources/link-scripts.html
    """
    paths = {target.in_prefix(entry.path) for entry in entries}
    return [kind for kind in ("pre-link", "post-link") if f"bin/.{package.name}-{kind}.sh" in paths]


def _install(archive: Path, package: CondaPackage, target: InstallTarget, prefix: Path, cache: Path) -> None:
    import asyncio

    from rattler import Client, Config, Subdir, install
    from rattler.exceptions import ExtractError, InstallerError, IoError, LinkError, TransactionError

    records = [_record_of(package, archive.absolute().as_uri())]
    if package.noarch == "python":
        records.append(_python_record(target))
    try:
        with storage_errors(f"unpack {package.filename}", cache):
            asyncio.run(
                install(
                    records,
                    prefix,
                    cache_dir=cache,
                    ignored_packages={"python"} if package.name != "python" else None,
                    platform=Subdir(target.platform.subdir),
                    execute_link_scripts=False,
                    show_progress=False,
                    client=Client.from_config(Config.from_toml(_NO_NETWORK)),
                    alternative_target_prefix=target.prefix,
                )
            )
    except (ExtractError, InstallerError, IoError, LinkError, TransactionError) as error:
        raise PackageError(f"install {package.filename}", reason=str(error)) from error


def _record_of(package: CondaPackage, url: str) -> RepoDataRecord:
    from rattler import PackageRecord, RepoDataRecord
    from rattler.package.build_string import BuildString

    record = PackageRecord(
        package.name,
        package.version,
        BuildString.new_unchecked(package.build),
        package.build_number,
        package.subdir,
        noarch=package.noarch,
        depends=list(package.depends),
        constrains=list(package.constrains),
        sha256=bytes.fromhex(package.sha256),
        size=package.size_bytes,
        python_site_packages_path=package.python_site_packages_path,
    )
    return RepoDataRecord(record, package.filename, url, _NOWHERE)


def _python_record(target: InstallTarget) -> RepoDataRecord:
    python = CondaPackage(
        name="python",
        version=target.python_version,
        build="0",
        build_number=0,
        subdir=target.platform.subdir,
        url=f"{_NOWHERE}/{target.platform.subdir}/python-{target.python_version}-0.conda",
        sha256="0" * 64,
        size_bytes=1,
        role="python",
        python_site_packages_path=target.site_packages,
    )
    return _record_of(python, python.url)


def _walk(prefix: Path, target: InstallTarget) -> Iterator[Entry]:
    """Yield what is below `prefix`; files that are links of each other are each their own."""
    for folder, folders, files in os.walk(prefix):
        inside = Path(folder).relative_to(prefix).as_posix()
        at = "" if inside == "." else f"{inside}/"
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        if at and not folders and not files:
            yield DirectoryEntry(path=target.in_tree(inside))
        for name in [*links, *files]:
            path = Path(folder) / name
            tree_path = target.in_tree(at + name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                yield SymlinkEntry(path=tree_path, target=str(path.readlink()))
            else:
                yield FileEntry(path=tree_path, content=PathContent(path), executable=bool(mode & stat.S_IXUSR))


def _record(prefix: Path, package: CondaPackage, target: InstallTarget) -> FileEntry:
    """Return the package's record, the same bytes wherever it was written; bytecode is ours and not in it."""
    name = f"conda-meta/{package.filename.removesuffix('.conda').removesuffix('.tar.bz2')}.json"
    data: dict[str, Any] = json.loads((prefix / name).read_bytes())
    kept = {key: value for key, value in data.items() if key not in _MACHINE_FIELDS}
    kept["url"] = package.url
    kept["channel"] = package.url.removesuffix(f"/{package.subdir}/{package.filename}")
    kept["files"] = sorted(path for path in data["files"] if "/__pycache__/" not in path)
    paths = [entry for entry in data["paths_data"]["paths"] if "/__pycache__/" not in entry["_path"]]
    kept["paths_data"] = {**data["paths_data"], "paths": sorted(paths, key=lambda entry: str(entry["_path"]))}
    text = json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    return FileEntry(path=target.in_tree(name), content=BytesContent(text.encode()))
