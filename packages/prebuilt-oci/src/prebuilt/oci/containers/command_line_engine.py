"""What the engines Docker and Podman share: both are driven by their command lines, which understand nearly the same words."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prebuilt.core.errors import ContainerError
from prebuilt.oci.containers.command_line import CommandLine
from prebuilt.oci.containers.command_line_run import CommandLineContainer, environment, run_arguments
from prebuilt.oci.containers.engine import Engine, Launch, Output
from prebuilt.oci.containers.image import RunnableImage
from prebuilt.oci.containers.image_archive import image_archive
from prebuilt.oci.containers.image_source import ImageSource
from prebuilt.oci.containers.lock_file import locked
from prebuilt.oci.containers.pull import ImagePull
from prebuilt.oci.containers.run import ContainerRun
from prebuilt.oci.reference import is_layout, parse_reference

LOADED = "localhost/metaflow-prebuilt/layout"
"""What images of layouts are called in an engine; the tag is from the digest of their configuration."""

ROOT = "0:0"


class CommandLineEngine(Engine):
    """Runs commands by ``docker run`` or ``podman run``.

    Images of registries are pulled by the engine, by digest and with its own credentials; those of image layouts are loaded
    into it once.
    """

    def __init__(self, cache: Path, images: ImageSource) -> None:
        """Read images of layouts from `images`; keep lock files below `cache`."""
        self._locks = cache / "loads"
        self._images = images
        self._command_line = CommandLine(self.name)

    @abstractmethod
    def user(self) -> str:
        """Return the ``uid:gid`` inside that owns what this process's user owns outside."""

    @abstractmethod
    def processors(self) -> int:
        """Return how many processors containers can have."""

    @abstractmethod
    def gpu_arguments(self, count: int) -> Sequence[str]:
        """Return the arguments that give a container `count` GPUs."""

    def engine_arguments(self) -> Sequence[str]:
        """Return arguments of every run; PID 1 must be an init: a command would not get the signals that it has no handler for."""
        return ("--init",)

    def adapted(self, run: ContainerRun) -> ContainerRun:
        """Return `run` in other words where the engine would refuse it: Docker gives nobody more processors than there are."""
        return replace(run, cpus=float(self.processors())) if self._wants_too_many(run) else run

    def notes(self, run: ContainerRun) -> tuple[str, ...]:
        """Return a line for a step that was written for a larger machine."""
        if not self._wants_too_many(run):
            return ()
        return (f"prebuilt: {self.name} has {self.processors()} processors for a step that asks for {run.cpus:g}",)

    def _wants_too_many(self, run: ContainerRun) -> bool:
        return run.cpus is not None and run.cpus > self.processors()

    def pull_arguments(self, repository: str) -> Sequence[str]:  # noqa: ARG002 - most engines need none
        """Return the arguments that a pull from `repository` needs."""
        return ()

    def known_layers(self, diff_ids: Sequence[str]) -> int:  # noqa: ARG002 - most engines want all layers
        """Return how many of these layers, from the bottom, an archive to be loaded may leave out."""
        return 0

    def prepare(self, run: ContainerRun) -> Launch:
        """Pull or load the image if it is missing. See :meth:`Engine.prepare`."""
        run = self.adapted(run)
        name, image_env = self._ensure_image(run.image)
        user = self.user()
        variables, own = environment({**_person(user, image_env), **run.env}, os.environ)
        arguments = run_arguments(run, user=user, gpus=self.gpu_arguments(run.gpus) if run.gpus else ())
        program, *rest = run.command
        words = [*self.engine_arguments(), *arguments, *variables, f"--entrypoint={program}", name, *rest]

        def launch(stdout: Output, stderr: Output) -> CommandLineContainer:
            return CommandLineContainer(self._command_line, words, own, stdout=stdout, stderr=stderr)

        return launch

    def _ensure_image(self, reference: str) -> tuple[str, dict[str, str]]:
        """Return what the image is called in the engine, and its variables."""
        repository = parse_reference(reference).repository
        if is_layout(repository):
            return self._ensure_loaded(self._images.get(reference))
        found = self._command_line.find_image(reference)
        if found is None:
            options = self.pull_arguments(repository)
            ImagePull(command_line=self._command_line, reference=reference, options=options).pull()
            found = self._command_line.find_image(reference)
        if found is None:
            raise ContainerError(
                f"pull an image with {self.name}", at=reference, reason="it is not there after it was pulled"
            )
        return reference, _variables(found)

    def _ensure_loaded(self, image: RunnableImage) -> tuple[str, dict[str, str]]:
        tag = f"{LOADED}:{image.config.digest.removeprefix('sha256:')[:40]}"
        if not _is_same(self._command_line.find_image(tag), image):
            with locked(self._locks / f"{self.name}.lock"):
                if not _is_same(self._command_line.find_image(tag), image):
                    self._load(image, tag)
        return tag, dict(image.env)

    def _load(self, image: RunnableImage, tag: str) -> None:
        repository, config = self._images.open(image.repository), self._images.config(image)
        known = self.known_layers(image.diff_ids)
        archive = image_archive(image, config, repository, tag=tag, known_layers=known)
        self._command_line.do("load", feed=archive)
        if not _is_same(self._command_line.find_image(tag), image):
            raise ContainerError(
                f"load an image into {self.name}", at=image.repository, reason="it came out as another image"
            )


def _is_same(found: Mapping[str, Any] | None, image: RunnableImage) -> bool:
    """Return whether a local image has the layers and variables of `image`; ids are of another kind in newer engines."""
    return (
        found is not None
        and tuple(found["RootFS"]["Layers"]) == image.diff_ids
        and _variables(found) == dict(image.env)
    )


def _variables(found: Mapping[str, Any]) -> dict[str, str]:
    pairs = (variable.partition("=") for variable in (found["Config"] or {}).get("Env") or ())
    return {name: value for name, _, value in pairs}


def _person(user: str, image_env: Mapping[str, str]) -> dict[str, str]:
    """Return what programs look up of a user whom the image's /etc/passwd does not know: a folder to write to, and a name."""
    if user == ROOT:
        return {}
    uid = user.partition(":")[0]
    person = {"HOME": "/tmp", "USER": uid, "LOGNAME": uid}  # noqa: S108 - inside the container
    return {name: value for name, value in person.items() if name not in image_env}
