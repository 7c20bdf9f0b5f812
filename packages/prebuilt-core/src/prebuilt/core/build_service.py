"""The contract of builders: what outside classes implement, and the typed form that ours do."""

from __future__ import annotations

import contextlib
import inspect
import re
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.dockerfile import DockerfileBuild, DockerfileForm, MaterialsSource, check_python, dockerfile_build
from prebuilt.core.documents import DocumentStore
from prebuilt.core.errors import BuildError, CancelledError, PrebuiltError, redact
from prebuilt.core.plan import LayerPlan
from prebuilt.core.plugin_calls import called
from prebuilt.core.progress import ImageProgress
from prebuilt.core.spec import ImageSpec
from prebuilt.core.tree import Content

KEPT_LINES = 50
"""Lines of a builder's output that its error shows."""

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Cancellation:
    """A flag that the first failure raises and that long work looks at."""

    def __init__(self) -> None:
        """Start unraised."""
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask all who look to stop."""
        self._event.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether work should stop."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Sleep up to `timeout_s` seconds; return True at once when cancelled."""
        return self._event.wait(timeout_s)

    def check(self) -> None:
        """Raise :class:`CancelledError` if work should stop."""
        if self.is_cancelled:
            raise CancelledError("go on", reason="other work failed or was stopped")


def check_registry(
    place: str, builder: str, *, setting: str = "METAFLOW_PREBUILT_IMAGE_REGISTRY to a registry"
) -> None:
    """Refuse a folder of this machine, for a builder that reads and writes registries only; it is called `builder`.

    Raises:
        BuildError: `place`, a reference or a repository, is in an image layout; `setting` is what to change.
    """
    if place.startswith("oci:"):
        raise BuildError(
            f"build an image with {builder}",
            at=place,
            reason="it needs registries, and this is a folder of this machine",
            remedy=f"set {setting}, or METAFLOW_PREBUILT_BUILD_SERVICE=native",
        )


class Interpreters(Protocol):
    """Pythons that are got for this machine, to compile bytecode with where it has none of that version. Concurrent calls are fine."""

    def can_get(self, python_xy: str, *, check: Callable[[], None] = lambda: None) -> bool:
        """Return whether there is a Python X.Y to be got; if not, the user has been told why."""

    def get(self, python_xy: str, progress: ImageProgress, cancellation: Cancellation) -> Path:
        """Return the path of a Python X.Y.

        Raises:
            BuildError: It does not run here.
            FetchError: It could not be downloaded.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One image to build and push.

    Attributes:
        spec: What.
        plan: How it is layered.
        reference: Where to push it: ``host/repository:tag``, or ``oci:/folder:tag`` for an image layout.
        credentials: For the registry; None to use what Docker's configuration has.
        push_credentials: What the registry's ``push_credentials()`` returned, for outside builders.
        documents: Where small documents are kept for everybody who uses the registry; None for beside the image.
        materials: Gathers what a Dockerfile's build stage needs; None where only specs are built.
        interpreters: Where a builder that compiles on this machine gets a Python that this machine lacks; None: nowhere.
        cancellation: Looked at between steps of the work.
    """

    spec: ImageSpec
    plan: LayerPlan
    reference: str
    credentials: Credentials | None = None
    push_credentials: Mapping[str, Any] = field(default_factory=dict, repr=False)
    documents: DocumentStore | None = None
    materials: MaterialsSource | None = None
    interpreters: Interpreters | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)

    def check_registries(self, builder: str) -> None:
        """Refuse folders of this machine, for a builder that reads and writes registries only; it is called `builder`.

        Raises:
            BuildError: The image is to be pushed into an image layout, or its base is in one.
        """
        check_registry(self.reference, builder)
        check_registry(
            self.spec.base.repository, builder, setting="METAFLOW_PREBUILT_BASE_IMAGE to an image in a registry"
        )

    @contextlib.contextmanager
    def as_dockerfile(
        self,
        form: DockerfileForm,
        progress: ImageProgress,
        *,
        pin: Callable[[str], str] = lambda image: image,
        sets_labels: bool = True,
    ) -> Iterator[DockerfileBuild]:
        """Give a Dockerfile of this image and its context, which can be read inside the ``with`` only.

        `pin` and `sets_labels` are those of :func:`~prebuilt.core.dockerfile.dockerfile_build`.

        Raises:
            BuildError: No Dockerfile can make it, or nothing gathers materials.
            FetchError: A package that has to travel in the context could not be downloaded.
        """
        if self.materials is None:
            raise BuildError(
                f"render a Dockerfile for {self.reference}", reason="this request has no source of materials"
            )
        check_python(self.spec)
        with self.materials.gather(self.spec, progress, check=self.cancellation.check) as materials:
            yield dockerfile_build(self.spec, self.plan, materials, form, pin=pin, sets_labels=sets_labels)


class BuildOutput:
    """What a builder says: each line goes to the user as it comes, the last ones also into the error. Any thread may call it.

    Secrets in URLs are redacted, and what it pushes with: whoever wrote the builder may not have thought of it.
    """

    def __init__(self, progress: ImageProgress, *, secret: str = "") -> None:
        """Pass lines on to `progress`; `secret` is the password that the builder was given, if any."""
        self._progress = progress
        self._secret = secret
        self._last: deque[str] = deque(maxlen=KEPT_LINES)

    def __call__(self, message: object = "", **_: object) -> None:
        """Take one message of any number of lines; keywords are those of any ``echo``, and mean nothing here."""
        text = message.decode(errors="replace") if isinstance(message, bytes) else str(message)
        for line in _COLOUR.sub("", text).splitlines():
            self._take(self.redacted(line.rstrip()))

    def redacted(self, text: str) -> str:
        """Return `text`, which the builder made, without secrets."""
        return redact(text.replace(self._secret, "***") if self._secret else text)

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        return tuple(self._last)

    def _take(self, line: str) -> None:
        if line:
            self._last.append(line)
            self._progress.output(line)


@dataclass(frozen=True)
class DockerfileBuildOptions:
    """What a builder of Dockerfiles can do beyond the classic form (published in 0.3).

    Attributes:
        buildkit_deferred_input_mounts: It is a BuildKit of 0.10 or newer: ``RUN --mount``, ``COPY --link``, ``--platform``.
        bootstrap_pip_install_options: Without effect: no build stage needs pip.
    """

    buildkit_deferred_input_mounts: bool = False
    bootstrap_pip_install_options: tuple[str, ...] = ()


class DockerBuildService(ABC):
    """Builds an image and pushes it. The selected class is called with no arguments.

    An outside class needs :meth:`build_and_push` alone. A class that takes specs rather than Dockerfiles, or that streams its
    context and knows its digest, overrides :meth:`build`. Of the two, the one that the most derived class defines is used.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Have a subclass of a built-in builder that defines :meth:`build_and_push` alone, or mixes it in, be called there."""
        super().__init_subclass__(**kwargs)
        nearest = next(vars(each) for each in cls.__mro__ if {"build", "build_and_push"} & vars(each).keys())
        if "build" not in nearest:
            cls.build = DockerBuildService.build  # type: ignore[method-assign]

    @abstractmethod
    def build_and_push(
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Callable[..., None],
        target_platform: str | None = None,
    ) -> bool:
        """Build `dockerfile` and push it as `image_tag`.

        Args:
            dockerfile: Its text.
            context_files: POSIX file name to ``str`` or ``bytes``.
            image_tag: What to push.
            push_credentials: What the registry's ``push_credentials()`` returned.
            echo: Takes a message and any keyword.
            target_platform: ``linux/amd64``; None for the builder's own. Classes of 0.2 lack it.

        Returns:
            False if the build failed.
        """

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor | str | None:
        """Build and push `request`; return the manifest's descriptor, its digest where the builder knows no more, or None.

        This one renders a Dockerfile and calls :meth:`build_and_push`: by the published names, or in the published order where
        a class has names of its own; with a platform where it takes one.

        Raises:
            BuildError: It failed; with the last lines of what the builder said.
            CancelledError: The request was cancelled.
            FetchError: A package could not be downloaded.
            RegistryError: The image could not be pushed.
        """
        request.check_registries(type(self).__name__)
        can_buildkit = called(self.dockerfile_build_options).buildkit_deferred_input_mounts
        output = BuildOutput(progress, secret=str(request.push_credentials.get("password") or ""))
        with request.as_dockerfile("buildkit" if can_buildkit else "plain", progress) as rendered:
            published = {
                "dockerfile": rendered.dockerfile,
                "context_files": {name: _read(content) for name, content in rendered.context.items()},
                "image_tag": request.reference,
                "push_credentials": dict(request.push_credentials),
                "echo": output,
            }
            request.cancellation.check()
            progress.state(f"building with {type(self).__name__}")
            try:
                built = _called(self.build_and_push, published, target_platform=str(rendered.platform))
            except PrebuiltError:
                raise
            except (Exception, SystemExit) as error:  # a command line that was called as a function may exit
                said = output.redacted(str(error))  # a command that failed is shown with its arguments
                raise self._failed(request, f"{type(error).__name__}: {said}", output) from error
        if not built:
            raise self._failed(request, f"it returned {built}", output)
        return None

    def _failed(self, request: BuildRequest, reason: str, output: BuildOutput) -> BuildError:
        said = "" if output.last_lines else "; it said nothing"
        return BuildError(
            f"build an image with {type(self).__name__}",
            at=request.reference,
            reason=f"{reason}{said}",
            remedy="see what it said" if output.last_lines else "look into its own log",
            output=output.last_lines,
        )

    def prepare(self) -> None:  # noqa: B027 - a default that works
        """Make sure, as far as that takes no time, that images can be built.

        It is called at most once for each deploy, before the first requirements are resolved; where all locks are kept, not at all.
        What cannot be told yet is left to :meth:`build`.

        Raises:
            EngineError: What builds is missing, too old, or does not answer.
        """

    def dockerfile_build_options(self) -> DockerfileBuildOptions:
        """Return what the builder can do beyond the classic form."""
        return DockerfileBuildOptions()

    def image_identity_suffix(self) -> str:
        """Return what distinguishes images of this builder from others of the same spec; usually nothing."""
        return ""

    def makes_bytecode(self, python_xy: str) -> bool:
        """Return whether images with Python X.Y have bytecode, which is part of their identity.

        The build stage of a Dockerfile always has the Python that compiles it. A class that builds without Dockerfiles says
        whether it has one.
        """
        del python_xy
        return True

    @classmethod
    def from_config(cls) -> DockerBuildService:
        """Return a builder configured from the settings."""
        return cls()


def _called(method: Callable[..., bool], published: Mapping[str, Any], *, target_platform: str) -> bool:
    """Return what an outside method gives for what was published, in the way that its signature asks for."""
    signature = inspect.signature(method)
    parameters = signature.parameters.values()
    named = {parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY}
    takes_any_name = inspect.Parameter.VAR_KEYWORD in {parameter.kind for parameter in parameters}
    # Classes of 0.2 have no platform.
    platform = {"target_platform": target_platform} if takes_any_name or "target_platform" in named else {}
    try:
        signature.bind(**published, **platform)
    except TypeError:  # it has names of its own
        return method(*published.values(), **platform)
    return method(**published, **platform)


def _read(content: Content) -> bytes:
    with content.open() as stream:
        return stream.read()
