"""Settings of the registry ``ecr``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prebuilt.core.errors import SettingError
from prebuilt.core.settings import Settings

ACCOUNT, REGION = "METAFLOW_PREBUILT_ECR_ACCOUNT", "METAFLOW_PREBUILT_ECR_REGION"
FIPS = "METAFLOW_PREBUILT_ECR_FIPS"
CREATE = "METAFLOW_PREBUILT_ECR_CREATE_REPOSITORY"
_NAMESPACE, _DOCUMENTS = "METAFLOW_PREBUILT_IMAGE_NAMESPACE", "METAFLOW_PREBUILT_ECR_DOCUMENTS_REPOSITORY"
_DEFAULT_NAMESPACE = "metaflow-prebuilt"

_ACCOUNT_FORM = re.compile(r"[0-9]{12}")
_REGION_FORM = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]+")
# Source: https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_CreateRepository.html, repositoryName
_REPOSITORY_FORM = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_MAX_REPOSITORY_LENGTH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ECRConfig:
    """Where images are kept, and what a repository is like that has to be made.

    Attributes:
        account: Twelve digits; None for the account of the credentials.
        region: None for the one that boto3 is configured with.
        repository: Of images.
        documents_repository: Of locks and layer catalogues, whose tags move.
        fips: Whether to use the endpoints that are validated for FIPS 140; None where neither we nor AWS's variable was told.
        dualstack: Whether to use the endpoints that speak IPv6 as well; None likewise.
        creates: Whether a missing repository is made.
        immutable_tags: Whether tags of a new repository of images, but for those of caches, stay where they were put.
        scan_on_push: Whether a new repository of images is scanned.
        encryption: Of a new repository: ``AES256``, ``KMS`` or ``KMS_DSSE``.
        kms_key: ARN, alias or id; None for the key that AWS manages.
    """

    account: str | None
    region: str | None
    repository: str
    documents_repository: str
    fips: bool | None
    dualstack: bool | None
    creates: bool
    immutable_tags: bool
    scan_on_push: bool
    encryption: str
    kms_key: str | None

    @classmethod
    def from_settings(cls, settings: Settings) -> ECRConfig:
        """Read the settings.

        Raises:
            SettingError: One is malformed, or two contradict each other.
        """
        repository = settings.get("PREBUILT_IMAGE_NAMESPACE") or _DEFAULT_NAMESPACE
        documents = settings.get("PREBUILT_ECR_DOCUMENTS_REPOSITORY") or f"{repository}-documents"
        encryption = settings.choice("PREBUILT_ECR_ENCRYPTION", ("AES256", "KMS", "KMS_DSSE"), default="AES256")
        made = cls(
            account=_checked(settings, ACCOUNT, _ACCOUNT_FORM, "an account's number, twelve digits"),
            region=_checked(settings, REGION, _REGION_FORM, "the code of a region, such as eu-west-1"),
            repository=_checked_repository(_NAMESPACE, repository),
            documents_repository=_checked_repository(_DOCUMENTS, documents),
            fips=_switch(settings, "PREBUILT_ECR_FIPS", "AWS_USE_FIPS_ENDPOINT"),
            dualstack=_switch(settings, "PREBUILT_ECR_DUALSTACK", "AWS_USE_DUALSTACK_ENDPOINT"),
            creates=settings.flag("PREBUILT_ECR_CREATE_REPOSITORY", default=True),
            immutable_tags=settings.flag("PREBUILT_ECR_IMMUTABLE_TAGS", default=False),
            scan_on_push=settings.flag("PREBUILT_ECR_SCAN_ON_PUSH", default=False),
            encryption=encryption,
            kms_key=settings.get("PREBUILT_ECR_KMS_KEY"),
        )
        made._check_agreement()
        return made

    def _check_agreement(self) -> None:
        if self.kms_key and self.encryption == "AES256":
            raise SettingError(
                "METAFLOW_PREBUILT_ECR_KMS_KEY",
                reason="a key was given, and encryption is AES256, which has none",
                remedy="set METAFLOW_PREBUILT_ECR_ENCRYPTION to KMS or KMS_DSSE",
            )
        if self.immutable_tags and self.documents_repository == self.repository:
            raise SettingError(
                _DOCUMENTS,
                reason="it is the repository of images, whose tags METAFLOW_PREBUILT_ECR_IMMUTABLE_TAGS forbids to move",
                remedy="name another repository, or unset it",
            )


def _checked(settings: Settings, name: str, form: re.Pattern[str], what: str) -> str | None:
    value = settings.get(name.removeprefix("METAFLOW_"))
    if value is not None and not form.fullmatch(value):
        raise SettingError(name, reason=f"{value!r} is not {what}", remedy="mend it, or unset it to ask AWS")
    return value


def _checked_repository(name: str, value: str) -> str:
    if not _REPOSITORY_FORM.fullmatch(value) or not 1 < len(value) <= _MAX_REPOSITORY_LENGTH:
        reason = f"{value!r} cannot name a repository of ECR: 2 to 256 of a-z 0-9 / and, between these, . _ -"
        raise SettingError(name, reason=reason)
    return value


def _switch(settings: Settings, name: str, variable_of_aws: str) -> bool | None:
    """Return our switch; where it is not set, what AWS's own variable says; None where that is not set either."""
    of_aws = settings.environ.get(variable_of_aws, "").lower()
    is_ours = settings.get(name) is not None or f"METAFLOW_{name}" in settings.environ
    return settings.flag(name, default=of_aws == "true") if is_ours or of_aws else None
