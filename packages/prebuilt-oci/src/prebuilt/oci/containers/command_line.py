"""The command lines of Docker and Podman: asking them things, with their failures as errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

from prebuilt.core.errors import ContainerError

_QUESTION_TIMEOUT_S = 20  # a daemon that is there answers in milliseconds; one behind a dead tunnel never does
_SHOWN_LINES = 10


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The program ``docker`` or ``podman``; which daemon it talks to is its own affair (contexts, ``DOCKER_HOST``)."""

    program: str

    def ask(self, *arguments: str) -> str:
        """Return what the program writes to its standard output.

        Raises:
            ContainerError: It is not there, does not answer, or fails.
        """
        try:
            done = subprocess.run(
                [self.path(), *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_QUESTION_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self._error(arguments, f"no answer within {_QUESTION_TIMEOUT_S} s") from error
        if done.returncode != 0:
            raise self._error(arguments, _last_lines(done.stderr or done.stdout) or f"it ended with {done.returncode}")
        return done.stdout.decode(errors="replace")

    def find_image(self, reference: str) -> dict[str, Any] | None:
        """Return what is known of a local image, or None if it is not there.

        Raises:
            ContainerError: The program could not be asked.
        """
        try:
            found = json.loads(self.ask("image", "inspect", reference))
        except ContainerError as error:
            if "no such" in error.reason.lower() or "not known" in error.reason.lower():
                return None
            raise
        return cast("dict[str, Any]", found[0])

    def do(self, *arguments: str, feed: Callable[[BinaryIO], None] | None = None) -> None:
        """Run the program for as long as it takes; `feed` writes its standard input.

        Raises:
            ContainerError: It fails; its last lines are in the reason.
        """
        with tempfile.TemporaryFile() as output:
            with subprocess.Popen(
                [self.path(), *arguments],
                stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            ) as process:
                try:
                    if feed is not None:
                        _feed(feed, cast("IO[bytes]", process.stdin))
                except BaseException:
                    process.kill()
                    raise
            if process.returncode != 0:
                output.seek(0)
                raise self._error(arguments, _last_lines(output.read()) or f"it ended with {process.returncode}")

    def path(self) -> str:
        """Return the program's path.

        Raises:
            ContainerError: It is not installed.
        """
        found = shutil.which(self.program)
        if found is None:
            raise ContainerError(f"use {self.program}", reason=f"there is no program {self.program} in PATH")
        return found

    def _error(self, arguments: tuple[str, ...], reason: str) -> ContainerError:
        words = " ".join(argument for argument in arguments[:2] if not argument.startswith("-"))
        return ContainerError(f"ask {self.program} to {words}", reason=reason)


def _feed(feed: Callable[[BinaryIO], None], pipe: IO[bytes]) -> None:
    try:
        with pipe:
            feed(cast("BinaryIO", pipe))
    except BrokenPipeError:
        return  # the program has ended early and says why


def _last_lines(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return "\n".join(line.strip() for line in lines[-_SHOWN_LINES:])
