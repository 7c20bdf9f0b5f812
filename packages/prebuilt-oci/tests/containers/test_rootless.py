"""The rootless engine: the contract of engines, and what is its own. Runs as root and as any other user."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.register_assert_rewrite("prebuilt.testing.container_contract")

from prebuilt.core.errors import ContainerError, DigestMismatchError  # noqa: E402
from prebuilt.oci.containers import ContainerRun, Engine, Mount  # noqa: E402
from prebuilt.oci.containers.rootless import RootlessContainer  # noqa: E402
from prebuilt.oci.layout import LayoutRepository  # noqa: E402
from prebuilt.testing.container_contract import ContainerEngineContract, ContainerWorld, Shell, container_world  # noqa: E402
from prebuilt.testing.processes import command_lines  # noqa: E402
from prebuilt.testing.tar_image import TarLayer, busybox_layer, push_tar_image  # noqa: E402

pytestmark = [
    pytest.mark.container,
    pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's"),
]


@pytest.fixture(scope="module")
def world() -> Iterator[ContainerWorld]:
    """The rootless engine, where the kernel allows it."""
    with container_world("rootless") as world:
        yield world


class TestRootless(ContainerEngineContract):
    def test_root_inside_is_the_user_outside(self, sh: Shell) -> None:
        """The command is root in its own eyes."""
        assert sh("id -u; id -g; echo $HOME")[1].split() == ["0", "0", "/root"]

    def test_the_init_shows_nothing_of_the_machine(self, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        """Root inside may look at PID 1, which is ours."""
        monkeypatch.setenv("OUTSIDE", "secret")
        assert "secret" not in sh("cat /proc/1/environ /proc/1/cmdline; ls -l /proc/1/fd /proc/1/cwd /proc/1/root")[1]

    def test_threads_other_than_the_main_one_may_run(self, engine: Engine, image: str) -> None:
        """Only signals are not passed on from there."""
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(engine.run, ContainerRun(image=image, command=("sh", "-c", "exit 4"))).result() == 4

    def test_an_exception_from_a_signal_handler_kills_it(
        self, engine: Engine, image: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A time limit by SIGALRM leaves nothing running."""
        waits, wait = threading.Event(), RootlessContainer.wait

        def note_wait(container: RootlessContainer) -> int:
            waits.set()
            return wait(container)

        def ring() -> None:
            assert waits.wait(60)
            os.kill(os.getpid(), signal.SIGALRM)

        def give_up(*_: object) -> None:
            raise TimeoutError

        monkeypatch.setattr(RootlessContainer, "wait", note_wait)
        seconds = str(secrets.randbelow(10**9) + 10**9)  # as no other process
        before = signal.signal(signal.SIGALRM, give_up)
        try:
            with ThreadPoolExecutor(1) as other, pytest.raises(TimeoutError):
                other.submit(ring)
                engine.run(ContainerRun(image=image, command=("sleep", seconds)))
        finally:
            signal.signal(signal.SIGALRM, before)
        assert [line for _, line in command_lines() if seconds in line] == []

    def test_nothing_is_left_after_a_run(self, sh: Shell, folder: Path) -> None:
        """What a run wrote is removed, folders that are closed to their owner included."""
        assert (
            sh("mkdir -p /closed/inside; echo x > /closed/inside/x; chmod 0 /closed/inside /closed; rm -rf /data")[0]
            == 0
        )
        assert list((folder / "cache" / "runs").iterdir()) == []

    def test_leftovers_of_killed_runs_are_removed_by_the_next(self, sh: Shell, folder: Path) -> None:
        """A scratch folder whose lock nobody holds goes away; one in use stays."""
        runs = folder / "cache" / "runs"
        (runs / "0123" / "work" / "work").mkdir(parents=True)
        (runs / "0123" / "work" / "work").chmod(0)
        (runs / "0123.lock").touch()
        sh("true")
        assert list(runs.iterdir()) == []

    def test_an_image_may_have_100_layers(self, engine: Engine, layout: LayoutRepository) -> None:
        """Options of a mount must fit into a page; those of 126 layers do."""
        layers = [busybox_layer(), *(TarLayer().add(f"layer{i}").add("top", data=str(i).encode()) for i in range(125))]
        image = push_tar_image(layout, layers, compression="none")
        line = "test $(ls -d /layer* | wc -l) = 125 && test $(cat /top) = 124"
        assert engine.run(ContainerRun(image=image, command=("sh", "-c", line))) == 0

    def test_a_damaged_layer_is_refused_and_leaves_nothing(
        self, engine: Engine, layout: LayoutRepository, folder: Path
    ) -> None:
        """A layer that is not what its image's configuration says is not used, and not kept."""
        before = (
            set((folder / "cache" / "layers" / "1").iterdir())
            if (folder / "cache" / "layers" / "1").exists()
            else set()
        )
        image = push_tar_image(layout, [TarLayer().add("lie")], diff_ids=["sha256:" + "0" * 64])
        with pytest.raises(DigestMismatchError, match="sha256:0000"):
            engine.run(ContainerRun(image=image, command=("true",)))
        after = set((folder / "cache" / "layers" / "1").iterdir())
        assert {path.suffix for path in after - before} <= {".lock"}

    def test_an_image_for_another_processor_is_refused(self, engine: Engine, layout: LayoutRepository) -> None:
        """The error names both."""
        image = push_tar_image(layout, [TarLayer()], architecture="riscv64")
        with pytest.raises(ContainerError, match=r"linux/riscv64, this machine is linux/(amd64|arm64)"):
            engine.run(ContainerRun(image=image, command=("true",)))

    def test_an_image_runs_without_its_layout_once_it_ran(self, engine: Engine, folder: Path) -> None:
        """What is pinned and unpacked is not asked for again."""
        gone = folder / "gone"
        image = push_tar_image(LayoutRepository(gone), [busybox_layer()])
        run = ContainerRun(image=image, command=("true",))
        assert engine.run(run) == 0
        gone.rename(folder / "elsewhere")
        assert engine.run(run) == 0

    def test_an_image_that_is_not_there(self, engine: Engine, folder: Path) -> None:
        """The error names the image."""
        image = f"oci:{folder}/layout@sha256:{'1' * 64}"
        with pytest.raises(ContainerError, match=r"read an image at oci:.*1111.* is not there"):
            engine.run(ContainerRun(image=image, command=("true",)))

    def test_links_of_the_image_lead_no_mount_out_of_it(
        self, engine: Engine, layout: LayoutRepository, folder: Path
    ) -> None:
        """The target of a mount is looked up inside, also through symbolic links, and ``/etc/hosts`` may be one."""
        (folder / "outside").mkdir()
        links = (
            TarLayer()
            .symlink("way", str(folder / "outside"))
            .folder("etc")
            .symlink("etc/hosts", f"{folder}/outside/hosts")
        )
        image = push_tar_image(layout, [busybox_layer(), links])
        mount = Mount(source=folder / "layout" / "oci-layout", target="/way/file")
        line = f"grep -q 1.0.0 {folder}/outside/file && cat /etc/hosts > /dev/null"
        assert engine.run(ContainerRun(image=image, command=("sh", "-c", line), mounts=(mount,))) == 0
        assert list((folder / "outside").iterdir()) == []

    def test_the_network_is_the_machines(self, sh: Shell) -> None:
        """Names are looked up as on the machine."""
        assert sh("cat /etc/hosts")[1] == Path("/etc/hosts").read_text()

    def test_kernel_settings_cannot_be_changed(self, sh: Shell) -> None:
        """Root inside may be root outside, so what only file permissions protect is read-only."""
        code, _, err = sh("echo 1 > /proc/sys/vm/swappiness")
        assert code == 1
        assert "Read-only" in err
        assert sh("echo x > /sys/kernel/mm/ksm/run")[0] != 0

    def test_host_processes_and_folders_are_out_of_reach(self, sh: Shell, folder: Path) -> None:
        """The machine's root is not mounted anywhere inside, and its processes are not listed."""
        assert sh(f"test -e {folder} || test -e /../{folder}")[0] == 1
        seconds = str(secrets.randbelow(10**9) + 10**9)  # as no other process
        with subprocess.Popen(["sleep", seconds]) as outside:
            try:
                code, seen, _ = sh("cat /proc/[0-9]*/cmdline")
            finally:
                outside.kill()
        assert code == 0
        assert "/proc/" in seen
        assert seconds not in seen

    def test_limits_that_are_not_held_are_said(self, engine: Engine, image: str) -> None:
        """A limit is not dropped in silence."""
        run = ContainerRun(image=image, command=("true",), memory_mb=512, cpus=1.5)
        assert engine.notes(run) == (
            "prebuilt: the rootless engine does not limit memory (512 MB) and processors (1.5); Docker and Podman do",
        )
        assert engine.notes(ContainerRun(image=image, command=("true",))) == ()

    def test_gpus_are_refused(self, engine: Engine, image: str) -> None:
        """The error names the engines that have them."""
        with pytest.raises(ContainerError, match="use Docker or Podman"):
            engine.run(ContainerRun(image=image, command=("true",), gpus=1))

    def test_device_nodes_of_layers_are_left_out(self, engine: Engine, layout: LayoutRepository) -> None:
        """Images of base systems have some in /dev; nobody needs them."""
        devices = (
            TarLayer()
            .folder("dev")
            .add("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3)
            .add("odd", tarfile.BLKTYPE)
        )
        image = push_tar_image(layout, [busybox_layer(), devices])
        assert engine.run(ContainerRun(image=image, command=("sh", "-c", "test ! -e /odd && echo > /dev/null"))) == 0
