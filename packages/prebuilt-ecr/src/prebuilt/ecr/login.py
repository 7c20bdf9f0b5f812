"""The login for images of ECR wherever they are read or pushed: base images of other accounts, a push that outlasts its password."""

from __future__ import annotations

from dataclasses import replace

from prebuilt.core.credentials import CredentialsSource
from prebuilt.core.settings import Settings
from prebuilt.ecr.api import ECRApi
from prebuilt.ecr.authorization import AuthorizationSource
from prebuilt.ecr.config import ECRConfig
from prebuilt.oci.amazon import ecr_region
from prebuilt.oci.cloud_logins import FindSource


def find_source(host: str, settings: Settings) -> CredentialsSource | None:
    """Return what gives passwords for `host`, a private registry of any account; None for hosts that are not ECR's.

    Raises:
        SettingError: A setting of the registry ``ecr`` is malformed.
    """
    region = ecr_region(host)
    if region is None:
        return None
    return AuthorizationSource(ECRApi(replace(ECRConfig.from_settings(settings), region=region)).authorization)


_: FindSource = find_source
