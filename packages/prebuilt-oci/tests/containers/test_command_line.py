"""What Docker and Podman are told, as far as it does not need them to see it."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core import tool_process
from prebuilt.core.errors import ContainerError
from prebuilt.oci.containers import ContainerRun, Mount, command_line_run
from prebuilt.oci.containers.command_line import CommandLine
from prebuilt.oci.containers.command_line_run import CommandLineContainer, environment, run_arguments
from prebuilt.oci.containers.image_archive import image_archive
from prebuilt.oci.containers.image_source import ImageSource
from prebuilt.oci.layout import LayoutRepository
from prebuilt.testing.tar_image import TarLayer, push_tar_image
from prebuilt.testing.waiting import eventually

IMAGE = f"host/image@sha256:{'0' * 64}"


def test_values_go_by_the_environment() -> None:
    """Secrets and newlines are safe there."""
    arguments, passed = environment({"TOKEN": "a\nb", "PLAIN": "c"}, {"PATH": "/bin"})
    assert arguments == ["--env", "TOKEN", "--env", "PLAIN"]
    assert passed == {"PATH": "/bin", "TOKEN": "a\nb", "PLAIN": "c"}


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "DOCKER_HOST", "https_proxy", "NO_PROXY", "CONTAINERS_CONF", "XDG_RUNTIME_DIR", "LD_PRELOAD"],
)
def test_variables_that_steer_the_command_line_go_by_arguments(name: str) -> None:
    """The container gets them, the command line keeps its own; where both are equal nothing need be shown."""
    assert environment({name: "inside"}, {name: "outside"}) == (["--env", f"{name}=inside"], {name: "outside"})
    assert environment({name: "same"}, {name: "same"}) == (["--env", name], {name: "same"})


def test_mounts_may_have_any_name() -> None:
    """Commas and quotes are as in CSV, which is what the command lines read."""
    mount = Mount(source=Path('/a,b"c'), target="/x y", read_only=True)
    run = ContainerRun(image=IMAGE, command=("true",), mounts=(mount,))
    (argument,) = [a for a in run_arguments(run, user="1:2", gpus=()) if a.startswith("--mount=")]
    (fields,) = csv.reader([argument.removeprefix("--mount=")])
    assert fields == ["type=bind", 'source=/a,b"c', "target=/x y", "readonly"]


def test_limits_and_place() -> None:
    """Only what is asked for is said."""
    run = ContainerRun(image=IMAGE, command=("true",), workdir="/w", memory_mb=5, cpus=0.5, gpus=2)
    arguments = run_arguments(run, user="1:2", gpus=("--gpus=2",))
    assert {"--user=1:2", "--workdir=/w", "--memory=5m", "--cpus=0.5", "--gpus=2"} <= set(arguments)
    plain = run_arguments(ContainerRun(image=IMAGE, command=("true",)), user="1:2", gpus=())
    assert not [a for a in plain if a.startswith(("--workdir", "--memory", "--cpus", "--gpus", "--mount"))]


def test_a_program_that_is_not_there() -> None:
    """The error says so."""
    with pytest.raises(ContainerError, match="no program no-such-docker in PATH"):
        CommandLine("no-such-docker").ask("info")


def test_a_program_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has its last words, whether it is asked, made to work, or fed more than it reads."""
    program = tmp_path / "failing"
    program.write_text("#!/bin/sh\necho why it failed >&2\nexit 5\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    failing = CommandLine("failing")
    with pytest.raises(ContainerError, match="ask failing to info: why it failed"):
        failing.ask("info")
    with pytest.raises(ContainerError, match="ask failing to load: why it failed"):
        failing.do("load", feed=(b"x" * 100_000 for _ in range(100)))


def test_a_program_is_stopped_with_what_wanted_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C or at a time limit no pull goes on."""
    program = tmp_path / "pulling"
    program.write_text(
        f"#!/bin/sh\ntrap 'echo stopped > {tmp_path}/end; exit 1' TERM\ntouch {tmp_path}/began\nsleep 60 & wait\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    waits, wait = threading.Event(), tool_process._wait

    def note_wait(*arguments: Any) -> bool:
        waits.set()
        return wait(*arguments)

    monkeypatch.setattr(tool_process, "_wait", note_wait)

    def interrupt() -> None:
        assert waits.wait(60)
        eventually((tmp_path / "began").exists)
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor(1) as other, pytest.raises(KeyboardInterrupt):
        other.submit(interrupt)
        CommandLine("pulling").do("pull", "image")
    assert (tmp_path / "end").read_text() == "stopped\n"


@pytest.mark.parametrize(("compression", "magic"), [("gzip", b"\x1f\x8b"), ("zstd", None), ("none", None)])
def test_archives_have_layers_that_old_engines_read(tmp_path: Path, compression: str, magic: bytes | None) -> None:
    """Gzip is passed through, everything else comes plain; a layer is there once, and those that are known not at all."""
    layout = LayoutRepository(tmp_path / "layout")
    tars = [TarLayer().add("known"), TarLayer().add("a"), TarLayer().add("b"), TarLayer().add("a")]
    reference = push_tar_image(layout, tars, compression=compression)
    source = ImageSource(tmp_path / "images", lambda _: layout)
    image = source.get(reference)
    chunks = image_archive(image, source.config(image), layout, tag="some/name:tag", known_layers=1)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    (manifest,) = json.loads(files["manifest.json"])
    assert manifest["RepoTags"] == ["some/name:tag"]
    assert json.loads(files[manifest["Config"]])["rootfs"]["diff_ids"] == list(image.diff_ids)
    names = manifest["Layers"]
    assert names[1] == names[3]
    assert set(files) == {"manifest.json", manifest["Config"], names[1], names[2]}
    expected = tars[2].data
    assert files[names[2]].startswith(magic) if magic else files[names[2]] == expected


_ENGINE = """\
#!/bin/sh
cd {folder}
case $1 in
run) while [ ! -e end ]; do sleep 0.02; done; exit 3;;
kill) touch asked; [ -e started ] || exit 125; echo "$2" >> sent; case $(wc -l < sent) in 2) touch end;; esac;;
rm) echo "$@" >> removed;;
esac
"""


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandLineContainer]:
    """Return a container of an engine that starts it when there is a file ``started``, and ends it after two signals."""
    program = tmp_path / "engine"
    program.write_text(_ENGINE.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    container = CommandLineContainer(CommandLine("engine"), (), os.environ, stdout=None, stderr=None)
    yield container
    container.kill()


def test_signals_wait_for_the_container_to_start(tmp_path: Path, container: CommandLineContainer) -> None:
    """The command gets those that came before it could hear, in order; what comes after its end does nothing."""
    for number in (signal.SIGTERM, signal.SIGINT):
        container.send_signal(number)
    eventually((tmp_path / "asked").exists)
    assert not (tmp_path / "sent").exists()
    (tmp_path / "started").touch()
    assert container.wait() == 3
    container.send_signal(signal.SIGTERM)
    assert (tmp_path / "sent").read_text().split() == ["--signal=15", "--signal=2"]
    assert not (tmp_path / "removed").exists()


def test_a_container_that_takes_no_signal_is_removed(
    tmp_path: Path, container: CommandLineContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends also an engine that hangs."""
    monkeypatch.setattr(command_line_run, "_DELIVERY_S", 0.1)
    container.send_signal(signal.SIGINT)
    assert container.wait() == 128 + signal.SIGKILL
    assert (tmp_path / "removed").read_text().startswith("rm --force --volumes metaflow-prebuilt-")
