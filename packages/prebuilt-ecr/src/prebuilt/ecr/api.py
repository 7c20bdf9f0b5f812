"""The API of ECR, as far as a registry client needs it: a password, and the repositories. boto3 is imported when it is asked."""

from __future__ import annotations

import base64
import binascii
import re
import threading
from dataclasses import dataclass
from datetime import timezone
from typing import Any

from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import RegistryError, SettingError
from prebuilt.ecr._version import __version__
from prebuilt.ecr.config import FIPS, REGION, ECRConfig
from prebuilt.ecr.failure import aws_errors

_ATTEMPTS = 6  # throttling among them: boto3 waits up to 20 s between them
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 10, 30
# Tags of images stay; those of the builders' caches, which move with each build, are left free.
# Source: https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-tag-mutability.html
_IMMUTABLE = {
    "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
    "imageTagMutabilityExclusionFilters": [
        {"filterType": "WILDCARD", "filter": tags} for tags in ("layers-*", "buildcache*")
    ],
}
_ENDPOINT_ACCOUNT = re.compile(r"https://([0-9]{12})\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """What ECR lets us push and pull with, and whose account we are in."""

    credentials: Credentials
    account: str


class ECRApi:
    """Calls to the ECR API. Concurrent calls are fine; boto3 is imported, and the network used, by the first."""

    def __init__(self, config: ECRConfig) -> None:
        """Ask for the account and region of `config`."""
        self._config = config
        self._lock = threading.RLock()
        self._session: Any = None
        self._client: Any = None

    def region(self) -> str:
        """Return the region: the one that is set, else boto3's.

        Raises:
            SettingError: There is none.
        """
        if self._config.region:
            return self._config.region
        found = self._open_session().region_name
        if not found:
            raise SettingError(
                REGION,
                reason="it is not set, and boto3 is configured with no region",
                remedy=f"set {REGION} or AWS_DEFAULT_REGION",
            )
        return str(found)

    def authorization(self) -> Authorization:
        """Return a new password for the registries of the region; it is good for 12 hours.

        Raises:
            RegistryError: AWS refused or could not be asked.

        Source: https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html
        """
        tried, at = "get a password for Amazon ECR", self.region()
        with aws_errors(tried, at=at, action="ecr:GetAuthorizationToken"):
            answer = self._open_client().get_authorization_token()
        try:
            data = answer["authorizationData"][0]
            username, _, secret = base64.b64decode(data["authorizationToken"], validate=True).decode().partition(":")
            account = _ENDPOINT_ACCOUNT.match(data["proxyEndpoint"])
            expires_at = data["expiresAt"].astimezone(timezone.utc)
        except (LookupError, binascii.Error, UnicodeDecodeError, AttributeError) as error:
            raise RegistryError(tried, at=at, reason="the answer is not in the documented form") from error
        return Authorization(
            credentials=Credentials(username=username, secret=secret, expires_at=expires_at),
            account=account[1] if account else "",
        )

    def has_repository(self, name: str, account: str) -> bool:
        """Return whether the repository is there."""
        tried, at = f"look for the repository {name}", f"account {account} in {self.region()}"
        with aws_errors(tried, at=at, action="ecr:DescribeRepositories"):
            client = self._open_client()
            try:
                client.describe_repositories(registryId=account, repositoryNames=[name])
            except client.exceptions.RepositoryNotFoundException:
                return False
        return True

    def create_repository(self, name: str, account: str, *, holds_images: bool) -> None:
        """Make the repository, as the settings say; it is no failure if somebody else was faster."""
        config = self._config
        encryption = {"encryptionType": config.encryption, **({"kmsKey": config.kms_key} if config.kms_key else {})}
        tried, at = f"create the repository {name}", f"account {account} in {self.region()}"
        with aws_errors(tried, at=at, action="ecr:CreateRepository"):
            client = self._open_client()
            try:
                client.create_repository(
                    registryId=account,
                    repositoryName=name,
                    imageScanningConfiguration={"scanOnPush": config.scan_on_push and holds_images},
                    encryptionConfiguration=encryption,
                    **(_IMMUTABLE if config.immutable_tags and holds_images else {"imageTagMutability": "MUTABLE"}),
                )
            except client.exceptions.RepositoryAlreadyExistsException:
                return

    def _open_session(self) -> Any:  # noqa: ANN401 - boto3 has no types
        with self._lock:
            if self._session is None:
                import boto3

                with aws_errors("read the AWS configuration", at="", action=""):
                    self._session = boto3.session.Session()
            return self._session

    def _open_client(self) -> Any:  # noqa: ANN401 - its class is made when boto3 reads its data
        with self._lock:  # sessions of boto3 are not safe to use from several threads
            if self._client is None:
                from botocore.config import Config

                if self._config.fips:
                    _check_fips(self.region())
                options = Config(
                    retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                    connect_timeout=_CONNECT_TIMEOUT_S,
                    read_timeout=_READ_TIMEOUT_S,
                    use_fips_endpoint=self._config.fips,
                    use_dualstack_endpoint=self._config.dualstack,
                    user_agent_extra=f"metaflow-prebuilt/{__version__}",
                )
                self._client = self._open_session().client("ecr", region_name=self.region(), config=options)
            return self._client


def _check_fips(region: str) -> None:
    """Refuse a region that has no endpoint for FIPS as far as botocore knows: its name would lead nowhere.

    Raises:
        SettingError: It has none.
    """
    import botocore.session

    known = {
        place: endpoint
        for partition in botocore.session.get_session().get_data("endpoints")["partitions"]
        for place, endpoint in partition["services"].get("api.ecr", {}).get("endpoints", {}).items()
    }
    if region in known and not any("fips" in each["tags"] for each in known[region].get("variants", ())):
        raise SettingError(
            FIPS,
            reason=f"Amazon ECR has no endpoint that is validated for FIPS in {region}",
            remedy=f"set {FIPS} to 0, which counts before AWS_USE_FIPS_ENDPOINT, or change {REGION}",
        )
