"""The command lines of Docker and Podman: asking them things, with their failures as errors."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from prebuilt.core.errors import ContainerError
from prebuilt.core.tool_process import run_tool

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

    def do(self, *arguments: str, feed: Iterable[bytes] = ()) -> None:
        """Run the program for as long as it takes; its standard input is `feed`. It does not outlive this call, nor this process.

        Raises:
            ContainerError: It fails; its last lines are in the reason.
        """
        said: deque[str] = deque(maxlen=_SHOWN_LINES)
        status = run_tool([self.path(), *arguments], stdin=feed, output=said.append)
        if status != 0:
            raise self._error(arguments, _stripped(said) or f"it ended with {status}")

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


def _last_lines(output: bytes) -> str:
    return _stripped(output.decode(errors="replace").strip().splitlines()[-_SHOWN_LINES:])


def _stripped(lines: Iterable[str]) -> str:
    return "\n".join(line.strip() for line in lines).strip()
