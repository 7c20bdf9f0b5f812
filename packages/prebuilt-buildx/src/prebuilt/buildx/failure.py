"""Why a build failed, in the words of BuildKit and registries, and what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence

from prebuilt.buildx.config import BUILDER_SETTING
from prebuilt.core.buildkit_output import pulled_image
from prebuilt.core.known_causes import find_remedy, known_cause
from prebuilt.oci.amazon import engine_remedy
from prebuilt.oci.pulled_image import PulledImage

_PULL_CAUSES = (
    known_cause(
        r"toomanyrequests|429 Too Many Requests",
        "wait, log in with `docker login {host}` (a registry's limits are higher then), or set {setting} to a copy in "
        "another registry",
    ),
    known_cause(
        r"no match for platform in manifest",
        "use a base image whose index lists the builder's own platform, on which the build stage runs, or set "
        "METAFLOW_PREBUILT_BUILD_IMAGE to an image for that with the same Python",
    ),
    known_cause(
        r"\b40[13]\b|unauthorized|authentication required|no basic auth credentials|insufficient_scope|access denied",
        "check {setting}, and log in with `docker login {host}`",
    ),
    known_cause(r"not found", "check {setting}, and that the builder reaches the same {host} as this machine"),
    known_cause(
        r"\bdial tcp\b|no such host|Client\.Timeout|TLS handshake timeout|i/o timeout|server misbehaving",
        "see whether the builder, rather than this machine, reaches {host}, or set {setting} to a copy in a registry that it "
        "reaches",
    ),
)
"""Of an image that could not be pulled; the other causes follow."""

_CAUSES = (
    known_cause(
        r"no space left on device|disk quota exceeded",
        "free space on the builder, with `docker buildx prune --builder {builder}`",
        is_of_steps=True,
    ),
    known_cause(
        r"toomanyrequests|429 Too Many Requests",
        "wait, or log in with `docker login {host}`: a registry's limits are higher then",
    ),
    known_cause(
        r"server gave HTTP response to HTTPS client|first record does not look like a TLS handshake",
        'have the builder speak plain HTTP with it: [registry."{host}"] http = true in its buildkitd.toml',
    ),
    known_cause(
        r"certificate signed by unknown authority|failed to verify certificate",
        'have the builder trust its certificate: [registry."{host}"] ca = ["…"] in its buildkitd.toml',
    ),
    known_cause(
        r"exec format error",
        "the builder runs the build stage on another processor than its image is for: use a base image that an index lists "
        "for several platforms, a builder of the target's platform, or emulation (`docker run --privileged --rm "
        "tonistiigi/binfmt --install all`)",
        is_of_steps=True,
    ),
    known_cause(
        r"(cache export|multi-platform build|attestations?) (feature )?(is|are) not (currently )?supported for the docker driver",
        f"create a builder of another driver with `docker buildx create`, and name it in {BUILDER_SETTING}",
    ),
    known_cause(
        r"401 Unauthorized|unauthorized:|authentication required|no basic auth credentials|failed to fetch oauth token",
        "log in with `docker login {host}`",
    ),
    known_cause(
        r"403 Forbidden|insufficient_scope|access denied|denied:",
        "use an account that may push to the repository, and see that it exists",
    ),
    known_cause(
        r"Cannot connect to the Docker daemon|failed to dial|failed to list workers|context deadline exceeded|"
        r"code = Unavailable|no active session|error reading from server",
        "see with `docker buildx inspect {builder}` whether the builder is up and not short of memory",
    ),
    known_cause(
        r"dial tcp .*(connection refused|i/o timeout|no such host|no route to host)",
        "see whether the builder, rather than this machine, reaches that address",
    ),
)


def find_cause(lines: Sequence[str], *, host: str, builder: str, stage_image: str | None = None) -> tuple[str, str]:
    """Return the reason that the last lines give, and a remedy; the remedy is empty where the cause is not known.

    Args:
        lines: What the builder said last.
        host: The registry that was to be pushed to.
        builder: The builder's name.
        stage_image: What the build stage runs in, where that is not the base image.
    """
    errors = [line for line in lines if line.startswith("ERROR: ")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else (lines[-1] if lines else "it said nothing")
    said = pulled_image(reason, lines)
    pulled = PulledImage.find(said, stage_image)
    asked = pulled.host or host
    causes = (*_PULL_CAUSES, *_CAUSES) if said else _CAUSES
    fields = {"host": asked, "builder": builder, "setting": pulled.setting}
    return reason, engine_remedy(reason, asked) or find_remedy(causes, reason, lines, **fields)
