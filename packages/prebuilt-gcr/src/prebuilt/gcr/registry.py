"""The registry ``gcr``: Artifact Registry, with the Google credentials that are there already."""

from __future__ import annotations

from prebuilt.core.credentials import Credentials, CredentialsSource
from prebuilt.core.documents import DocumentStore
from prebuilt.core.errors import SettingError
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.settings import Settings
from prebuilt.gcr.config import PROJECT, GCRConfig, check_project
from prebuilt.gcr.identity import shared_identity
from prebuilt.gcr.login import find_credentials
from prebuilt.gcr.repositories import Repositories
from prebuilt.oci.google import ArtifactRepository
from prebuilt.oci.reference import split_repository
from prebuilt.oci.registry import RepositoryRegistry


class GCRRegistry(RepositoryRegistry):
    """Keeps images at ``METAFLOW_PREBUILT_GCR_HOST``, in the project ``METAFLOW_PREBUILT_GCR_PROJECT`` or the credentials' own.

    Needs neither ``docker login`` nor ``gcloud``: tokens come from google-auth. Making one asks nobody and imports no SDK.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Use what `settings` say; those of this process if None.

        Raises:
            SettingError: One is malformed.
        """
        settings = settings or Settings.load()
        self._config = GCRConfig.from_settings(settings)
        self._identity = shared_identity(settings)
        self._repositories = Repositories(self._identity, settings)
        self._our_settings = settings
        super().__init__(lambda: self._config.images(self._project), settings=settings)

    def credentials(self, reference: str) -> Credentials | None:
        """Return a token to push `reference` with, good for half an hour at least; make its repository if it is missing.

        None where the host is not Google's, and asks nobody or has a login of its own.

        Raises:
            RegistryError: Google refused or could not be asked.
        """
        del reference  # a token opens every repository
        if not self._config.is_google:
            return find_credentials(self.repository, self._our_settings)
        self._ensure(self.repository)
        return self._identity()

    @property
    def credentials_source(self) -> CredentialsSource:
        """What gives tokens anew before they end, and when the registry refuses them."""
        return self._identity

    def documents(self) -> DocumentStore:
        """Return the documents, which are in a repository of their own: their tags move, and those of images may be immutable."""
        from prebuilt.oci.documents import RepositoryDocuments, RepositoryWithDocuments

        name = self._config.documents(self._project)
        return RepositoryWithDocuments(
            documents=RepositoryDocuments(self._open(name)), ensure=lambda: self._ensure(name)
        )

    def _ensure(self, name: str) -> None:
        """Make the repository that the images called `name` are in, if it is missing and ours to make."""
        repository = ArtifactRepository.find(*split_repository(name))
        if repository is not None and self._config.creates:
            self._repositories.ensure(repository)

    @property
    def _project(self) -> str | None:
        """The project of the setting; for Google's hosts, else that of the credentials."""
        if self._config.project or not self._config.is_google:
            return self._config.project
        project = self._identity.project()
        if project is None:
            reason = "it is not set, and the Google credentials belong to no project"
            raise SettingError(
                PROJECT, reason=reason, remedy=f"set {PROJECT} to the id of the project that keeps images"
            )
        check_project(project)
        return project

    def _login(self, name: str) -> Credentials | CredentialsSource | None:
        """Return our tokens for the host of our images; for others what the client finds, which may be our tokens as well."""
        return self._identity if self._config.is_google and name.startswith(f"{self._config.host}/") else None


_: type[ImageRegistry] = GCRRegistry
