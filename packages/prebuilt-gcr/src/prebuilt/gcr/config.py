"""Settings of the registry ``gcr``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prebuilt.core.errors import InvalidValueError, SettingError
from prebuilt.core.settings import Settings
from prebuilt.oci.google import google_location, is_container_registry, is_google
from prebuilt.oci.namespace import DEFAULT_NAMESPACE, image_namespace
from prebuilt.oci.reference import parse_repository

PROJECT, HOST = "METAFLOW_PREBUILT_GCR_PROJECT", "METAFLOW_PREBUILT_GCR_HOST"
CREATE = "METAFLOW_PREBUILT_GCR_CREATE_REPOSITORY"
_REPOSITORY, _DOCUMENTS = "METAFLOW_PREBUILT_GCR_REPOSITORY", "METAFLOW_PREBUILT_GCR_DOCUMENTS_REPOSITORY"

_DEFAULT_HOST = "gcr.io"
# Source: https://cloud.google.com/resource-manager/docs/creating-managing-projects
_PROJECT_FORM = re.compile(r"(?:[a-z0-9-]+(?:\.[a-z0-9-]+)+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
# Source: https://cloud.google.com/artifact-registry/docs/repositories/repo-locations
_LOCATION_FORM = re.compile(r"us|europe|asia|[a-z]+(?:-[a-z]+)+[0-9]+")
# Source: https://cloud.google.com/artifact-registry/docs/reference/rest/v1/projects.locations.repositories
_REPOSITORY_FORM = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_EXAMPLE = "write gcr.io, or a host as europe-west1-docker.pkg.dev"


@dataclass(frozen=True, slots=True, kw_only=True)
class GCRConfig:
    """Where images are kept.

    Attributes:
        host: Of the registry, with its port.
        project: Its id; None for that of the credentials.
        repository: Of images in Artifact Registry; empty where the host's names have none.
        documents_repository: Of locks and other documents, whose tags move; likewise.
        namespace: What images are called.
        creates: Whether a missing repository is made.
    """

    host: str
    project: str | None
    repository: str
    documents_repository: str
    namespace: str
    creates: bool

    @classmethod
    def from_settings(cls, settings: Settings) -> GCRConfig:
        """Read the settings.

        Raises:
            SettingError: One is malformed, or two contradict each other.
        """
        place = (settings.get("PREBUILT_GCR_HOST") or _DEFAULT_HOST).removesuffix("/")
        host, _, path = place.partition("/")
        _check_host(place, host)
        in_place = _split_path(place, path, has_repository=_has_repositories(host))
        project, repository = (
            _one_of(settings, name, said, place) for name, said in zip((PROJECT, _REPOSITORY), in_place, strict=True)
        )
        if project is not None:
            check_project(project)
        namespace = image_namespace(settings)
        repository, documents = _repositories(settings, host, repository)
        return cls(
            host=host,
            project=project,
            repository=repository,
            documents_repository=documents,
            namespace=namespace,
            creates=settings.flag("PREBUILT_GCR_CREATE_REPOSITORY", default=True),
        )

    @property
    def is_google(self) -> bool:
        """Whether the host is one of Google's, and not a mirror or a registry of one's own."""
        return is_google(self.host)

    def images(self, project: str | None) -> str:
        """Return the full name of the repository of images; `project` may be None where the host is not Google's."""
        return self._name(project, self.repository, self.namespace)

    def documents(self, project: str | None) -> str:
        """Return the full name of the repository of documents.

        Artifact Registry makes tags immutable by repository, so that documents are in one of their own where names allow it.
        """
        is_apart = self.documents_repository != self.repository
        namespace = self.namespace if is_apart else f"{self.namespace}-documents"
        return self._name(project, self.documents_repository, namespace)

    def _name(self, project: str | None, repository: str, namespace: str) -> str:
        parts = (self.host, (project or "").replace(":", "/"), repository, namespace)
        return "/".join(part for part in parts if part)


def check_project(project: str) -> None:
    """Return if `project` can be the id of one.

    Raises:
        SettingError: It cannot.
    """
    if not _PROJECT_FORM.fullmatch(project):
        reason = f"{project!r} is not the id of a project: 6 to 30 of a-z 0-9 -"
        raise SettingError(PROJECT, reason=reason, remedy="write its id; its name and its number are something else")


def _check_host(place: str, host: str) -> None:
    location = google_location(host)
    if location is not None and not _LOCATION_FORM.fullmatch(location):
        reason = f"{location!r} is not a location of Artifact Registry"
        raise SettingError(HOST, reason=reason, remedy="write a region, such as europe-west1, or us, europe or asia")
    if host.endswith("pkg.dev") and location is None:
        reason = f"{host!r} is not a host of Docker repositories"
        raise SettingError(HOST, reason=reason, remedy="write LOCATION-docker.pkg.dev")
    if host.endswith("gcr.io") and location is None:
        reason = f"{host!r} is not a name of Container Registry"
        raise SettingError(HOST, reason=reason, remedy="write gcr.io, us.gcr.io, eu.gcr.io or asia.gcr.io")
    try:
        named = parse_repository(f"{place}/x")
    except InvalidValueError as error:
        raise SettingError(HOST, reason=f"{place!r} is no host: {error.reason}", remedy=_EXAMPLE) from error
    if not named.startswith(f"{host}/"):
        raise SettingError(HOST, reason=f"{host!r} is no host: it has neither a dot nor a port", remedy=_EXAMPLE)


def _has_repositories(host: str) -> bool:
    return is_google(host) and not is_container_registry(host)


def _split_path(place: str, path: str, *, has_repository: bool) -> tuple[str | None, str | None]:
    """Return project and repository of a place as Google's console shows it: ``HOST/PROJECT/REPOSITORY``."""
    if not path:
        return None, None
    parts = path.split("/")
    if "." in parts[0]:  # example.com/project
        parts[:2] = [":".join(parts[:2])]
    most = 2 if has_repository else 1
    if len(parts) > most:
        reason = f"{place!r} has more than a project{' and a repository' if most > 1 else ''} behind its host"
        raise SettingError(HOST, reason=reason, remedy="METAFLOW_PREBUILT_IMAGE_NAMESPACE says what images are called")
    return parts[0], parts[1] if len(parts) > 1 else None


def _one_of(settings: Settings, name: str, said: str | None, place: str) -> str | None:
    """Return what the setting or the place says, which must not contradict each other."""
    value = settings.get(name.removeprefix("METAFLOW_"))
    if value and said and value != said:
        raise SettingError(name, reason=f"it is {value!r}, and {HOST} is {place!r}", remedy="unset one of the two")
    return value or said


def _repositories(settings: Settings, host: str, repository: str | None) -> tuple[str, str]:
    documents = settings.get("PREBUILT_GCR_DOCUMENTS_REPOSITORY")
    if not _has_repositories(host):
        for name, value in ((_REPOSITORY, repository), (_DOCUMENTS, documents)):
            if value:
                reason = f"it is {value!r}, and names at {host} have a project and an image only"
                raise SettingError(name, reason=reason, remedy=f"unset it, or set {HOST} to LOCATION-docker.pkg.dev")
        return "", ""
    repository = repository or DEFAULT_NAMESPACE
    documents = documents or f"{repository}-documents"
    for name, value in ((_REPOSITORY, repository), (_DOCUMENTS, documents)):
        if not _REPOSITORY_FORM.fullmatch(value):
            reason = f"{value!r} cannot name a repository: at most 63 of a-z 0-9 -, a letter first, no - last"
            raise SettingError(name, reason=reason)
    return repository, documents
