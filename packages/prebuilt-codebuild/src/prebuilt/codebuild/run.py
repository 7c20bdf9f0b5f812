"""One build: its context goes to S3, CodeBuild is started and followed to its end, and nothing of it stays."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prebuilt.codebuild.amazon import AmazonClients
from prebuilt.codebuild.cause import find_cause
from prebuilt.codebuild.config import TIMEOUT, CodeBuildConfig
from prebuilt.codebuild.console import console_link
from prebuilt.codebuild.context_zip import look_at
from prebuilt.codebuild.failure import AmazonError, aws_errors
from prebuilt.codebuild.job import BuildJob
from prebuilt.codebuild.log import BuildLog
from prebuilt.codebuild.start import BUILDSPEC, buildspec, start_parameters
from prebuilt.codebuild.state import PHASES, BuildState
from prebuilt.codebuild.upload import ContextStore
from prebuilt.core.build_service import Cancellation
from prebuilt.core.buildkit_output import BuildKitOutput
from prebuilt.core.context_archive import DOCKERFILE
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import BuildError, InvalidValueError, PrebuiltError
from prebuilt.core.progress import ImageProgress
from prebuilt.core.retry import Backoff
from prebuilt.core.tree import BytesContent, Content

_LOG = logging.getLogger(__name__)
_LOOK_S = 1.0  # between two looks at the log
_LOOKS_AT_STATE = 2  # each so many looks: the state changes rarely, and CodeBuild throttles sooner than CloudWatch
_PATIENCE_S = 180.0  # with an API that does not answer while a build goes on


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeBuildRun:
    """A build.

    Attributes:
        clients: Of the region where it runs.
        config: How.
        job: What to build, and where to push it.
        cancellation: Stops it.
    """

    clients: AmazonClients
    config: CodeBuildConfig
    job: BuildJob
    cancellation: Cancellation = field(default_factory=Cancellation)

    def run(self, dockerfile: str, context: Mapping[str, Content], progress: ImageProgress) -> Descriptor | None:
        """Build and push; return the descriptor of what was pushed, or None where the project's own buildspec does not say.

        Raises:
            AmazonError: AWS refused, or could not be asked.
            BuildError: The build failed, was stopped, or took too long.
            CancelledError: It was cancelled.
            StorageError: A file of the context changed meanwhile.
        """
        output = BuildKitOutput(progress.output)
        progress.state("uploading the context to S3")
        # A context that brings a buildspec of that name keeps it: ours is handed over with the call, too.
        files = {
            BUILDSPEC: BytesContent(buildspec().encode()),
            **context,
            DOCKERFILE: BytesContent(dockerfile.encode()),
        }
        archive = look_at(files, self.cancellation.check)
        store = ContextStore(s3=self.clients.s3, bucket=self.config.bucket, prefix=self.config.prefix)
        with store.holding(archive, progress, self.cancellation) as key:
            progress.state("starting CodeBuild")
            build = self._start(key, self.job.on(dockerfile))
            with self._stopped_if_left(build, progress):
                progress.note(f"CodeBuild: {console_link(build.arn)}")
                log = BuildLog(self.clients.logs, output, progress.note)
                ended = self._follow(build, log, output, progress)
            log.finish(ended.log, self.cancellation, wait=ended.status != "SUCCEEDED")
        return self._result(ended, output)

    def _start(self, key: str, job: BuildJob) -> BuildState:
        """Start the build of `job`, whose context is at `key`, once.

        One that was started by a call whose answer never came finds no context, and ends by itself.
        """
        parameters = start_parameters(job, self.config, key=key, token=uuid.uuid4().hex)
        waits_s = Backoff(attempts=6, base_s=1.0).waits_s()
        while True:
            self.cancellation.check()
            try:
                with aws_errors("start a build", at=self._project, action="codebuild:StartBuild"):
                    return BuildState.parse(self.clients.codebuild.start_build(**parameters)["build"])
            except AmazonError as error:
                wait_s = next(waits_s, None) if error.failure.is_transient else None
                if wait_s is None:
                    raise
                self.cancellation.wait(wait_s)

    def _follow(self, build: BuildState, log: BuildLog, output: BuildKitOutput, progress: ImageProgress) -> BuildState:
        """Return the build as it ended."""
        ask = _Patient(self._state_of(build), progress.note)
        deadline_s = time.monotonic() + self.config.timeout_s
        look = 0
        while build.is_running:
            self.cancellation.wait(_LOOK_S)
            self.cancellation.check()
            if time.monotonic() > deadline_s:
                raise self._out_of_time(output.lines)
            look += 1
            if look % _LOOKS_AT_STATE == 0:
                build = ask(build)
                progress.state(f"CodeBuild: {PHASES.get(build.phase, build.phase)}")
            log.look(build.log)
        return build

    def _state_of(self, build: BuildState) -> Callable[[], BuildState]:
        def ask() -> BuildState:
            tried = "look at a build"
            with aws_errors(tried, at=build.id, action="codebuild:BatchGetBuilds"):
                found: list[dict[str, Any]] = self.clients.codebuild.batch_get_builds(ids=[build.id])["builds"]
            if not found:
                raise BuildError(
                    tried, at=build.id, reason="CodeBuild does not know it any more", remedy="deploy again"
                )
            return BuildState.parse(found[0])

        return ask

    @contextlib.contextmanager
    def _stopped_if_left(self, build: BuildState, progress: ImageProgress) -> Iterator[None]:
        """Stop the build if the body is left by an exception, Ctrl-C among them."""
        try:
            yield
        except BaseException:
            self._stop(build, progress)
            raise

    def _stop(self, build: BuildState, progress: ImageProgress) -> None:
        """Stop the build. That this failed does not hide why it was to be stopped."""
        try:
            with aws_errors("stop a build", at=build.id, action="codebuild:StopBuild"):
                self.clients.codebuild.stop_build(id=build.id)
        except PrebuiltError as error:
            _LOG.debug("a build was not stopped", exc_info=True)
            is_gone = isinstance(error, AmazonError) and error.failure.kind == "missing"
            if not is_gone:
                progress.note(f"the build goes on: {error}")
        else:
            progress.note("CodeBuild: the build was stopped")

    def _result(self, build: BuildState, output: BuildKitOutput) -> Descriptor | None:
        if build.status != "SUCCEEDED":
            reason, remedy = find_cause(build, output.lines, job=self.job)
            raise self._failed(reason, remedy, output.lines)
        try:
            return build.descriptor()
        except InvalidValueError as error:
            remedy = "mend what the project's buildspec exports as IMAGE_DIGEST, IMAGE_MEDIA_TYPE and IMAGE_SIZE"
            raise self._failed(f"the buildspec handed back what is no digest: {error.reason}", remedy, ()) from error

    def _out_of_time(self, lines: tuple[str, ...]) -> BuildError:
        return self._failed(f"it took longer than {self.config.timeout_s} s", f"set {TIMEOUT} to more seconds", lines)

    def _failed(self, reason: str, remedy: str, lines: tuple[str, ...]) -> BuildError:
        tried = f"build an image with CodeBuild's project {self.config.project}"
        return BuildError(tried, at=self.job.reference, reason=reason, remedy=remedy, output=lines)

    @property
    def _project(self) -> str:
        return f"the project {self.config.project} in {self.clients.region}"


class _Patient:
    """Asks for a build's state, and bears with an API that does not answer for a while."""

    def __init__(self, ask: Callable[[], BuildState], note: Callable[[str], None]) -> None:
        self._ask, self._note = ask, note
        self._failing_since_s: float | None = None

    def __call__(self, last: BuildState) -> BuildState:
        """Return the state; `last`, the one that is known, where no answer comes."""
        try:
            state = self._ask()
        except AmazonError as error:
            if not error.failure.is_transient:
                raise
            if self._failing_since_s is None:
                self._failing_since_s = time.monotonic()
                self._note(f"CodeBuild does not answer, and is asked again: {error.reason}")
            if time.monotonic() - self._failing_since_s > _PATIENCE_S:
                raise
            return last
        self._failing_since_s = None
        return state
