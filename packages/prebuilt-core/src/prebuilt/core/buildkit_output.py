"""What a build by BuildKit says (``--progress=plain``): made readable as it comes, and kept by step, for the error."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence

from prebuilt.core.build_service import KEPT_LINES
from prebuilt.core.errors import redact

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_STEP = re.compile(r"#(\d+) ")
_FAILED_STEP = re.compile(r"#(\d+) (?:\d+\.\d+ )?ERROR: (?!.*context canceled)")
# Bytes so far of one blob, many times a second; and steps of the tool's own that say nothing about the image.
_NOISE = re.compile(
    r"#\d+ (?:sha256:[0-9a-f]{64} .*|extracting sha256:.*|transferring \w+:.*|resolve .*|\.\.\.|DONE 0\.\ds)"
)
# What a step of ours sees of the context: two long names for each file.
_MOUNT = re.compile(r"--mount=type=bind,\S+ ")
_PULLED = re.compile(r"source metadata for (\S+?):? ")
_PULLING = re.compile(r"#(?P<step>\d+) \[[^]]+\] (?:load metadata for|FROM) (?P<image>\S+)")
_SUMMARY_LINES = 20  # of what is said after a step has failed: where it is in the Dockerfile, and the error


def pulled_image(reason: str, lines: Sequence[str] = ()) -> str | None:
    """Return the image that could not be pulled, by its full name; None where a build failed for another reason.

    Args:
        reason: Why the build failed, in BuildKit's words.
        lines: Of :attr:`BuildKitOutput.lines`: layers of an image that was found may still be out of reach.
    """
    found = _PULLED.search(reason)
    if found:
        return found[1]
    pulling = {step["step"]: step["image"] for step in map(_PULLING.match, lines) if step}
    failed = next((step[1] for step in map(_FAILED_STEP.match, lines) if step), "")
    return pulling.get(failed)


def pulled_host(reason: str) -> str | None:
    """Return the registry of the image that could not be pulled; None where a build failed for another reason."""
    image = pulled_image(reason)
    return image.partition("/")[0] if image else None


class BuildKitOutput:
    """Lines of one build. Called from one thread at a time."""

    def __init__(self, show: Callable[[str], None]) -> None:
        """Pass readable lines on to `show`."""
        self._show = show
        self._last: deque[str] = deque(maxlen=KEPT_LINES)
        self._steps: dict[str, deque[str]] = {}
        self._failed: str | None = None

    def __call__(self, line: str) -> None:
        """Take one line."""
        text = redact(_MOUNT.sub("", _ESCAPE.sub("", line)).rstrip())
        if not text or _NOISE.fullmatch(text):
            return
        self._last.append(text)
        step = _STEP.match(text)
        if step:
            self._steps.setdefault(step[1], deque(maxlen=KEPT_LINES)).append(text)
        failed = _FAILED_STEP.match(text)
        if failed and self._failed is None:
            self._failed = failed[1]
        self._show(text)

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines; where steps ran side by side, those of the one that failed come first, and the summary last."""
        last = tuple(self._last)
        if self._failed is None:
            return last
        summary = tuple(line for line in last if not _STEP.match(line))[-_SUMMARY_LINES:]
        return (*tuple(self._steps[self._failed])[-(KEPT_LINES - len(summary)) :], *summary)
