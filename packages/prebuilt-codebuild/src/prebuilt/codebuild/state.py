"""What CodeBuild says of a build."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import InvalidValueError

PHASES = {
    "SUBMITTED": "submitted",
    "QUEUED": "waiting in the queue",
    "PROVISIONING": "starting its environment",
    "DOWNLOAD_SOURCE": "downloading the context",
    "INSTALL": "installing",
    "PRE_BUILD": "logging in, starting BuildKit",
    "BUILD": "building and pushing",
    "POST_BUILD": "after the build",
    "UPLOAD_ARTIFACTS": "uploading artifacts",
    "FINALIZING": "finalizing",
    "COMPLETED": "completed",
}
"""What each phase is called for users.

Source: https://docs.aws.amazon.com/codebuild/latest/userguide/view-build-details-phases.html
"""

_GOOD = frozenset({"SUCCEEDED", "IN_PROGRESS", ""})
_SIZE = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlace:
    """A log stream of CloudWatch."""

    group: str
    stream: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildState:
    """A build at one moment.

    Attributes:
        id: ``project:6c4e…``.
        arn: The same, in full.
        status: ``IN_PROGRESS``, ``SUCCEEDED``, ``FAILED``, ``FAULT``, ``TIMED_OUT`` or ``STOPPED``.
        phase: The one that it is in; one of `PHASES`.
        log: Where its log is; None as long as there is none.
        failed_phase: The first that did not succeed; empty if all did.
        reasons: What CodeBuild says about phases that did not.
        exported: What the buildspec handed back, by name.
    """

    id: str
    arn: str
    status: str
    phase: str
    log: LogPlace | None
    failed_phase: str
    reasons: tuple[str, ...]
    exported: Mapping[str, str]

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> BuildState:
        """Read a ``Build`` of the API."""
        bad = [phase for phase in data.get("phases", ()) if phase.get("phaseStatus", "") not in _GOOD]
        logs = data.get("logs") or {}
        group, stream = logs.get("groupName"), logs.get("streamName")
        return cls(
            id=data["id"],
            arn=data["arn"],
            status=data["buildStatus"],
            phase=data.get("currentPhase", ""),
            log=LogPlace(group=group, stream=stream) if group and stream else None,
            failed_phase=bad[0]["phaseType"] if bad else "",
            reasons=tuple(_reasons(bad)),
            exported={each["name"]: each.get("value", "") for each in data.get("exportedEnvironmentVariables") or ()},
        )

    @property
    def is_running(self) -> bool:
        """Whether it has yet to end."""
        return self.status == "IN_PROGRESS"

    def descriptor(self) -> Descriptor | None:
        """Return the descriptor of what was pushed; None where the buildspec, one of the project's own, does not say.

        Raises:
            InvalidValueError: What it says is no descriptor.
        """
        digest, media_type, size = (self.exported.get(f"IMAGE_{part}", "") for part in ("DIGEST", "MEDIA_TYPE", "SIZE"))
        if not (digest and media_type and size):
            return None
        if not _SIZE.fullmatch(size):
            raise InvalidValueError("a size in bytes", size, reason="it is no number")
        return Descriptor(media_type=media_type, digest=digest, size=int(size))


def _reasons(phases: Sequence[Mapping[str, Any]]) -> list[str]:
    contexts = [context for phase in phases for context in phase.get("contexts") or ()]
    texts = (f"{each.get('statusCode', '')}: {each.get('message', '')}".strip(": ") for each in contexts)
    return [text for text in texts if text]
