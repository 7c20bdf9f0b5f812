"""The registry ``ecr``: Amazon ECR, with the AWS credentials that are there already."""

from __future__ import annotations

from functools import partial
from typing import Any

from prebuilt.core.credentials import Credentials, CredentialsSource
from prebuilt.core.documents import DocumentStore
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.settings import Settings
from prebuilt.ecr.api import ECRApi
from prebuilt.ecr.authorization import AuthorizationSource
from prebuilt.ecr.config import ECRConfig
from prebuilt.ecr.hosts import registry_host
from prebuilt.ecr.repositories import Repositories
from prebuilt.oci.amazon import is_ecr
from prebuilt.oci.registry import RepositoryRegistry


class ECRRegistry(RepositoryRegistry):
    """Keeps images in the repository ``METAFLOW_PREBUILT_IMAGE_NAMESPACE`` of an account's registry.

    Needs no ``docker login``: passwords come from the ECR API, by boto3's credential chain. Making one asks nobody and imports no SDK.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Use what `settings` say; those of this process if None.

        Raises:
            SettingError: One is malformed.
        """
        self._config_settings = settings or Settings.load()
        self._config = ECRConfig.from_settings(self._config_settings)
        self._api = ECRApi(self._config)
        self._authorizations = AuthorizationSource(self._api.authorization)
        self._repositories = Repositories(self._api)
        super().__init__(lambda: f"{self.host}/{self._config.repository}", settings=self._config_settings)

    @property
    def host(self) -> str:
        """Host name of the account's registry."""
        config = self._config
        return registry_host(
            self._account, self._api.region(), fips=bool(config.fips), dualstack=bool(config.dualstack)
        )

    def credentials(self, reference: str) -> Credentials:
        """Return credentials to push `reference` with, good for three hours at least; make its repository if it is missing.

        Raises:
            RegistryError: AWS refused or could not be asked.
        """
        del reference  # a password opens every repository
        self._ensure(self._config.repository, holds_images=True)
        return self._authorizations()

    @property
    def credentials_source(self) -> CredentialsSource:
        """What gives credentials anew before they expire, and when the registry refuses them."""
        return self._authorizations

    def push_credentials(self) -> dict[str, Any]:
        """Return what outside builders were promised: the region, and how CodeBuild is set up."""
        get, region = self._config_settings.get, self._api.region()
        return {
            "region": region,
            "codebuild_region": get("PREBUILT_CODEBUILD_REGION") or region,
            "s3_bucket": get("PREBUILT_CODEBUILD_S3_BUCKET"),
            "codebuild_project": get("PREBUILT_CODEBUILD_PROJECT"),
        }

    def documents(self) -> DocumentStore:
        """Return the documents, which are in a repository of their own: their tags move, and those of images may be immutable."""
        from prebuilt.oci.documents import RepositoryDocuments, RepositoryWithDocuments

        name = self._config.documents_repository
        return RepositoryWithDocuments(
            documents=RepositoryDocuments(self._open(f"{self.host}/{name}")),
            ensure=partial(self._ensure, name, holds_images=False),
        )

    def _ensure(self, name: str, *, holds_images: bool) -> None:
        """Make the repository if it is missing, and ours to make: ECR makes none across accounts."""
        if self._config.creates and self._account == self._authorizations.account:
            self._repositories.ensure(self._account, name, holds_images=holds_images)

    @property
    def _account(self) -> str:
        return self._config.account or self._authorizations.account

    def _login(self, name: str) -> Credentials | CredentialsSource | None:
        """Return our passwords for every registry of the region: they are good for other accounts' as well."""
        host = name.partition("/")[0]
        return self._authorizations if is_ecr(host) and f".{self._api.region()}." in host else None


_: type[ImageRegistry] = ECRRegistry
