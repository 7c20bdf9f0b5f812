"""Why a build failed, and what to do: by what CodeBuild says of it, and by what it said itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prebuilt.codebuild.config import REGISTRY_SECRET, TIMEOUT
from prebuilt.codebuild.console import console_link
from prebuilt.codebuild.job import BuildJob
from prebuilt.codebuild.state import PHASES, BuildState

_REMEDIES = {
    "TIMED_OUT": f"set {TIMEOUT} to more seconds",
    "STOPPED": "somebody stopped it; deploy again",
    "FAULT": "the fault is CodeBuild's own; deploy again",
}
_DENIED = re.compile(r"not authorized to perform:? ([a-z0-9-]+:[A-Za-z]+)")
_ROLE = "allow {action} to the role of the project; docs/how-to/codebuild.md has a template"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A known cause.

    Attributes:
        known_by: What is said in its case.
        remedy: What to do; may name ``{host}``.
    """

    known_by: re.Pattern[str]
    remedy: str


def _cause(known_by: str, remedy: str) -> Cause:
    return Cause(known_by=re.compile(known_by), remedy=remedy)


_CAUSES = (
    _cause(
        r"Cannot connect to the Docker daemon|docker: (?:command )?not found",
        "use an image with Docker in it, Amazon's own among them, and no METAFLOW_PREBUILT_CODEBUILD_IMAGE without it",
    ),
    _cause(
        r"'buildx' is not a docker command|unknown flag: --(?:builder|driver)|unknown command: docker buildx",
        "use an image with Docker's plugin buildx in it: METAFLOW_PREBUILT_CODEBUILD_IMAGE, …_ARM64_IMAGE",
    ),
    _cause(
        r"toomanyrequests|429 Too Many Requests",
        "mirror what is pulled into a registry of your own: METAFLOW_PREBUILT_BASE_IMAGE, "
        "METAFLOW_PREBUILT_CODEBUILD_BUILDKIT_IMAGE",
    ),
    _cause(
        r"(?:repository with name .* does not exist|name unknown)",
        "create the repository, or let METAFLOW_PREBUILT_ECR_CREATE_REPOSITORY be on",
    ),
    _cause(r"exec format error", "use a base image whose index has the platform of the build environment, too"),
    _cause(r"no space left on device", "set METAFLOW_PREBUILT_CODEBUILD_COMPUTE_TYPE to a larger one"),
)
_NO_LOGIN = _cause(
    r"no basic auth credentials|401 Unauthorized|403 Forbidden|insufficient_scope|authorization failed|incorrect username",
    f"put a login for {{host}} into AWS Secrets Manager, and its name into {REGISTRY_SECRET}",
)


def find_cause(build: BuildState, lines: Sequence[str], *, job: BuildJob) -> tuple[str, str]:
    """Return why `build` did not succeed, and a remedy, by the last `lines` of its log."""
    phase = f" while {PHASES.get(build.failed_phase, build.failed_phase)}" if build.failed_phase else ""
    errors = [line for line in lines if line.startswith("ERROR: ")]
    # BuildKit's own word for it says more than that a command ended with status 1.
    said = errors[-1].removeprefix("ERROR: ") if errors else "; ".join(build.reasons)
    reason = f"it ended as {build.status}{phase}" + (f": {said}" if said else "")
    look = "see what it said" if lines else f"see its log, if there is one: {console_link(build.arn)}"
    return reason, _remedy(build, "\n".join((*build.reasons, *lines)), job) or look


def _remedy(build: BuildState, text: str, job: BuildJob) -> str:
    if build.status in _REMEDIES:
        return _REMEDIES[build.status]
    denied = _DENIED.search(text)
    if denied:
        return _ROLE.format(action=denied[1])
    if build.failed_phase == "DOWNLOAD_SOURCE":
        return _ROLE.format(
            action="s3:GetObject, s3:GetObjectVersion and s3:GetBucketLocation on the bucket of contexts"
        )
    causes = (*_CAUSES, _NO_LOGIN)
    found = next((cause for cause in causes if cause.known_by.search(text)), None)
    return found.remedy.format(host=job.host) if found else ""
