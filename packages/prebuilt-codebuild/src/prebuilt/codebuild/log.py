"""The log of a build, shown as it is written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from prebuilt.codebuild.failure import AmazonError, aws_errors
from prebuilt.codebuild.state import LogPlace
from prebuilt.core.build_service import Cancellation

_LOG = logging.getLogger(__name__)
_PAGES = 20  # of one look: some 20 MB, so that a torrent of lines does not keep us from looking at the build
_SETTLING_S = 4.0  # how long CloudWatch may take to show what was written last
_LONGEST_S = 30.0  # for the rest of a log that does not end
_LOOK_S = 1.0
_NOTED_FAILURES = 5  # in a row: fewer are over before anybody has read of them


class BuildLog:
    """Follows one log stream. That a log cannot be shown fails no build: it is one note instead."""

    def __init__(self, logs: Any, show: Callable[[str], None], note: Callable[[str], None]) -> None:  # noqa: ANN401 - boto3 has no types
        """Give each line to `show`, and what goes wrong to `note`."""
        self._logs, self._show, self._note = logs, show, note
        self._token: str | None = None
        self._is_found = self._is_given_up = False
        self._failures = 0  # in a row, of looks that may work the next time
        self._last_failure: AmazonError | None = None

    def look(self, place: LogPlace | None) -> bool:
        """Show what is new; return whether there was anything."""
        has_news = False
        for _ in range(_PAGES):
            last, events = self._token, self._next(place)
            for event in events:
                has_news = True
                self._show(event["message"].rstrip("\r\n"))
            if self._token == last:  # the same again is how the end is told: a page in the middle may be empty
                break
        return has_news

    def finish(self, place: LogPlace | None, cancellation: Cancellation, *, wait: bool) -> None:
        """Show the rest of a build that has ended; `wait` for what CloudWatch does not show yet, unless that is cancelled."""
        settling_s = _SETTLING_S if wait else 0.0
        latest_s = time.monotonic() + _LONGEST_S
        quiet_since_s = time.monotonic()
        while not self._is_given_up:
            if self.look(place):
                quiet_since_s = time.monotonic()
            if time.monotonic() >= min(quiet_since_s + settling_s, latest_s):
                break
            if cancellation.wait(_LOOK_S):
                return
        if self._last_failure is not None and self._failures < _NOTED_FAILURES:  # more have been told
            self._give_up(f"its log, or the end of it, is not shown: {self._last_failure}")
        elif self._last_failure is None and not self._is_found and not self._is_given_up:
            self._give_up(
                "its log is not in CloudWatch: the project keeps none there, or its role lacks logs:PutLogEvents"
            )

    def _next(self, place: LogPlace | None) -> list[dict[str, Any]]:
        """Return the next page of lines, oldest first; it may be empty.

        Source: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetLogEvents.html
        """
        if place is None or self._is_given_up:
            return []
        token = {"nextToken": self._token} if self._token else {}
        try:
            with aws_errors("read the log of a build", at=place.group, action="logs:GetLogEvents"):
                page = self._logs.get_log_events(
                    logGroupName=place.group, logStreamName=place.stream, startFromHead=True, **token
                )
        except AmazonError as error:
            self._failed(error, place)
            return []
        self._answered()
        self._is_found, self._token = True, page["nextForwardToken"]
        events: list[dict[str, Any]] = page["events"]
        return events

    def _failed(self, error: AmazonError, place: LogPlace) -> None:
        if error.failure.is_transient:
            self._failed_for_now(error)
            return
        self._answered()
        is_missing = error.failure.kind == "missing"
        if is_missing and not self._is_found:
            return  # it is made when the first line is written
        if is_missing:
            self._give_up(
                f"its log is gone: somebody deleted {place.group} or the stream {place.stream}. The build goes on"
            )
        else:
            self._give_up(f"its log is not shown, and the build goes on: {error}")

    def _failed_for_now(self, error: AmazonError) -> None:
        _LOG.debug("the log could not be read; the next look may work", exc_info=True)
        self._failures, self._last_failure = self._failures + 1, error
        if self._failures == _NOTED_FAILURES:
            self._note(f"its log cannot be read now, and is asked for again; the build goes on: {error}")

    def _answered(self) -> None:
        self._failures, self._last_failure = 0, None

    def _give_up(self, why: str) -> None:
        self._is_given_up = True
        self._note(why)
