"""What our registries have in common: a repository whose name they know, and which answers."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from prebuilt.core.credentials import Credentials, CredentialsSource
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.documents import DocumentStore
from prebuilt.core.errors import BaseImageError, RegistryError, SettingError
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.core.spec import EnvId
from prebuilt.oci.image import ImageConfig, ImageIndex, ImageManifest, select_manifest
from prebuilt.oci.media_types import INDEXES
from prebuilt.oci.open import open_repository
from prebuilt.oci.reference import check_tag, is_layout, parse_reference, parse_repository, split_repository
from prebuilt.oci.repository import Repository

_log = logging.getLogger(__name__)

_TAG_FORMAT = "v1"
_HTTPS_PORT = 443
_LISTENS_S = 1.0

# Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names
_SECRET = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


class RepositoryRegistry(ImageRegistry):
    """A registry of which one repository is used. Concurrent calls are fine; nothing is asked before the first of them.

    A backend calls ``super().__init__`` with its repository's name, and overrides :meth:`credentials` and :meth:`pull_config`
    where its cloud has something to say.
    """

    def __init__(self, repository: str | Callable[[], str], *, settings: Settings | None = None) -> None:
        """Use `repository`, ``host[:port]/path`` or ``oci:/folder``; `settings` are this process's if None.

        Where somebody must be asked for the name, `repository` is what asks; it is called once, when the name is needed.

        Raises:
            InvalidValueError: It cannot name a repository.
            SettingError: ``METAFLOW_PREBUILT_IMAGE_PULL_SECRETS`` names what cannot be a secret.
        """
        self._find_name = repository if callable(repository) else lambda: repository
        self._name = None if callable(repository) else parse_repository(repository)
        self._settings = settings
        self._pull_secrets = pull_secrets(settings or Settings.load())
        self._opened: dict[str, Repository] = {}
        self._lock = threading.RLock()

    @property
    def repository(self) -> str:
        """Full name of the repository: ``host[:port]/path`` or ``oci:/folder``."""
        with self._lock:
            if self._name is None:
                self._name = parse_repository(self._find_name())
            return self._name

    def image_tag(self, env_id: EnvId) -> str:
        """Return ``repository:v1-<req_id>-<full_id>-<arch>``."""
        tag = check_tag(f"{_TAG_FORMAT}-{env_id.req_id}-{env_id.full_id}-{env_id.arch}")
        return f"{self.repository}:{tag}"

    def push_credentials(self) -> dict[str, Any]:
        """Return nothing: our builders ask :meth:`credentials`, others find what Docker's configuration has."""
        return {}

    def pull_config(self, pull_tag: str) -> dict[str, Any]:
        """Return the image pull secrets that ``METAFLOW_PREBUILT_IMAGE_PULL_SECRETS`` names, as ``@kubernetes`` wants them.

        Nothing where it is not set: then who runs the task can pull without being told how.
        """
        del pull_tag
        return {"image_pull_secrets": list(self._pull_secrets)} if self._pull_secrets else {}

    def base_image_identity(self, base_image: str, arch: str) -> str:
        """Return the digest of `base_image` for `arch` (``linux-64`` or ``linux/amd64``).

        Raises:
            BaseImageError: It is absent, or for other platforms only.
            RegistryError: Its registry could not be asked.
        """
        reference = parse_reference(base_image)
        manifest = self._open(reference.repository).get_manifest(reference.identifier)
        if manifest is None:
            reason = "its registry does not have it"
            raise BaseImageError("find the base image", at=base_image, reason=reason, remedy="check its name and tag")
        if manifest.descriptor.media_type not in INDEXES:
            return manifest.descriptor.digest
        return select_manifest(ImageIndex.parse(manifest.data), Platform.parse(arch), at=base_image).digest

    def resolve(self, reference: str) -> Descriptor | None:
        """Return the manifest that is now served for `reference`, which may be in another repository, too."""
        parsed = parse_reference(reference)
        return self._open(parsed.repository).resolve(parsed.identifier)

    def labels(self, reference: str, platform: Platform) -> Mapping[str, str]:
        """Return the labels of the image for `platform` that is now served for `reference`; empty if there is none."""
        parsed = parse_reference(reference)
        repository = self._open(parsed.repository)
        manifest = repository.get_manifest(parsed.identifier)
        if manifest is not None and manifest.descriptor.media_type in INDEXES:
            selected = select_manifest(ImageIndex.parse(manifest.data), platform, at=reference)
            manifest = repository.get_manifest(selected.digest)
        if manifest is None:
            return {}
        with repository.open_blob(ImageManifest.parse(manifest.data).config) as chunks:
            return ImageConfig.parse(b"".join(chunks)).labels

    def check_pull(self, reference: str) -> None:
        """Ask for `reference` where tasks will, and with our own login.

        An address that only the cluster reaches, or a registry that wants another login there, proves nothing and is let through.

        Raises:
            RegistryError: The registry answers that it does not have it.
        """
        parsed = parse_reference(reference)
        if parsed.repository != self.repository and not _listens(parsed.repository):
            return
        try:
            there = self._open(parsed.repository).resolve(parsed.identifier)
        except RegistryError as error:
            _log.info("whether tasks can pull %s cannot be told from here: %s", reference, error)
            return
        if there is None:
            raise RegistryError(
                "find the image where tasks pull it",
                at=reference,
                reason="the registry does not have it",
                remedy=f"make the address that tasks pull from lead to the registry of {self.repository}",
            )

    def documents(self) -> DocumentStore:
        """Return the documents in the repository."""
        from prebuilt.oci.documents import RepositoryDocuments

        return RepositoryDocuments(self._open(self.repository))

    def is_reachable_from_cluster(self) -> bool:
        """Return whether other machines can pull from here: not from a folder."""
        return not is_layout(self.repository)

    def _login(self, name: str) -> Credentials | CredentialsSource | None:
        """Return how the repository called `name` is opened; None to use what Docker's configuration has."""
        return self.credentials(name) if name == self.repository else None

    def _open(self, name: str) -> Repository:
        """Return the repository called `name`, opened once: credentials are asked for, and connections made, once."""
        with self._lock:
            if name not in self._opened:
                self._opened[name] = open_repository(name, self._login(name), settings=self._settings)
            return self._opened[name]


def _listens(repository: str) -> bool:
    """Return whether anybody answers at the address of `repository`: asked briefly, since many a cluster's names lead nowhere here."""
    host, _ = split_repository(repository)
    url = urlsplit(f"//{host}")
    try:
        with socket.create_connection((url.hostname or "", url.port or _HTTPS_PORT), timeout=_LISTENS_S):
            return True
    except OSError:
        return False


def pull_secrets(settings: Settings) -> tuple[str, ...]:
    """Return the Kubernetes secrets that tasks pull images with: ``METAFLOW_PREBUILT_IMAGE_PULL_SECRETS``, separated by commas.

    Raises:
        SettingError: One cannot be the name of a secret.
    """
    value = settings.get("PREBUILT_IMAGE_PULL_SECRETS", "") or ""
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    for name in names:
        if not _SECRET.fullmatch(name):
            raise SettingError(
                "METAFLOW_PREBUILT_IMAGE_PULL_SECRETS",
                reason=f"{name!r} cannot be the name of a Kubernetes secret",
                remedy="write names of secrets, of a-z 0-9 . and -, separated by commas",
            )
    return names
