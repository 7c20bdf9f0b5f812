"""The repositories of Artifact Registry, made when they are missing.

Source: https://cloud.google.com/artifact-registry/docs/reference/rest/v1/projects.locations.repositories
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prebuilt.core.errors import ForbiddenError, RegistryError
from prebuilt.core.retry import Backoff
from prebuilt.core.settings import Settings
from prebuilt.gcr.failure import Permission, explained
from prebuilt.gcr.identity import Identity
from prebuilt.oci.config import NetworkConfig
from prebuilt.oci.google import ArtifactRepository
from prebuilt.oci.retrying import with_retries

if TYPE_CHECKING:
    from prebuilt.oci.transport import Answer, Call

_API = "https://artifactregistry.googleapis.com"
_API_VARIABLE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_ARTIFACTREGISTRY"
"""What gcloud is told where the API is reached by another name: in a private network, for one."""
_GET = Permission("artifactregistry.repositories.get", role="roles/artifactregistry.reader")
_CREATE = Permission("artifactregistry.repositories.create", role="roles/artifactregistry.admin")
_CONFLICT, _NOT_FOUND = 409, 404
_LONGEST_CREATION_S, _LOOK_EVERY_S = 120.0, 1.0
_DESCRIPTION = "Images of Metaflow's steps, by metaflow-prebuilt"


@dataclass(slots=True)
class Repositories:
    """Makes each repository that is missing. Concurrent calls are fine; each repository is asked for once."""

    identity: Identity
    settings: Settings
    _there: set[ArtifactRepository] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ensure(self, repository: ArtifactRepository) -> None:
        """Return when the repository is there.

        Raises:
            RegistryError: It cannot be looked for or made.
        """
        with self._lock:
            if repository in self._there:
                return
            if not self._is_there(repository):
                self._create(repository)
            self._there.add(repository)

    def _is_there(self, repository: ArtifactRepository) -> bool:
        tried = f"look for the repository {repository.name}"
        try:
            status, _ = self._ask("GET", repository.resource, tried=tried, wanted={200, _NOT_FOUND})
        except RegistryError as error:
            raise explained(error, repository, _GET) from error
        return status != _NOT_FOUND

    def _create(self, repository: ArtifactRepository) -> None:
        tried = f"create the repository {repository.name}"
        parent, _, name = repository.resource.rpartition("/")
        body = {"format": "DOCKER", "description": _DESCRIPTION}
        try:
            status, operation = self._ask(
                "POST", f"{parent}?repositoryId={name}", tried=tried, wanted={200, _CONFLICT}, body=body
            )
            if status != _CONFLICT:  # somebody else was faster
                self._await(operation, tried, repository)
        except RegistryError as error:
            if isinstance(error, ForbiddenError) and repository.comes_with_pushes:
                return
            raise explained(error, repository, _CREATE) from error

    def _await(self, operation: Mapping[str, Any], tried: str, repository: ArtifactRepository) -> None:
        """Return when the operation has ended well."""
        end_s = time.monotonic() + _LONGEST_CREATION_S
        while not operation.get("done"):
            if time.monotonic() > end_s:
                reason = f"it was not there after {_LONGEST_CREATION_S:.0f} s"
                raise RegistryError(tried, at=repository.resource, reason=reason, remedy="deploy again")
            time.sleep(_LOOK_EVERY_S)
            _, operation = self._ask("GET", str(operation.get("name", "")), tried=tried, wanted={200})
        error = operation.get("error")
        if error:
            reason, remedy = str(error.get("message") or error), f"create it yourself: {repository.creation}"
            raise RegistryError(tried, at=repository.resource, reason=reason, remedy=remedy)

    def _ask(
        self, method: str, path: str, *, tried: str, wanted: set[int], body: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Return status and JSON of the answer."""
        from prebuilt.oci.transport import Call

        data = json.dumps(body).encode() if body else b""
        quota = self.identity.quota_project()
        call = Call(
            method=method,
            url=f"{self._base_url}/v1/{path}",
            tried=tried,
            wanted=frozenset(wanted),
            headers={
                **({"X-Goog-User-Project": quota} if quota else {}),
                **({"Content-Type": "application/json", "Content-Length": str(len(data))} if data else {}),
            },
            body=(lambda: iter((data,))) if data else None,
        )
        answer = self._send(call)
        try:
            return answer.status, json.loads(answer.body)
        except ValueError as error:
            reason = "the answer is not in the documented form"
            raise RegistryError(tried, at=call.url, reason=reason, status=answer.status) from error

    @property
    def _base_url(self) -> str:
        return (self.settings.environ.get(_API_VARIABLE) or _API).rstrip("/")

    def _send(self, call: Call) -> Answer:
        """Return the answer that was wanted; a request that failed in passing is sent again."""
        from prebuilt.oci.transport import Wire, read_answer, refuse

        wire = Wire(NetworkConfig.from_settings(self.settings))

        def once() -> Answer:
            response = wire.open(call, f"Bearer {self.identity().secret}")
            if response.status_code in call.wanted:
                return read_answer(call, response)
            raise refuse(call, response, "")

        return with_retries(once, backoff=Backoff(), sleep=time.sleep)
