"""Flows that ask for what there is not, or for what is not what it says."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt.core.platforms import Platform
from prebuilt.testing.python_index import PackageIndex, make_sdist, make_wheel
from prebuilt.testing.repodata import ListedPackage, write_repodata

pytestmark = [pytest.mark.metaflow, pytest.mark.slow]

XY = f"{sys.version_info[0]}{sys.version_info[1]}"
HOST = Platform.parse("linux-aarch64" if os.uname().machine in {"aarch64", "arm64"} else "linux-64")
ZEROS = "0" * 64


@pytest.fixture(scope="module", autouse=True)
def troubles(index: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Put a package for each kind of trouble into the index."""
    folder = tmp_path_factory.mktemp("troubles")
    for version in ("1.0", "2.0"):
        index.add(make_wheel(folder, "common", version))
    index.add(make_wheel(folder, "left", "1.0", requires=["common==1.0"]))
    index.add(make_wheel(folder, "right", "1.0", requires=["common==2.0"]))
    index.add(make_wheel(folder, "withdrawn", "1.0"), yanked="it eats data")
    index.add(make_wheel(folder, "foreign", "1.0", tag=f"cp{XY}-cp{XY}-win_amd64"))
    index.add(make_sdist(folder, "compiled", "1.0", tag=f"cp{XY}-cp{XY}-linux_{os.uname().machine}"))
    index.add(make_sdist(folder, "broken", "1.0", fails_with="cc: command not found"))
    index.add(make_wheel(folder, "changed", "1.0", files={"changed.py": "evil = 1"}), sha256=ZEROS)


@pytest.mark.parametrize(
    ("asked", "reasons", "remedy"),
    [
        ({"nosuch": "1.0"}, ["nosuch was not found"], "check the name, and that your package index has it"),
        ({"common": "7.0"}, ["no version of common==7.0"], "loosen one of these requirements"),
        ({"left": "1.0", "right": "1.0"}, ["common==1.0", "common==2.0"], "loosen one of these requirements"),
        ({"withdrawn": ">=0.5"}, ["withdrawn==1.0 was yanked", "it eats data"], "loosen one of these requirements"),
        ({"foreign": "1.0"}, ["foreign==1.0 has no wheels", "win_amd64"], "take the package from conda (@conda)"),
        ({"compiled": "1.0"}, ["compiled 1.0", "needs compiling"], "build the wheel on that platform"),
        ({"broken": "1.0"}, ["broken==1.0", "cc: command not found"], "choose a version that has a wheel"),
        ({"common": "=>1"}, ["common: '=>1'"], "write a version (1.2.3), a range (>=1,<2) or '@ URL'"),
        ({"com mon": "1"}, ["com mon: '1'"], "write a version"),
    ],
    ids="unknown missing-version unsatisfiable yanked foreign compiled broken spec name".split(),
)
def test_what_cannot_be_resolved_is_named(place, asked, reasons, remedy):
    """One message says which steps and packages, why, and what to do; nothing was built."""
    message = place.run(pypi=asked).message
    assert message.startswith("tried to bake the image of start, end: tried to re")
    for reason in reasons:
        assert reason in message
    assert remedy in message
    assert place.is_intact(images=0)


def test_a_yanked_version_that_was_asked_for_is_taken_with_a_word(place):
    """Who pins a version gets it, and is told why its owner withdrew it."""
    outcome = place.run(pypi={"withdrawn": "1.0"})
    assert outcome.deployed
    assert '`withdrawn==1.0` is yanked (reason: "it eats data")' in outcome.text


def test_a_file_with_another_hash_is_refused(place):
    """The message names the file and both hashes; the package is in no layer, and no image is tagged."""
    outcome = place.run(pypi={"changed": "1.0"})
    assert "changed-1.0-py3-none-any.whl" in outcome.message
    assert f"expected sha256:{ZEROS}, got sha256:" in outcome.message
    assert "METAFLOW_PREBUILT_REFRESH=1" in outcome.message
    assert outcome.text.count(ZEROS) == 1  # said once
    assert place.is_intact(images=0)
    assert b"evil" not in place.everything_in_images()


def test_a_hash_that_changed_after_the_lock_was_made_is_refused(place, tmp_path):
    """The kept lock holds: what the index serves now under the same name is not used until somebody asks for it."""
    with PackageIndex().serving() as index:
        index.add(make_wheel(tmp_path / "a", "requests", "2.32"))
        index.add(make_wheel(tmp_path / "a", "moving", "1.0"))
        place.variables.update(PIP_INDEX_URL=index.url, METAFLOW_PREBUILT_REGISTRY_CACHE="0")
        assert place.run(pypi={"moving": "1.0"}).deployed
        place.forget_layers()
        make_wheel(tmp_path / "a", "moving", "1.0", files={"moving.py": "evil = 1"})
        assert "moving-1.0-py3-none-any.whl" in place.run(pypi={"moving": "1.0"}).message
        assert b"evil" not in place.everything_in_images()
        assert place.run(pypi={"moving": "1.0"}, METAFLOW_PREBUILT_REFRESH="1").deployed


@pytest.fixture
def ill_index(place) -> Iterator[PackageIndex]:
    """Return an index that is not well."""
    with PackageIndex().serving() as index:
        place.variables["PIP_INDEX_URL"] = index.url.replace("://", "://someone:hush-hush@")
        place.secrets.append("hush-hush")
        yield index


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "put credentials for the index into its URL, netrc or a keyring"),
        (403, "Check that the index URL is correct and the credentials are valid"),
        (404, "check the name, and that your package index has it"),
        (503, "try again later, or ask those who run the index"),
    ],
)
def test_an_index_that_refuses_is_named(place, ill_index, status, remedy):
    """The message names the index without the password that its URL holds."""
    ill_index.failing_with = status
    message = place.run(pypi={"fine": "2.32"}, UV_HTTP_RETRIES="0").message
    assert ill_index.url.removesuffix("/simple") in message or status == 404
    assert remedy in message
    assert place.is_intact(images=0)


def test_an_index_that_is_down_is_named(place):
    """Without the password that its URL holds."""
    place.secrets.append("hush-hush")
    url = "http://someone:hush-hush@127.0.0.1:9/simple"
    message = place.run(pypi={"fine": "2.32"}, PIP_INDEX_URL=url, UV_HTTP_RETRIES="0").message
    assert "127.0.0.1:9 could not be reached" in message
    assert "check the network, the proxy and the configured package index" in message


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a channel with a package that needs what there is not, and one for another platform only."""
    packages = [
        ListedPackage(name="python", version=f"3.{sys.version_info[1]}.0", subdir=HOST.subdir),
        ListedPackage(name="requests", version="2.32", subdir="noarch"),
        ListedPackage(name="needy", version="1.0", subdir=HOST.subdir, depends=["absent >=2"]),
        ListedPackage(name="elsewhere", version="1.0", subdir="osx-64"),
    ]
    return write_repodata(tmp_path_factory.mktemp("channel"), packages)


class TestConda:
    @pytest.mark.parametrize(
        ("asked", "reasons"),
        [
            ({"nosuch": "1.0"}, ["nosuch"]),
            ({"needy": "7.0"}, ["needy"]),
            ({"needy": "1.0"}, ["needy", "absent"]),
            ({"elsewhere": "1.0"}, ["elsewhere"]),
        ],
        ids="unknown missing-version unsatisfiable platform".split(),
    )
    def test_what_cannot_be_resolved_is_named(self, place, channel, asked, reasons):
        """The solver's reason and the channel are in the one message."""
        message = place.run(conda=asked, CONDA_CHANNELS=channel).message
        for reason in [*reasons, channel, "check names and versions against the channels"]:
            assert reason in message
        assert place.is_intact(images=0)

    def test_a_channel_that_cannot_be_read_is_named(self, place, tmp_path):
        """A folder that is not there is no empty channel."""
        channel = Path(tmp_path, "nowhere").as_uri()
        message = place.run(conda={"needy": "1.0"}, CONDA_CHANNELS=channel).message
        assert f"at {channel}: a channel could not be read" in message
