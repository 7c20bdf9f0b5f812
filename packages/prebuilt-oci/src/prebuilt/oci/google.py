"""What is particular about Google's registries: Artifact Registry, by its own names and by those of Container Registry."""

from __future__ import annotations

import http
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

_PKG_DEV = re.compile(r"(?P<location>[a-z0-9-]+)-docker\.pkg\.dev")
# Source: https://cloud.google.com/artifact-registry/docs/transition/gcr-repositories, "gcr.io domain support"
_GCR_LOCATIONS = {"gcr.io": "us", "us.gcr.io": "us", "eu.gcr.io": "europe", "asia.gcr.io": "asia"}
_NAMED = re.compile(r"/v2/(.+?)/(?:manifests|blobs|tags)/")
_DOMAIN_SCOPED = 2
"""Projects of some old organisations are called ``example.com:project``, in an image's name ``example.com/project``."""
_WRITING = frozenset({"POST", "PUT", "PATCH"})

UPLOAD, DOWNLOAD = "artifactregistry.repositories.uploadArtifacts", "artifactregistry.repositories.downloadArtifacts"
WRITER, READER = "roles/artifactregistry.writer", "roles/artifactregistry.reader"
_CREATE_ON_PUSH = "artifactregistry.repositories.createOnPush (roles/artifactregistry.createOnPushWriter)"
LOG_IN = "run `gcloud auth application-default login`, or name a credentials file in GOOGLE_APPLICATION_CREDENTIALS"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRepository:
    """A repository of Artifact Registry: it holds images by many names.

    Attributes:
        project: Its id, ``example.com:project`` for one of a domain.
        location: A region, or ``us``, ``europe``, ``asia``.
        name: Those behind names of Container Registry are called as the host is.
    """

    project: str
    location: str
    name: str

    @classmethod
    def find(cls, host: str, path: str) -> ArtifactRepository | None:
        """Return the one that the image `path` at `host` is in; None where that says none."""
        location = google_location(host)
        parts = path.split("/")
        size = _DOMAIN_SCOPED if "." in parts[0] else 1
        project, rest = ":".join(parts[:size]), parts[size:]
        if location is None or not rest:
            return None
        return cls(project=project, location=location, name=host if host in _GCR_LOCATIONS else rest[0])

    @property
    def resource(self) -> str:
        """What the API calls it: ``projects/…/locations/…/repositories/…``."""
        return f"projects/{self.project}/locations/{self.location}/repositories/{self.name}"

    @property
    def comes_with_pushes(self) -> bool:
        """Whether the first push makes it, where whoever pushes may.

        Source: https://cloud.google.com/artifact-registry/docs/transition/setup-gcr-repo
        """
        return self.name in _GCR_LOCATIONS

    @property
    def creation(self) -> str:
        """The command that makes it."""
        return (
            f"gcloud artifacts repositories create {self.name} --repository-format=docker"
            f" --location={self.location} --project={self.project}"
        )


def google_location(host: str) -> str | None:
    """Return where images of one of Google's registries are kept: a region, or ``us``; None for other hosts."""
    found = _PKG_DEV.fullmatch(host)
    return found["location"] if found else _GCR_LOCATIONS.get(host)


def is_google(host: str) -> bool:
    """Return whether `host` is one of Google's registries."""
    return google_location(host) is not None


def is_container_registry(host: str) -> bool:
    """Return whether `host` is a name of Container Registry, which has no repositories in its images' names."""
    return host in _GCR_LOCATIONS


def refusal_remedy(status: int, code: str, method: str, url: str) -> str:
    """Return what helps where one of Google's registries, or its token service, has answered so; empty where nothing is known.

    A permission has to be known: the answer to a HEAD has no body that could name it.
    """
    host, repository, writes = _asked_for(method, url)
    if status == http.HTTPStatus.UNAUTHORIZED:
        return f"{LOG_IN}; what is not pushed by the registry gcr needs metaflow-prebuilt[gcr] installed, or `docker login`"
    if status == http.HTTPStatus.FORBIDDEN:
        permission, role = (UPLOAD, WRITER) if writes else (DOWNLOAD, READER)
        where = f" on {repository.resource}" if repository else ""
        missing = f"; if it does not exist, create it: {repository.creation}" if repository else ""
        if repository and repository.comes_with_pushes:
            missing += f", or grant {_CREATE_ON_PUSH}, with which a push does"
        return f"grant {permission} ({role}){where} to whoever deploys{missing}"
    if status == http.HTTPStatus.PRECONDITION_FAILED and host in _GCR_LOCATIONS:
        return _moved_remedy(host, repository)
    if code == "NAME_UNKNOWN" and repository:
        return f"create it: {repository.creation}"
    if status == http.HTTPStatus.TOO_MANY_REQUESTS:
        return "wait a while, or ask Google for a higher quota of Artifact Registry requests in this location"
    return ""


def _moved_remedy(host: str, repository: ArtifactRepository | None) -> str:
    """Return what helps where a project's names of Container Registry were never moved: they take nothing and serve nothing.

    Source: https://cloud.google.com/artifact-registry/docs/transition/transition-from-gcr
    """
    project = repository.project if repository else "PROJECT"
    return (
        "Container Registry takes no pushes since 2025-03-18, and serves no images any more: to keep images, set"
        f" METAFLOW_PREBUILT_GCR_HOST={_GCR_LOCATIONS[host]}-docker.pkg.dev; for a base image, name another; or have"
        f" Artifact Registry serve {host}: gcloud artifacts docker upgrade migrate --projects={project}"
    )


def _asked_for(method: str, url: str) -> tuple[str, ArtifactRepository | None, bool]:
    """Return host, repository, and whether something was to be written: of a request, or of one for a token."""
    parts = urlsplit(url)
    scopes = [scope.split(":") for scope in parse_qs(parts.query).get("scope", [])]
    named = _NAMED.match(parts.path)
    path = named[1] if named else next((scope[1] for scope in scopes if len(scope) > 1), "")
    writes = method in _WRITING or any("push" in scope[-1].split(",") for scope in scopes)
    return parts.netloc, ArtifactRepository.find(parts.netloc, path), writes
