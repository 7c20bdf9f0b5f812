"""The classic builder: part of every engine, and reached through the SDK."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from prebuilt.docker.engine_images import image_facts, remove_image
from prebuilt.docker.engine_login import log_in
from prebuilt.docker.engine_stream import Event, followed
from prebuilt.docker.image_build import ImageBuild

if TYPE_CHECKING:
    import docker

_STEP = re.compile(
    r"(?:\[\d+/\d+\] )?STEP \d+(?:/\d+)? ?: ?(?P<instruction>\w*)(?: +(?:--\S+ +)*(?P<argument>\S+))?", re.IGNORECASE
)
_IMAGE = re.compile(r"\s*-+> (?P<id>[0-9a-f]{11,64})\s*")
_log = logging.getLogger(__name__)
_FINAL_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(?P<image>\S+)", re.IGNORECASE | re.MULTILINE)


class ClassicBuildError(Exception):
    """The build failed; the text is the engine's.

    Attributes:
        pulled: The image that the step that failed is built on, where it is such a step.
    """

    def __init__(self, text: str, pulled: str | None = None) -> None:
        """Keep both."""
        super().__init__(text)
        self.pulled = pulled


def build_classic(client: docker.APIClient, build: ImageBuild) -> None:
    """Build an image, and leave nothing else in the engine: no container, and no image of another stage or step.

    Such images would serve as a cache for nothing but the same build again, and each is as large as the environment.

    Raises:
        ClassicBuildError: It failed.
        CancelledError: It was cancelled.
        DeadlineError: It took too long.
    """
    log = ClassicLog()
    log_in(client, build.logins)
    try:
        with followed(client, lambda: _start(client, build), build.limits) as events:
            for line in log.lines(events):
                build.output(line)
    finally:
        _remove_steps(client, log.steps, build.output)


def _start(client: docker.APIClient, build: ImageBuild) -> Iterator[Event]:
    return cast(
        "Iterator[Event]",
        client.build(
            fileobj=cast("Any", build.archive()),
            custom_context=True,
            tag=build.name,
            buildargs=dict(build.arguments),
            network_mode=build.network,
            platform=None if is_pinned(build.dockerfile) else build.platform,
            use_config_proxy=True,
            nocache=True,  # no image of a step is another build's too: each can be removed
            rm=True,
            forcerm=True,
            decode=True,
            timeout=cast("Any", build.limits.left_s),  # steps may say nothing for long
        ),
    )


def is_pinned(dockerfile: str) -> bool:
    """Return whether the final stage's base is named by its digest, which decides what platform the image is for.

    Then the classic builder must not be told: a platform would hold for the stages that run things, too.
    """
    images = _FINAL_FROM.findall(dockerfile)
    return bool(images) and "@sha256:" in images[-1]


class ClassicLog:
    """Reads the events of a build.

    Attributes:
        steps: The images that its steps made, in order: all but the bases.
    """

    def __init__(self) -> None:
        """Begin with nothing read."""
        self.steps: list[str] = []
        self._instruction = ""
        self._pulled: str | None = None
        self._text = ""

    def lines(self, events: Iterator[Event]) -> Iterator[str]:
        """Yield what users read.

        Raises:
            ClassicBuildError: The engine says that the build failed.
        """
        failure = None
        for event in events:
            yield from self._whole_lines(str(event.get("stream", "")))
            yield from _pull_lines(event)
            failure = failure or failure_of(event)
        if self._text:
            yield self._text
        if failure:
            raise ClassicBuildError(failure, self._pulled)

    def _whole_lines(self, text: str) -> Iterator[str]:
        *lines, self._text = (self._text + text).split("\n")
        for line in lines:
            self._see(line)
            if line.strip():
                yield line.rstrip()

    def _see(self, line: str) -> None:
        step, image = _STEP.match(line), _IMAGE.fullmatch(line)
        if step:
            self._instruction = step["instruction"].upper()
            self._pulled = step["argument"] if self._instruction == "FROM" else None
        elif image and self._instruction != "FROM":
            self.steps.append(image["id"])


def failure_of(event: Event) -> str | None:
    """Return what failed, where an event of the engine says so."""
    detail = event.get("errorDetail")
    if isinstance(detail, dict) and detail.get("message"):
        return str(detail["message"]).strip()
    if event.get("error"):
        return str(event["error"]).strip()
    return str(event["message"]).strip() if set(event) == {"message"} else None


def _pull_lines(event: Event) -> Iterator[str]:
    """Yield the states of a pull of a base, without the bytes of each layer."""
    if "status" in event and not event.get("progressDetail"):
        name = str(event.get("id", ""))
        yield f"{name}: {event['status']}" if name else str(event["status"])


def _remove_steps(client: docker.APIClient, images: list[str], note: Callable[[str], None]) -> None:
    """Remove images that nothing names; those that carry another image stay, and go with it. One that fails is one only."""
    for image in reversed(images):
        try:
            facts = image_facts(client, image)
        except OSError as error:  # those of the SDK are; an engine that is gone is said by what ends the build
            _log.info("%s, the image of a step, may stay in the engine: %s", image, error)
            continue
        if facts is not None and not facts.get("RepoTags") and not facts.get("RepoDigests"):
            remove_image(client, image, outlasts_container=True, note=note)
