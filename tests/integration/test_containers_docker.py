"""Containers by a real Docker Engine of the oldest supported version."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytest.register_assert_rewrite("prebuilt.testing.container_contract")

from prebuilt.core.errors import ContainerError  # noqa: E402
from prebuilt.core.settings import Settings  # noqa: E402
from prebuilt.oci.containers import ContainerRun, Engine, open_engine, select_engine  # noqa: E402
from prebuilt.oci.layout import LayoutRepository  # noqa: E402
from prebuilt.oci.open import open_repository  # noqa: E402
from prebuilt.testing.container_contract import ContainerEngineContract, ContainerWorld, Shell, container_world  # noqa: E402
from prebuilt.testing.engines.docker import docker_engine  # noqa: E402
from prebuilt.testing.engines.registry import distribution_registry  # noqa: E402
from prebuilt.testing.engines.wanted import wanted_engine  # noqa: E402
from prebuilt.testing.tar_image import TarLayer, busybox_layer, push_tar_image  # noqa: E402
from prebuilt.testing.waiting import eventually  # noqa: E402

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def world() -> Iterator[ContainerWorld]:
    """A daemon of our own, and the engine that talks to it."""
    with wanted_engine(), docker_engine() as docker, pytest.MonkeyPatch.context() as patch:
        for name, value in docker.environ.items():
            patch.setenv(name, value)
        with container_world("docker") as world:
            yield world


def docker(*arguments: str) -> str:
    """Return what the command line says."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


class TestDocker(ContainerEngineContract):
    def leftovers(self) -> Sequence[str]:
        """Containers, running or not."""
        return docker("ps", "--all", "--quiet").split()

    def test_it_is_selected(self, engine: Engine) -> None:
        """Docker is the first choice where it answers."""
        assert select_engine(Settings({}, {})).name == engine.name

    def test_images_of_layouts_are_loaded_once(self, sh: Shell) -> None:
        """A second run finds the image by its layers."""
        sh("true")
        before, since_s = docker("image", "ls", "--all", "--quiet"), time.time()
        sh("true")
        assert docker("image", "ls", "--all", "--quiet") == before
        time_span = (f"--since={since_s:.9f}", f"--until={time.time():.9f}")
        events = docker("events", *time_span, "--format={{.Action}}").split()
        assert "start" in events
        assert "load" not in events

    def test_layers_that_are_there_are_not_sent_again(self, engine: Engine, layout: LayoutRepository) -> None:
        """An image on top of a loaded one brings its own layers only: the others need not even be readable."""
        below = busybox_layer()
        first = push_tar_image(layout, [below], compression="none")
        assert engine.run(ContainerRun(image=first, command=("true",))) == 0
        second = push_tar_image(layout, [busybox_layer(), TarLayer().add("top")], compression="none")
        digest = _digest_of_first_layer(layout, second)
        blob = Path(layout.name.removeprefix("oci:")) / "blobs" / "sha256" / digest.removeprefix("sha256:")
        blob.rename(blob.with_suffix(".away"))
        try:
            assert engine.run(ContainerRun(image=second, command=("test", "-e", "/top"))) == 0
        finally:
            blob.with_suffix(".away").rename(blob)

    def test_images_of_registries_are_pulled_by_digest(self, engine: Engine, folder: Path) -> None:
        """The daemon pulls, and the digest is what it runs."""
        with wanted_engine(), distribution_registry(folder / "registry") as host:
            image = push_tar_image(open_repository(f"{host}/some/image"), [busybox_layer()])
            assert engine.run(ContainerRun(image=image, command=("true",))) == 0
            absent = f"{host}/some/image@sha256:{'0' * 64}"
            with pytest.raises(ContainerError, match="ask docker to pull"):
                engine.run(ContainerRun(image=absent, command=("true",)))

    def test_a_tag_is_pulled_where_nobody_knows_its_digest(self, engine: Engine, folder: Path) -> None:
        """A registry that lets only the daemon in names images by tags."""
        with wanted_engine(), distribution_registry(folder / "tags") as host:
            repository = open_repository(f"{host}/some/image")
            image = push_tar_image(repository, [busybox_layer()])
            manifest = repository.get_manifest(image.rpartition("@")[2])
            assert manifest is not None
            repository.put_manifest("tag", manifest.descriptor.media_type, manifest.data)
            assert engine.run(ContainerRun(image=f"{host}/some/image:tag", command=("true",))) == 0

    def test_limits_are_held(self, engine: Engine, image: str) -> None:
        """Memory and processors are limited by the daemon."""
        run = ContainerRun(image=image, command=("sleep", "60"), memory_mb=64, cpus=0.5)
        assert engine.notes(run) == ()
        container = engine.start(run)
        try:
            eventually(lambda: docker("ps", "--quiet"), within_s=120)
            limits = docker("inspect", "--format={{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", *self.leftovers())
        finally:
            container.kill()
        assert limits.split() == [str(64 << 20), "500000000"]

    def test_ordinary_users_keep_their_ids(self, engine: Engine, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        """A user other than root is itself inside, with a home and a name though no /etc/passwd knows it."""
        monkeypatch.setattr(os, "geteuid", lambda: 1234)
        monkeypatch.setattr(os, "getegid", lambda: 2345)
        assert sh("id -u; id -g; echo x > $HOME/x && echo $USER")[1].split() == ["1234", "2345", "1234"]

    def test_nobody_answers(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        """A named engine is not replaced by another one; the error is Docker's own."""
        monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/nobody.sock")
        with pytest.raises(ContainerError, match=r"(?i)cannot connect"):
            select_engine(Settings({"METAFLOW_PREBUILT_CONTAINER_ENGINE": "docker"}, {}))
        with pytest.raises(ContainerError, match=r"(?i)cannot connect"):
            open_engine("docker", Settings({}, {})).check()


def _digest_of_first_layer(layout: LayoutRepository, image: str) -> str:
    from prebuilt.oci.image import ImageManifest

    manifest = layout.get_manifest(image.rpartition("@")[2])
    assert manifest is not None
    return ImageManifest.parse(manifest.data).layers[0].digest
