"""Channels of real packages: a real solver takes them, a real installer installs them, and what is installed runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest
from rattler import (
    BuildString,
    Channel,
    ChannelPriority,
    Gateway,
    GenericVirtualPackage,
    MatchSpec,
    PackageName,
    RepoDataRecord,
    Version,
    install,
    solve,
)
from rattler.exceptions import SolverError

from prebuilt.core.tree import FileEntry, PathContent, SymlinkEntry
from prebuilt.testing.conda_channel import CondaChannel, build_channel, serve_channel
from prebuilt.testing.conda_package import CondaPackageSpec, binary_file, text_file
from prebuilt.testing.conda_samples import sample_channel

PYTHON = ".".join(map(str, sys.version_info[:3]))


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> CondaChannel:
    """The sample channel."""
    return sample_channel(tmp_path_factory.mktemp("channel"))


def solved(
    channel: CondaChannel | str, *specs: str, subdir: str = "linux-64", cuda: str | None = None
) -> list[RepoDataRecord]:
    """Return what a solver chooses for a machine with glibc 2.36."""
    virtual = [("__unix", "0"), ("__linux", "5.10"), ("__glibc", "2.36"), *([("__cuda", cuda)] if cuda else [])]
    return asyncio.run(
        solve(
            [Channel(channel if isinstance(channel, str) else channel.url)],
            [MatchSpec(spec) for spec in specs],
            gateway=Gateway(),
            platforms=[subdir, "noarch"],
            virtual_packages=[GenericVirtualPackage(PackageName(n), Version(v), BuildString("0")) for n, v in virtual],
            channel_priority=ChannelPriority.Strict,
        )
    )


def versions(records: Sequence[RepoDataRecord]) -> dict[str, str]:
    """Return name → version."""
    return {record.name.normalized: str(record.version) for record in records}


@pytest.fixture(scope="module")
def environment(channel: CondaChannel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the odd packages and the real Python, installed by rattler."""
    prefix = tmp_path_factory.mktemp("environment") / "env"
    records = solved(channel, "python", "greeter", "linked", "prefixed", "scripted", "requests")
    asyncio.run(install(records, prefix, cache_dir=tmp_path_factory.mktemp("packages")))
    return prefix


def run(*command: str | Path) -> str:
    """Return what a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_python_runs_from_where_it_was_installed(environment: Path) -> None:
    """It finds its library and its compiled modules, and says that it is where it is."""
    code = (
        "import sys, ssl, sqlite3, ctypes, sysconfig; print(sys.version.split()[0], sysconfig.get_config_var('prefix'))"
    )
    assert run(environment / "bin" / "python", "-c", code) == f"{PYTHON} {environment}\n"


def test_python_does_not_use_the_machines_own_library(environment: Path) -> None:
    """Otherwise an image without it would fail where this machine does not."""
    code = "import os, json; print(os.__file__, [line.split()[-1] for line in open('/proc/self/maps') if 'libpython' in line])"
    assert str(Path(sys.base_prefix)) not in run(environment / "bin" / "python", "-c", code)


def test_a_noarch_package_has_its_command_and_its_modules(environment: Path) -> None:
    """Entry points are made by the installer, for the Python that is there."""
    assert run(environment / "bin" / "greet") == "Good day\n"
    xy = ".".join(PYTHON.split(".")[:2])
    assert (environment / f"lib/python{xy}/site-packages/greeter/__init__.py").is_file()


def test_prefixes_are_replaced_in_text_and_in_binaries(environment: Path) -> None:
    """The placeholder is long, so that any prefix fits into a binary."""
    assert (environment / "etc/prefixed.conf").read_text() == f"root = {environment}\nshare = {environment}/share\n"
    assert f"{environment}/share\0".encode() in (environment / "lib/libprefixed.so").read_bytes()
    assert run(environment / "bin" / "prefixed") == f"{environment}\n"
    assert f"prefix={environment}\0".encode() in (environment / "bin" / "python").resolve().read_bytes()
    [placeholder] = {
        path["prefix_placeholder"] for path in recorded_paths(environment, "prefixed") if "file_mode" in path
    }
    assert len(placeholder) >= 200


def recorded_paths(environment: Path, name: str) -> list[dict[str, str]]:
    """Return what conda-meta says of a package's files."""
    [record] = (environment / "conda-meta").glob(f"{name}-*.json")
    return json.loads(record.read_text())["paths_data"]["paths"]


def test_modes_of_prefixes_are_recorded(environment: Path) -> None:
    """As text or as binary: they are replaced in different ways."""
    modes = {path["_path"]: path.get("file_mode") for path in recorded_paths(environment, "prefixed")}
    assert modes == {"bin/prefixed": "text", "etc/prefixed.conf": "text", "lib/libprefixed.so": "binary"}


def test_symbolic_links_are_kept(environment: Path) -> None:
    """Also those to folders and to nothing."""
    targets = {
        path: (environment / path).readlink()
        for path in ("share/linked/file", "share/linked-folder", "share/linked/nothing")
    }
    assert [str(target) for target in targets.values()] == ["real.txt", "linked", "not-there"]


def test_a_post_link_script_is_in_its_package(environment: Path) -> None:
    """An installer that runs none leaves it where it is."""
    assert (environment / "bin" / ".scripted-post-link.sh").read_text().startswith("#!/bin/sh\n")
    assert not (environment / "share" / "scripted-ran.txt").exists()


def test_the_newest_version_is_taken_and_an_older_one_can_be_asked_for(channel: CondaChannel) -> None:
    """There are several versions of one package."""
    assert versions(solved(channel, "greeter"))["greeter"] == "2.0"
    assert versions(solved(channel, "greeter 1.*"))["greeter"] == "1.1"


def test_another_platform_can_be_solved_for(channel: CondaChannel) -> None:
    """Its Python is a dummy; its packages say that they are for it."""
    records = solved(channel, "greeter", "small-b", subdir="linux-aarch64")
    assert versions(records).keys() == {"greeter", "python", "small-a", "small-b"}
    assert {record.subdir for record in records} == {"linux-aarch64", "noarch"}


def test_an_unsatisfiable_pair_is_refused(channel: CondaChannel) -> None:
    """Each of the two can be had alone."""
    assert versions(solved(channel, "left"))["small-a"] == "1.0"
    with pytest.raises(SolverError, match="small-a"):
        solved(channel, "left", "right")


def test_virtual_packages_decide(channel: CondaChannel) -> None:
    """A GPU is there or not; a C library is new enough or not."""
    assert versions(solved(channel, "needs-cuda", cuda="12.4")) == {"needs-cuda": "1.0"}
    for spec in ("needs-cuda", "needs-new-glibc"):
        with pytest.raises(SolverError):
            solved(channel, spec)


def test_packages_that_a_test_needs_can_be_added(tmp_path: Path) -> None:
    """A channel takes any tree, from memory or from disk, and is indexed again."""
    (tmp_path / "source").write_text("from disk")
    files = (
        text_file("bin/run", "#!/bin/sh\n", executable=True),
        FileEntry(path="share/x", content=PathContent(tmp_path / "source")),
        binary_file("share/y", 100),
        SymlinkEntry(path="share/z", target="y"),
    )
    made = build_channel(tmp_path / "channel", [CondaPackageSpec(name="one", version="1.0", files=files)])
    made.add(CondaPackageSpec(name="one", version="1.1", depends=("two",)), CondaPackageSpec(name="two", version="3"))
    assert versions(solved(made, "one")) == {"one": "1.1", "two": "3"}
    asyncio.run(install(solved(made, "one 1.0"), tmp_path / "env", cache_dir=tmp_path / "cache"))
    assert (tmp_path / "env/share/x").read_text() == "from disk"
    assert (tmp_path / "env/share/z").stat().st_size == 101
    assert made.package("one", "1.0").name == "one-1.0-0.conda"
    with pytest.raises(LookupError, match="2 packages are called one"):
        made.package("one")


def status(url: str) -> int:
    """Return how a server answers."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_channel_can_be_served(channel: CondaChannel) -> None:
    """Every request is recorded, and the files are those of the folder."""
    with serve_channel(channel) as served:
        assert versions(solved(served.url, "left")).keys() == {"left", "small-a"}
        assert served.requests_for("linux-64/repodata.json")
        assert status(f"{served.url}/noarch/{channel.package('left').name}") == 200
        assert status(f"{served.url}/../../etc/passwd") == 404


def test_a_served_channel_can_want_a_password_or_a_token(channel: CondaChannel) -> None:
    """Without it the answer is 401; with it, in the form in which users write it, it is served."""
    with serve_channel(channel, token="secret-token") as served:
        assert status(f"{served.url}/noarch/repodata.json") == 401
        assert status(f"{served.url_with_credentials}/noarch/repodata.json") == 200
    with serve_channel(channel, user="me", password="secret") as served:
        assert status(f"{served.url}/noarch/repodata.json") == 401
        assert served.url_with_credentials.startswith("http://me:secret@127.0.0.1:")


def test_a_served_channel_can_fail(channel: CondaChannel) -> None:
    """As a channel that is down does."""
    with serve_channel(channel) as served:
        served.failing_with = 503
        assert status(f"{served.url}/noarch/repodata.json") == 503
