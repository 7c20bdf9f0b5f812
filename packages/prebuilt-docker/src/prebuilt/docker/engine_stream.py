"""What the engine says while it works, in a way that can be left at any time."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from prebuilt.docker.image_build import Limits

if TYPE_CHECKING:
    import docker
    import requests

_LOOK_S = 0.1  # how soon a cancellation is seen
_PATIENCE_S = 5.0

_log = logging.getLogger(__name__)

Event: TypeAlias = Mapping[str, Any]


@contextlib.contextmanager
def followed(
    client: docker.APIClient, start: Callable[[], Iterable[Event]], limits: Limits
) -> Iterator[Iterator[Event]]:
    """Give the events that `start`, one call of `client`, yields; on leaving, the call is over, and with it the engine's work.

    The engine stops a build or push when the connection that it was ordered on is closed.

    Raises:
        CancelledError: The work was cancelled.
        DeadlineError: The time was up.
    """
    follower = _Follower(client, start)
    try:
        yield follower.events(limits)
    finally:
        follower.stop()


class _Follower:
    """Reads in a thread of its own: there is no reading with a look at other things now and then."""

    def __init__(self, client: docker.APIClient, start: Callable[[], Iterable[Event]]) -> None:
        self._client, self._begin = client, start
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._response: requests.Response | None = None
        self._is_left = False
        self._error: BaseException | None = None
        self._hooks: list[Any] = client.hooks["response"]
        self._hooks.append(self._keep)
        self._thread = threading.Thread(target=self._run, daemon=True, name="docker-events")
        self._thread.start()

    def _keep(self, response: requests.Response, *_: object, **__: object) -> None:
        self._response = response
        if self._is_left:  # it came late
            _close(response)

    def _run(self) -> None:
        try:
            for event in self._begin():
                if self._is_left:
                    break
                self._events.put(event)
        except BaseException as error:  # noqa: BLE001 - raised again where the events are read
            self._error = error
        finally:
            self._events.put(None)

    def events(self, limits: Limits) -> Iterator[Event]:
        while True:
            limits.check()
            try:
                event = self._events.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
            if event is None:
                break
            yield event
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the call if it has not ended by itself."""
        self._is_left = True
        if self._thread.is_alive() and self._response is not None:
            _close(self._response)
        self._thread.join(_PATIENCE_S)
        if self._response is not None and not self._thread.is_alive():
            self._response.close()
        self._client.close()  # it opens a connection anew for the next call: what was shut must not serve again
        if self._thread.is_alive():
            _log.warning("a connection to the Docker Engine could not be closed at once")
        self._hooks.remove(self._keep)


def _close(response: requests.Response) -> None:
    """Shut the connection below `response`, which wakes who reads from it."""
    import docker.errors
    from docker.types import CancellableStream

    try:
        CancellableStream(iter(()), response).close()
    except (docker.errors.DockerException, OSError, AttributeError) as error:  # over ssh, or closed by the other side
        _log.debug("could not shut a connection to the Docker Engine: %s", error)
