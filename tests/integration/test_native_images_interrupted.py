"""Bakes that are stopped at any point: by Ctrl-C, by kill -9, or by another bake that does the same."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt.oci.open import open_repository
from prebuilt.testing.engines.registry import distribution_registry
from prebuilt.testing.engines.wanted import wanted_engine, wanted_program
from prebuilt.testing.relay import Relay, relay
from prebuilt.testing.waiting import eventually, eventually_gone

pytestmark = pytest.mark.registry

MARK = "PREBUILT_TEST_MARK"
SECONDS_TO_END = 30.0
"""A bake ends in one or two; that it does not come to its own end, its exit status says."""
POINTS = ["resolving", "downloading", "compiling", "uploading", "reading the base"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry of this file's own."""
    with wanted_engine(), distribution_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def registry_line(host: str) -> Iterator[Relay]:
    """The line to the registry."""
    with relay(host) as line:
        yield line


@pytest.fixture
def index_line(pantry: Any) -> Iterator[Relay]:
    """The line to the package index."""
    with relay(pantry.index.url.removeprefix("http://").removesuffix("/simple")) as line:
        yield line


@pytest.fixture
def marked(tmp_path: Path, make_bakery: Callable[..., Any], registry_line: Relay) -> Any:
    """A bakery that pushes to the registry, and whose processes can be told from all others."""
    name = secrets.token_hex(6)
    return make_bakery(tmp_path / "marked", f"{registry_line.address}/interrupted/{name}", variables={MARK: name})


def processes(mark: str) -> list[str]:
    """Return the commands of the processes that have the mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it ended meanwhile
            continue
    return found


class Said:
    """What a process says on standard error, read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.text = ""
        self._process = process
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.text += line

    def all(self, timeout_s: float) -> str:
        """Return all of it, once the process has ended and nobody else can write there."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "somebody still holds the process's standard error"
        return self.text


def until(condition: Callable[[], object], process: subprocess.Popen[str], said: Said) -> None:
    """Wait until something holds, which it must before the process ends."""

    def look() -> object:
        seen = condition()
        assert seen or process.poll() is None, f"it ended too early: {said.text}"
        return seen

    eventually(look, within_s=300, every_s=0.01, said=lambda: said.text)


def close(process: subprocess.Popen[str]) -> None:
    """End what a test left."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()


def order(point: str, pantry: Any, index_line: Relay) -> dict[str, Any]:
    """Return requirements that keep a bake busy at `point`."""
    if point == "compiling":
        return {"conda": {"greeter": "1.0"}, "channels": [pantry.channel.url]}
    return {"pypi": {"hefty": "1.0", "talker": ""}, "index": f"http://{index_line.address}/simple"}


def reach(point: str, bakery: Any, pantry: Any, lines: tuple[Relay, Relay]) -> tuple[subprocess.Popen[str], Said]:
    """Start a bake and return when it is at `point`, from where it would need a long time."""
    to_registry, to_index = lines
    to_index.down_bytes_per_s = {"resolving": 0, "downloading": 400_000}.get(point)
    to_registry.up_bytes_per_s = 200_000 if point == "uploading" else None
    if point == "reading the base":
        to_registry.down_bytes_per_s = 3_000_000
    process = bakery.start(**order(point, pantry, to_index))
    said = Said(process)
    reached: dict[str, Callable[[], object]] = {
        "resolving": lambda: to_index.sent_bytes > 0,
        "downloading": lambda: "building" in said.text and to_index.received_bytes > 600_000,
        "compiling": lambda: any("compile_worker" in command for command in processes(bakery.variables[MARK])),
        "uploading": lambda: "building" in said.text and to_registry.sent_bytes > 300_000,
        "reading the base": lambda: "reading the base" in said.text and to_registry.received_bytes > 300_000,
    }
    try:
        until(reached[point], process, said)
    except BaseException:
        close(process)
        raise
    return process, said


@pytest.fixture
def base_in_registry(host: str, base_image: str) -> str:
    """The base image in the registry, small lines to which make reading it slow."""
    wanted_program("skopeo", brought_by="apt-get install skopeo")
    copy = ("skopeo", "copy", "--quiet", "--dest-tls-verify=false", base_image, f"docker://{host}/base/image:python")
    subprocess.run(copy, check=True, capture_output=True)
    return f"{host}/base/image:python"


@pytest.mark.parametrize("point", POINTS)
def test_ctrl_c_ends_a_bake_soon(
    point: str, marked: Any, pantry: Any, registry_line: Relay, index_line: Relay, base_in_registry: str
) -> None:
    """At any point: no process of it is left, no half-made file, no tag, and no noise; and the next bake succeeds."""
    if point == "reading the base":
        marked = replace(
            marked, base=base_in_registry.replace(base_in_registry.partition("/")[0], registry_line.address)
        )
    process, said = reach(point, marked, pantry, (registry_line, index_line))
    try:
        began_s = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all that are in the foreground
        process.wait(120)
        took_s = time.monotonic() - began_s
        text = said.all(60)
    finally:
        close(process)
    assert took_s < SECONDS_TO_END, text
    assert process.returncode == -signal.SIGINT, text
    assert text.rstrip().endswith("KeyboardInterrupt"), text
    assert "Exception ignored" not in text
    assert processes(marked.variables[MARK]) == []
    assert half_made(marked) == []
    check_that_it_can_be_made_up_for(point, marked, pantry, registry_line, index_line)


def check_that_it_can_be_made_up_for(
    point: str, marked: Any, pantry: Any, registry_line: Relay, index_line: Relay
) -> None:
    """Nothing is tagged; with the line as fast as it was, the same bake gives a valid image."""
    registry_line.up_bytes_per_s = registry_line.down_bytes_per_s = index_line.down_bytes_per_s = None
    assert images_of(marked) == []
    image = marked.bake(**order(point, pantry, index_line))
    assert not image.reused
    image.validate()
    assert len(images_of(marked)) == 1


def half_made(bakery: Any) -> list[str]:
    """Return files of the cache that no bake should leave."""
    cache = bakery.folder / "cache"
    scratch = [path for name in ("scratch", "downloads") for path in (cache / name).rglob("*")]
    hidden = [path for path in cache.rglob(".*") if path.is_file() and path.stat().st_size]
    return [str(path.relative_to(cache)) for path in (*scratch, *hidden)]


def images_of(bakery: Any) -> list[str]:
    """Return the tags of images, which the registry says itself."""
    import urllib.error
    import urllib.request

    host, _, path = bakery.repository.partition("/")
    try:
        with urllib.request.urlopen(f"http://{host}/v2/{path}/tags/list", timeout=10) as answer:
            tags = json.loads(answer.read())["tags"] or []
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 404:
                raise
        return []
    return [tag for tag in tags if tag.startswith("v1-")]


@pytest.mark.parametrize("point", ["downloading", "compiling", "uploading"])
def test_a_killed_bake_is_made_up_for(
    point: str, marked: Any, pantry: Any, registry_line: Relay, index_line: Relay
) -> None:
    """After kill -9 no process is left, no image is tagged, and the same bake succeeds afterwards."""
    process, said = reach(point, marked, pantry, (registry_line, index_line))
    process.kill()
    process.wait()
    said.all(60)
    close(process)
    eventually_gone(lambda: processes(marked.variables[MARK]))
    check_that_it_can_be_made_up_for(point, marked, pantry, registry_line, index_line)


def test_a_killed_bake_leaves_the_layout_intact(bakery: Any, pantry: Any, index_line: Relay) -> None:
    """The image that was there is whole, the killed one has no tag, umoci still reads the layout, and the bake succeeds then."""
    there = bakery.bake(pypi={"listener": ""}, index=pantry.index.url)
    index_line.down_bytes_per_s = 400_000
    process = bakery.start(pypi={"hefty": "1.0", "listener": ""}, index=f"http://{index_line.address}/simple")
    said = Said(process)
    try:
        until(lambda: "building" in said.text and index_line.received_bytes > 500_000, process, said)
    finally:
        process.kill()
        said.all(60)
        close(process)
    folder = Path(bakery.repository.removeprefix("oci:"))
    index = json.loads((folder / "index.json").read_bytes())
    tags = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]]
    assert sum(tag.startswith("v1-") for tag in tags) == 1
    there.validate()
    umoci = wanted_program("umoci", brought_by="apt-get install umoci")
    subprocess.run([umoci, "ls", "--layout", str(folder)], check=True, capture_output=True)
    index_line.down_bytes_per_s = None
    bakery.bake(pypi={"hefty": "1.0", "listener": ""}, index=f"http://{index_line.address}/simple").validate()


@pytest.mark.parametrize("place", ["layout", "registry"])
def test_bakes_at_once_do_not_disturb_each_other(place: str, bakery: Any, marked: Any, pantry: Any) -> None:
    """Three processes with one cache bake the same image, and two others other ones, into one place: all are valid, equal ones equal."""
    chosen = bakery if place == "layout" else marked
    wheels = {"index": pantry.index.url}
    same = {"pypi": {"hefty": "1.0", "talker": ""}, **wheels}
    others = [{"pypi": {"listener": "", "hefty": ""}, **wheels}, {"pypi": {"talker": ""}, **wheels}]
    started = [chosen.start(**asked) for asked in (same, same, same, *others)]
    try:
        baked = [chosen.finish(process) for process in started]
    finally:
        for process in started:
            close(process)
    assert len({image.digest for image in baked[:3]}) == 1
    assert len({image.digest for image in baked}) == 3
    for image in baked[2:]:
        image.validate()
    again = chosen.elsewhere("again").bake(**same)
    assert again.reused
    assert again.digest == baked[0].digest
    catalogue = catalogue_of(chosen)
    assert catalogue
    repository = open_repository(chosen.repository)
    assert all(repository.has_blob(digest) for digest in catalogue)


def catalogue_of(bakery: Any) -> list[str]:
    """Return the digests of the layers that the repository's catalogue knows."""
    from prebuilt.native.catalogue import Catalogue
    from prebuilt.oci.documents import RepositoryDocuments

    xy = f"{sys.version_info[0]}.{sys.version_info[1]}"
    documents = RepositoryDocuments(open_repository(bakery.repository))
    catalogue = Catalogue(documents=documents, name=f"layers-v1-linux-64-py{xy}-zstd")
    return [layer.descriptor.digest for layer in catalogue.read().values()]
