"""Pushing an image that is in the engine."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import InvalidValueError, PrebuiltError
from prebuilt.core.progress import ImageProgress
from prebuilt.core.retry import Backoff
from prebuilt.docker.classic import failure_of
from prebuilt.docker.engine_images import image_facts, remove_image
from prebuilt.docker.engine_login import engine_login
from prebuilt.docker.engine_stream import Event, followed
from prebuilt.docker.failures import answer_of, cut_off, is_passing, push_failure
from prebuilt.docker.image_build import Limits
from prebuilt.oci.docker_config import Login
from prebuilt.oci.reference import Reference

if TYPE_CHECKING:
    import docker

# The image has lost its name to another build of the same, or a registry was confused by two pushes of the same layer.
_DISTURBED = (
    "does not exist",
    "no such image",
    "not known locally",
    "image not known",
    "digest invalid",
    "blob unknown to registry",
)

_PUSHED = re.compile(r"\S+: digest: (sha256:[0-9a-f]{64}) size: \d+")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImagePush:
    """The push of one image.

    Attributes:
        client: Of the engine that has the image; used by one thread at a time.
        image: Its name in the engine.
        reference: Where it goes; with a tag.
        login: For the registry; None for what Docker's file has.
        progress: Is told bytes.
        limits: What ends it early.
        backoff: How passing failures are met. The engine itself tries five times for each layer.
    """

    client: docker.APIClient
    image: str
    reference: Reference
    login: Login | None
    progress: ImageProgress
    limits: Limits
    backoff: Backoff = field(default_factory=lambda: Backoff(attempts=3, base_s=2.0))

    def push(self) -> Descriptor | None:
        """Push, and return the manifest's descriptor as the registry has it; None where the engine cannot tell.

        Raises:
            RegistryError: The registry refused it, or was not reached.
            CancelledError: It was cancelled.
            DeadlineError: It took too long.
            EngineError: The engine went away.
        """
        waits_s = self.backoff.waits_s()
        while True:
            try:
                digest = self._attempt()
            except PrebuiltError as error:
                wait_s = next(waits_s, None) if is_passing(error) or _was_disturbed(error) else None
                if wait_s is None:
                    raise
                self.progress.state(f"pushing again: {error.reason}")
                self.limits.cancellation.wait(wait_s)
            else:
                return self._served(digest) if digest else None

    def remove(self) -> None:
        """Remove the image from the engine by all names that the push gave it. What else names it, or uses it, keeps it."""
        for name in (self._target, *self._names_by_digest(), self.image):
            remove_image(self.client, name, note=self.progress.note)

    def forget_build(self) -> None:
        """Remove the name that the image had while it was built; it stays under the one that it was pushed as."""
        remove_image(self.client, self.image, note=self.progress.note)

    def _names_by_digest(self) -> list[str]:
        import docker.errors
        import requests

        repository = self.reference.repository
        try:
            return [f"{_familiar(repository)}@{digest}" for digest in _digests(self.client, self.image, repository)]
        except (docker.errors.DockerException, requests.RequestException):
            return []  # whatever keeps the engine from answering is said by what ended the push

    @property
    def _target(self) -> str:
        return f"{_familiar(self.reference.repository)}:{self.reference.tag}"

    @property
    def _auth(self) -> dict[str, str] | None:
        return engine_login(self.login) if self.login else None

    def _attempt(self) -> str | None:
        """Push once; return the digest of what was pushed if the engine says it: Podman knows the image by another one."""
        import docker.errors
        import requests
        import urllib3

        self.limits.check()
        try:
            self.client.tag(self.image, self.reference.repository, self.reference.tag)
            with followed(self.client, self._start, self.limits) as events:
                return self._read(events)
        except docker.errors.APIError as error:
            raise push_failure(str(self.reference), answer_of(error)) from error
        except docker.errors.DockerException as error:  # a credential helper that fails, above all
            raise push_failure(str(self.reference), str(error)) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise cut_off("push an image with Docker", str(self.reference), error) from error

    def _start(self) -> Iterator[Event]:
        repository, tag = self.reference.repository, self.reference.tag
        events = self.client.push(repository, tag=tag, stream=True, decode=True, auth_config=self._auth)
        return cast("Iterator[Event]", events)

    def _read(self, events: Iterator[Event]) -> str | None:
        digest, failure, sent = None, None, _Sent(self.progress)
        for event in events:
            failure = failure or failure_of(event)
            sent.see(event)
            digest = _pushed_digest(event) or digest
        if failure:
            raise push_failure(str(self.reference), failure)
        return digest

    def _served(self, digest: str) -> Descriptor | None:
        """Return what the registry tells the engine of the manifest: the engine knows neither its media type nor its size."""
        import docker.errors
        import requests

        name = str(self.reference.with_digest(digest))
        try:
            found = cast("Any", self.client).inspect_distribution(name, auth_config=self._auth)
            return Descriptor.from_json(found["Descriptor"])
        except (docker.errors.DockerException, requests.RequestException, KeyError, InvalidValueError) as error:
            _log.debug("the engine cannot describe %s: %s", name, error)
            return None


def _pushed_digest(event: Event) -> str | None:
    """Return the digest of the manifest that was pushed; an engine whose images are containerd's says it in words alone."""
    aux = event.get("aux")
    if isinstance(aux, dict) and aux.get("Digest"):
        return str(aux["Digest"])
    said = _PUSHED.fullmatch(str(event.get("status", "")))
    return said[1] if said else None


class _Sent:
    """Tells a progress how many bytes of layers are sent. What was announced is reached, however often the engine retries."""

    def __init__(self, progress: ImageProgress) -> None:
        self._progress = progress
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}

    def see(self, event: Event) -> None:
        layer, detail = str(event.get("id", "")), event.get("progressDetail")
        if isinstance(detail, Mapping) and detail.get("total") and layer not in self._totals:
            self._totals[layer] = int(detail["total"])
            self._progress.add_total(self._totals[layer])
        if layer in self._totals:
            is_whole = event.get("status") == "Pushed"
            current = self._totals[layer] if is_whole else int((cast("Any", detail) or {}).get("current") or 0)
            self._reach(layer, min(current, self._totals[layer]))

    def _reach(self, layer: str, current: int) -> None:
        gained = current - self._done.get(layer, 0)
        if gained > 0:
            self._done[layer] = current
            self._progress.advance(gained)


def _was_disturbed(error: PrebuiltError) -> bool:
    """Return whether another build of the same image, or of one that shares layers with it, got in the way meanwhile."""
    return any(text in error.reason.lower() for text in _DISTURBED)


def _digests(client: docker.APIClient, image: str, repository: str) -> list[str]:
    """Return the digests by which the engine knows `image` in `repository`."""
    facts = image_facts(client, image) or {}
    wanted = {repository, _familiar(repository)}
    parts = (str(name).partition("@") for name in facts.get("RepoDigests") or [])
    return [digest for name, _, digest in parts if name in wanted]


def _familiar(repository: str) -> str:
    """Return a repository as the engine lists it: without the host where that is Docker Hub."""
    return repository.removeprefix("docker.io/library/").removeprefix("docker.io/")
