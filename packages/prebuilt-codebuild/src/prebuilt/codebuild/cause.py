"""Why a build failed, and what to do: by what CodeBuild says of it, and by what it said itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prebuilt.codebuild.config import BUCKET, BUILDKIT_IMAGE, COMPUTE_TYPE, IMAGES, PROJECT, REGISTRY_SECRET, TIMEOUT
from prebuilt.codebuild.console import console_link
from prebuilt.codebuild.failure import PAGE, TRUST
from prebuilt.codebuild.job import BuildJob
from prebuilt.codebuild.state import PHASES, BuildState
from prebuilt.core.buildkit_output import pulled_host
from prebuilt.core.known_causes import KnownCause, find_remedy, known_cause
from prebuilt.oci.amazon import iam_action, is_ecr

_REMEDIES = {
    "TIMED_OUT": f"set {TIMEOUT} to more seconds",
    "STOPPED": "somebody stopped it; deploy again",
    "FAULT": "the fault is CodeBuild's own; deploy again",
}
_DENIED = re.compile(r"not authorized to perform:? ([a-z0-9-]+:[A-Za-z]+)")
# What BuildKit makes of an answer without a body, such as that to a HEAD: the action has to be known.
_FORBIDDEN = re.compile(r"unexpected status from ([A-Z]+) request to (https://([^/\s]+)/\S+): 403")
_OF_STEP = re.compile(r"#\d+ ")
_ROLE = f"allow {{action}} to the role of the project; {PAGE} has a template"

_CAUSES = (
    known_cause(
        r"UNABLE_TO_PULL_IMAGE|CannotPullContainer",
        f"check {IMAGES}, and that the role of the project may pull what they name",
    ),
    known_cause(
        r"Cannot connect to the Docker daemon|docker: (?:command )?not found",
        f"set {IMAGES} to images with Docker in them, as Amazon's own are",
    ),
    known_cause(
        r"'buildx' is not a docker command|unknown flag: --(?:builder|driver)|unknown command: docker buildx",
        f"set {IMAGES} to images with Docker's plugin buildx in them, as Amazon's own are",
    ),
    known_cause(
        r"toomanyrequests|429 Too Many Requests",
        f"mirror what is pulled into a registry of your own: METAFLOW_PREBUILT_BASE_IMAGE, {BUILDKIT_IMAGE}",
    ),
    known_cause(
        r"repository with name .* does not exist|name unknown",
        "create the repository, or let METAFLOW_PREBUILT_ECR_CREATE_REPOSITORY be on",
    ),
    known_cause(
        r"exec format error",
        "use a base image whose index has the platform of the build environment, too",
        is_of_steps=True,
    ),
    known_cause(r"no space left on device", f"set {COMPUTE_TYPE} to a larger one", is_of_steps=True),
)

# The context, and secrets that are variables, come before the first command.
_OF_SOURCES = (
    known_cause(
        r"Secrets ?Manager",
        f"check {REGISTRY_SECRET}: a secret in the project's region with the fields username and password",
    ),
    known_cause(r"version ?id", f"take the source version out of the project, or set {PROJECT} to one without"),
    known_cause(
        r"PermanentRedirect|BucketRegionError|must be addressed using the specified endpoint|AuthorizationHeaderMalformed",
        f"set {BUCKET} to a bucket in the region of the project",
    ),
)
_READING = _ROLE.format(
    action="s3:GetObject, s3:GetObjectVersion, s3:GetBucketAcl and s3:GetBucketLocation on the bucket of contexts"
)

_NO_LOGIN = r"no basic auth credentials|401 Unauthorized|403 Forbidden|insufficient_scope|authorization failed|incorrect username"
_TO_ECR = known_cause(
    _NO_LOGIN,
    "allow the role of the project to use {host}: by its own policy and, in another account, by that of the repository",
)
_TO_ANOTHER = known_cause(
    _NO_LOGIN, f"put a login for {{host}} into AWS Secrets Manager, and its name into {REGISTRY_SECRET}"
)
_FROM_ANOTHER = known_cause(
    _NO_LOGIN, "set METAFLOW_PREBUILT_BASE_IMAGE to an image in Amazon ECR, or beside the images: {host} wants a login"
)


def find_cause(build: BuildState, lines: Sequence[str], *, job: BuildJob) -> tuple[str, str]:
    """Return why `build` did not succeed, and a remedy, by the last `lines` of its log."""
    phase = f" while {PHASES.get(build.failed_phase, build.failed_phase)}" if build.failed_phase else ""
    errors = [line for line in lines if line.startswith("ERROR: ")]
    # BuildKit's own word for it says more than that a command ended with status 1.
    said = errors[-1].removeprefix("ERROR: ") if errors else "; ".join(build.reasons)
    reason = f"it ended as {build.status}{phase}" + (f": {said}" if said else "")
    look = "see what it said" if lines else f"see its log, if there is one: {console_link(build.arn)}"
    return reason, _remedy(build, lines, job) or look


def _remedy(build: BuildState, lines: Sequence[str], job: BuildJob) -> str:
    if build.status in _REMEDIES:
        return _REMEDIES[build.status]
    action = _denied_action("\n".join((*build.reasons, *lines)))
    if action:
        return TRUST if action == "sts:AssumeRole" else _ROLE.format(action=action)
    said = "\n".join((*build.reasons, *(line for line in lines if not _OF_STEP.match(line))))
    if build.failed_phase == "DOWNLOAD_SOURCE":
        return find_remedy(_OF_SOURCES, said, ()) or _READING
    host = pulled_host(said) or job.host
    return find_remedy((*_CAUSES, _login(host, job)), said, lines, host=host)


def _denied_action(text: str) -> str:
    """Return the IAM action that the project's role lacks; empty if nothing says so."""
    named, forbidden = _DENIED.search(text), _FORBIDDEN.search(text)
    if named:
        return named[1]
    return iam_action(forbidden[1], forbidden[2]) if forbidden and is_ecr(forbidden[3]) else ""


def _login(host: str, job: BuildJob) -> KnownCause:
    if is_ecr(host):
        return _TO_ECR
    return _TO_ANOTHER if host == job.host else _FROM_ANOTHER
