"""The builder ``kaniko``: a Job of a Kubernetes cluster builds and pushes; this machine only says what."""

from __future__ import annotations

import getpass
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from prebuilt.core.build_service import BuildRequest, Cancellation, DockerBuildService, check_registry
from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import BuildError, PrebuiltError, RegistryError, SettingError
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import ImageProgress
from prebuilt.core.settings import Settings

if TYPE_CHECKING:
    from prebuilt.kaniko.config import KanikoConfig
    from prebuilt.kaniko.connection import Connection
    from prebuilt.kaniko.run import KanikoRun


class KanikoBuildService(DockerBuildService):
    """Builds Dockerfiles with Kaniko, each in a Kubernetes Job of its own. Concurrent builds do not disturb each other."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Keep the settings; ask nothing."""
        self._settings = settings or Settings.load()
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor | str | None:
        """Build and push `request`; return the descriptor of what was pushed, as far as that can be known.

        It is the digest that Kaniko reports where this machine cannot ask the registry, and None where Kaniko reports none.

        Raises:
            BuildError: It failed, or took too long; with what Kaniko said.
            CancelledError: The request was cancelled.
            EngineError: The cluster cannot be reached, or does not allow something.
            FetchError: A package that has to travel in the context could not be downloaded.
        """
        from prebuilt.kaniko.config import KanikoConfig

        request.check_registries("kaniko")
        request.cancellation.check()
        config = KanikoConfig.from_settings(self._settings)  # a mistake in it is told before packages are gathered
        pin = self._pin(config, request.spec.base.platform)
        with request.as_dockerfile("plain", progress, pin=pin, sets_labels=False) as rendered:
            run = self._run(
                _Order(
                    dockerfile=rendered.dockerfile,
                    reference=request.reference,
                    credentials=request.credentials,
                    image_id=request.spec.full_id,
                    note=progress.note,
                    cancellation=request.cancellation,
                ),
                config,
            )
            build = replace(
                run.build,
                platform=str(rendered.platform),
                built_on=str(config.build_platform) if config.build_platform else None,
                compression=request.spec.compression,
                image_labels=request.spec.all_labels,
                is_ours=True,
            )
            progress.state(f"building with Kaniko (Job {build.name} in {config.namespace})")
            digest = replace(run, build=build).run(rendered.dockerfile, rendered.context, progress.output)
        if digest is None:
            return None
        return _check(request.reference, digest, request.credentials, self._settings, progress.note)

    def build_and_push(  # published signature
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Callable[..., None],
        target_platform: str | None = None,
    ) -> bool:
        """Build `dockerfile` and push it as `image_tag`; return False if that failed.

        What the cluster and Kaniko say goes to `echo` as it comes, and then, if it failed, why. Kaniko pushes with ``username`` and
        ``password`` of `push_credentials`; without them, as the settings say.
        """
        from prebuilt.core.context_archive import published_context
        from prebuilt.kaniko.config import KanikoConfig

        secret = push_credentials.get("password")
        login = Credentials(username=push_credentials.get("username") or "", secret=secret) if secret else None
        image_id = hashlib.sha256(f"{image_tag}\n{dockerfile}".encode()).hexdigest()
        try:
            order = _Order(dockerfile=dockerfile, reference=image_tag, credentials=login, image_id=image_id, note=echo)
            run = self._run(order, KanikoConfig.from_settings(self._settings))
            build = replace(run.build, platform=target_platform)
            digest = replace(run, build=build).run(dockerfile, published_context(context_files), echo)
            if digest is not None:
                _check(image_tag, digest, login, self._settings, echo)
        except PrebuiltError as error:
            echo(PrebuiltError.__str__(error))  # without the lines that were passed on already
            return False
        return True

    def _pin(self, config: KanikoConfig, platform: Platform) -> Callable[[str], str]:
        """Return what finds the build stage's image where an image for `platform` is built by nodes of another one."""
        built_on = config.build_platform
        if built_on in {None, platform}:
            return lambda image: image
        from prebuilt.kaniko.stage_image import pinned

        return lambda image: pinned(image, built_on, self._settings)

    def _run(self, order: _Order, config: KanikoConfig) -> KanikoRun:
        """Return a run for `order`, which may be changed yet; nothing is asked of the cluster."""
        from prebuilt.core.dockerfile import proxy_arguments
        from prebuilt.kaniko.certificates import authorities
        from prebuilt.kaniko.cluster import Cluster
        from prebuilt.kaniko.job import KanikoBuild, new_name
        from prebuilt.kaniko.logins import sent_logins
        from prebuilt.kaniko.run import KanikoRun
        from prebuilt.oci.build_cache import BESIDE_IMAGES
        from prebuilt.oci.config import NetworkConfig
        from prebuilt.oci.dockerfile_images import pulled_repositories
        from prebuilt.oci.reference import parse_reference, split_repository

        network = NetworkConfig.from_settings(self._settings)
        check_registry(order.reference, "Kaniko")
        repository = parse_reference(order.reference).repository
        cache = repository if config.cache == BESIDE_IMAGES else config.cache
        pulled = (*pulled_repositories(order.dockerfile), *([cache] if cache else []))
        hosts = {split_repository(name)[0] for name in (repository, *pulled)}
        sends = config.secret_name is None and config.credentials == "send"
        return KanikoRun(
            build=KanikoBuild(
                name=new_name(order.image_id),
                reference=order.reference,
                image_id=order.image_id,
                user=_user(self._settings),
                insecure=tuple(sorted(host for host in hosts if network.base_url(host).startswith("http://"))),
                authorities=authorities(network, hosts),
                cache=cache,
                arguments=proxy_arguments(os.environ),
            ),
            config=config,
            cluster=Cluster(
                connection=self._connect(),
                namespace=config.namespace,
                cancellation=order.cancellation,
                note=order.note,
            ),
            host=split_repository(repository)[0],
            logins=sent_logins(repository, order.credentials, pulled, self._settings) if sends else {},
            note=order.note,
            cancellation=order.cancellation,
        )

    def _connect(self) -> Connection:
        """Return the connection that all builds share."""
        from prebuilt.kaniko.connection import Connection

        with self._lock:
            if self._connection is None:
                self._connection = Connection()
            return self._connection


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What both forms of a build have in common."""

    dockerfile: str
    reference: str
    credentials: Credentials | None
    image_id: str
    note: Callable[[str], None]
    cancellation: Cancellation = field(default_factory=Cancellation)


def _check(
    reference: str,
    digest: str,
    credentials: Credentials | None,
    settings: Settings,
    note: Callable[[str], None],
) -> Descriptor | str:
    """Return what the registry has under the digest that Kaniko reported; the digest where this machine cannot ask it.

    Raises:
        BuildError: The registry has no such image.
    """
    from prebuilt.oci.open import open_repository
    from prebuilt.oci.reference import parse_reference

    repository = parse_reference(reference).repository
    try:
        found = open_repository(repository, credentials, settings=settings).resolve(digest)
    except (RegistryError, SettingError) as error:  # where the pod pushes as itself, nobody here need have a login
        note(f"Kaniko pushed {digest}, which could not be checked: {error}")
        return digest
    if found is None:
        raise BuildError(
            "check the image that Kaniko pushed",
            at=reference,
            reason=f"it reports {digest}, and the registry has no such image",
            remedy="see that pods reach the same registry under that name as this machine",
        )
    return found


def _user(settings: Settings) -> str:
    """Return who builds, as Metaflow tells it."""
    for name in ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER"):
        if settings.environ.get(name):
            return settings.environ[name]
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in many containers
        return f"uid {os.getuid()}"


_: type[DockerBuildService] = KanikoBuildService
