"""The second deployment of a flow: what it asks of the network, and what it does not even import."""

from __future__ import annotations

import json

import pytest

from prebuilt.testing.python_index import PackageIndex, make_wheel

pytestmark = [pytest.mark.metaflow, pytest.mark.slow]

SLOW_TO_IMPORT = {"rattler", "uv", "httpx2", "zstandard", "isal", "boto3", "docker"}

_WATCHER = '''"""Writes down which addresses a process connects to and what it imports."""
import atexit, json, os, socket, sys

connected = []

def watch(event, args):
    if event == "socket.connect" and args[0].family in (socket.AF_INET, socket.AF_INET6):
        connected.append(str(args[1]))

def write():
    report = {"arguments": sys.argv[1:], "connected": connected, "imported": sorted(sys.modules)}
    with open(os.path.join(os.environ["WATCHED"], f"{os.getpid()}.json"), "w") as file:
        json.dump(report, file)

if "WATCHED" in os.environ:
    sys.addaudithook(watch)
    atexit.register(write)
'''


@pytest.fixture
def watched(place, tmp_path):
    """Return a function that deploys and gives what the launching process connected to and imported."""
    (tmp_path / "watcher").mkdir()
    (tmp_path / "watcher" / "sitecustomize.py").write_text(_WATCHER)

    def deploy(**variables: str) -> dict[str, list[str]]:
        reports = tmp_path / f"reports-{len(list(tmp_path.iterdir()))}"
        reports.mkdir()
        path = f"{tmp_path / 'watcher'}:{place.variables['PYTHONPATH']}"
        assert place.run(pypi={"fine": "2.32"}, WATCHED=str(reports), PYTHONPATH=path, **variables).deployed
        read = [json.loads(report.read_text()) for report in reports.iterdir()]
        return next(report for report in read if "run" in report["arguments"])

    return deploy


def test_into_a_layout_it_asks_nobody(place, watched):
    """No connection is made, no file of the layout is written, nothing slow is imported."""
    first = watched()
    assert "uv" in first["imported"]
    blobs = sorted((place.layout / "blobs" / "sha256").iterdir())
    second = watched(PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert second["connected"] == []
    assert sorted((place.layout / "blobs" / "sha256").iterdir()) == blobs
    assert SLOW_TO_IMPORT & set(second["imported"]) == set()


def test_into_a_registry_it_asks_three_questions(in_registry, registry, watched):
    """What the base image's tag names, what the lock is, whether the image is there; nobody else is asked."""
    watched()
    registry.forget_requests()
    second = watched(PIP_INDEX_URL="http://127.0.0.1:9/simple")
    deploying = [str(request).partition("-")[0] for request in registry.requests]
    assert deploying[:3] == [
        "HEAD /v2/base/manifests/python",
        "GET /v2/site/images/manifests/lock",
        "HEAD /v2/site/images/manifests/v1",
    ]
    assert registry.count("HEAD") + registry.count("GET", "/manifests/lock") == 3
    assert {address.partition(",")[0] for address in second["connected"]} == {"('127.0.0.1'"}
    assert {"rattler", "uv", "zstandard", "isal", "boto3"} & set(second["imported"]) == set()


def test_another_user_and_another_commit_find_the_same_image(in_registry, registry, watched):
    """Nothing of who deploys, from where and what code is in an image or decides on its name."""
    watched()
    before = set(registry.store.repository("site/images").blobs)
    watched(METAFLOW_USER="somebody-else", METAFLOW_PREBUILT_REGISTRY_CACHE="0")
    assert set(registry.store.repository("site/images").blobs) == before


def test_from_a_machine_with_empty_caches_too(in_registry, registry, watched, tmp_path):
    """What is known of base image and lock is beside the images, for everybody."""
    watched()
    registry.forget_requests()
    second = watched(PIP_INDEX_URL="http://127.0.0.1:9/simple", METAFLOW_PREBUILT_CACHE_DIR=str(tmp_path / "fresh"))
    assert registry.count("POST") == registry.count("PUT") == 0
    assert {"rattler", "uv", "boto3"} & set(second["imported"]) == set()


def test_a_newer_version_is_taken_when_that_is_asked_for(place, tmp_path):
    """What was released since does not change a deployment, until --force-rebuild-environments resolves anew; that stays."""
    newer, asked = b"moving-2.0.dist-info/METADATA", {"pypi": {"moving": ">=1"}}
    with PackageIndex().serving() as index:
        place.variables["PIP_INDEX_URL"] = index.url
        for name, version in (("requests", "2.32"), ("moving", "1.0")):
            index.add(make_wheel(tmp_path / "dist", name, version))
        assert place.run(**asked).deployed
        index.add(make_wheel(tmp_path / "dist", "moving", "2.0"))
        again = place.run(**asked)
        assert "image is there" in again.text
        assert newer not in place.everything_in_images()
        forced = place.run("--force-rebuild-environments", "run", "--with", "container", **asked)
        assert forced.deployed, forced.text
        assert "image is there" not in forced.text
        assert newer in place.everything_in_images()
    assert "image is there" in place.run(**asked).text
    assert len(place.valid_images()) == 2
