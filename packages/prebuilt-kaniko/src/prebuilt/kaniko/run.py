"""One build: its context goes to the cluster, its Job is made and watched, and nothing of it stays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prebuilt.core.build_service import Cancellation
from prebuilt.core.descriptor import check_digest
from prebuilt.core.errors import BuildError, InvalidValueError, PrebuiltError
from prebuilt.core.tree import Content
from prebuilt.kaniko.cluster import Cluster
from prebuilt.kaniko.config import BUCKET_SETTING, KanikoConfig
from prebuilt.kaniko.context import MAX_IN_CLUSTER_BYTES, PackedContext, packed_context
from prebuilt.kaniko.failure import find_cause
from prebuilt.kaniko.job import KanikoBuild, config_map, job, secret
from prebuilt.kaniko.logins import docker_config
from prebuilt.kaniko.output import KanikoOutput
from prebuilt.kaniko.template import read_template
from prebuilt.kaniko.watch import JobWatch
from prebuilt.oci.docker_config import Login

_SHOWN = 80  # characters of what ought to be a digest


@dataclass(frozen=True, slots=True, kw_only=True)
class KanikoRun:
    """A build in a cluster.

    Attributes:
        build: What to build, and where to push it.
        config: How.
        cluster: Where.
        host: The registry that is pushed to.
        logins: Those that go along with the build, by ``host[:port]``.
        note: Is told what the user should know, once.
        cancellation: Stops it.
    """

    build: KanikoBuild
    config: KanikoConfig
    cluster: Cluster
    host: str
    logins: Mapping[str, Login] = field(default_factory=dict)
    note: Callable[[str], None]
    cancellation: Cancellation = field(default_factory=Cancellation)

    def run(self, dockerfile: str, context: Mapping[str, Content], show: Callable[[str], None]) -> str | None:
        """Build and push; return the digest that Kaniko reports, or None where it reports none.

        Raises:
            BuildError: It failed, took too long, or the context found no place.
            CancelledError: It was cancelled.
            EngineError: The cluster cannot be reached, or refuses.
            SettingError: The pod template cannot be read.
            StorageError: There is no space for the context.
        """
        output = KanikoOutput(show)
        template = read_template(self.config.pod_template) if self.config.pod_template else None
        with packed_context(dockerfile, context, self.cancellation.check) as packed, self._placed(packed) as url:
            body = job(self.build, self.config, context=url, has_logins=bool(self.logins), template=template)
            try:
                with self._created(body) as made:
                    files = config_map(self.build, packed.path.read_bytes() if url is None else None, made)
                    logins = secret(self.build, docker_config(self.logins), made)
                    for resource, owned in ("configmaps", files), ("secrets", logins):
                        if owned is not None:
                            self.cluster.create(resource, owned)
                    return self._finish(made, output)
            except BuildError as error:
                raise self._with_output(error, output) from error

    def _finish(self, made: Mapping[str, Any], output: KanikoOutput) -> str | None:
        end = JobWatch(
            cluster=self.cluster,
            build=self.build,
            config=self.config,
            output=output,
            cancellation=self.cancellation,
        ).wait(made)
        if end.exit_code != 0:
            if not output.lines:  # its log could not be read
                for line in end.message.splitlines():
                    output(line)
            reason, remedy = find_cause(
                end, output.lines, host=self.host, memory=self.config.memory, logins=self.logins
            )
            raise self._failure(reason, remedy or "see what it said")
        try:
            return check_digest(end.message.strip())
        except InvalidValueError:  # the pod template, or a flag, has it report elsewhere
            said = f"reports {end.message.strip()[:_SHOWN]!r} as its digest" if end.message else "reports no digest"
            self.note(f"Kaniko {said}: what it pushed to {self.build.reference} is not checked")
            return None

    @contextlib.contextmanager
    def _placed(self, packed: PackedContext) -> Iterator[str | None]:
        """Give the URL of the context in a bucket, where it stays for as long as the body runs; None if it needs no bucket."""
        room_bytes = MAX_IN_CLUSTER_BYTES - len(self.build.authorities.data)
        if packed.size_bytes <= room_bytes:
            yield None
            return
        if self.config.bucket is None:
            raise self._failure(
                f"the build context is {packed.size_bytes:,} bytes when packed, and without a bucket it may have "
                f"{room_bytes:,}",
                f"set {BUCKET_SETTING} to gs://BUCKET or s3://BUCKET",
            )
        from prebuilt.kaniko.bucket import open_bucket

        bucket = open_bucket(self.config.bucket)
        # The same content may be built twice at once, and whoever ends first deletes its own.
        key = f"metaflow-prebuilt/{packed.sha256}/{self.build.name}.tar.gz"
        url = None
        try:
            url = bucket.put(key, packed.path, self.cancellation.check)
            yield url
        finally:  # also where putting it failed: the answer may have been lost
            self._clean_up(lambda: bucket.delete(key), f"the context stays at {url}: delete it there" if url else None)

    @contextlib.contextmanager
    def _created(self, body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Give the Job, which is there for as long as the body runs, with all that it owns."""
        try:
            yield self.cluster.create("jobs", body)
        finally:  # also where creating it failed: the answer may have been lost
            what_stays = f"an ended Job is removed by the cluster after {self.config.keep_s} s"
            self._clean_up(lambda: self.cluster.delete_job(self.build.name), what_stays)

    def _clean_up(self, work: Callable[[], None], what_stays: str | None) -> None:
        """Do `work`; a failure must not hide how the build ended, and is told if something stays that is known of."""
        try:
            work()
        except PrebuiltError as error:
            if what_stays is not None:
                self.note(f"{error} ({what_stays})")

    def _failure(self, reason: str, remedy: str) -> BuildError:
        where = f"Job {self.build.name} in {self.config.namespace}"
        return BuildError(
            f"build an image with Kaniko ({where})", at=self.build.reference, reason=reason, remedy=remedy
        )

    def _with_output(self, error: BuildError, output: KanikoOutput) -> BuildError:
        return BuildError(
            error.tried, at=error.at, reason=error.reason, remedy=error.remedy, output=error.output or output.lines
        )
