"""Errors out of what google-auth raises and what Google's APIs answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prebuilt.core.errors import (
    ForbiddenError,
    PrebuiltError,
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
    SettingError,
    UnauthorizedError,
)
from prebuilt.gcr.config import CREATE, HOST, PROJECT
from prebuilt.oci.google import LOG_IN, ArtifactRepository

_FILE_SETTING = "GOOGLE_APPLICATION_CREDENTIALS"
_IMPERSONATION = (
    "grant iam.serviceAccounts.getAccessToken (roles/iam.serviceAccountTokenCreator; for workload identity"
    " roles/iam.workloadIdentityUser) on that service account to whoever deploys"
)
_ENABLE = "gcloud services enable artifactregistry.googleapis.com --project={}"
_DISABLED = re.compile(r"has not been used in project (\S+)")
# The requests of a user's login without a project are counted for gcloud's own, in which nobody else can enable an API.
# Source: https://cloud.google.com/docs/authentication/troubleshoot-adc#user-creds-client-based, and for the number
# https://github.com/googleapis/google-auth-library-python/blob/main/google/auth/_cloud_sdk.py, CLOUD_SDK_CLIENT_ID
_NO_PAYER = re.compile(r"requires a quota project|in project 764086051850\b")
_CHOOSE_PAYER = (
    "your login has no project that its requests are counted for: gcloud auth application-default set-quota-project {}"
)
_PAYING = "serviceusage.services.use"
_PAYS = (
    f"grant {_PAYING} (roles/serviceusage.serviceUsageConsumer) on the project that your requests are counted for to whoever"
    " deploys, or choose another: gcloud auth application-default set-quota-project"
)


@dataclass(frozen=True, slots=True)
class Permission:
    """What IAM asks for.

    Attributes:
        name: ``service.resource.verb``.
        role: The smallest of Google's own that has it.
    """

    name: str
    role: str

    def __str__(self) -> str:
        """Return both, as errors name them."""
        return f"{self.name} ({self.role})"


@contextmanager
def google_errors(tried: str, *, at: str) -> Iterator[None]:
    """Turn what google-auth raises in the body into errors of ours that say what to do.

    Args:
        tried: What was being done, as an infinitive.
        at: The file of the credentials, if one is named.

    Raises:
        UnauthorizedError: There are no credentials, or none that are good now.
        ForbiddenError: They may not be another service account.
        RegistryUnreachableError: No answer.
        SettingError: The named file is not there, or is something else.
    """
    from google.auth import exceptions

    try:
        yield
    except exceptions.RefreshError as error:
        raise _refused(tried, at, error) from error
    except exceptions.TransportError as error:
        remedy = "check the network and the proxy settings"
        raise RegistryUnreachableError(tried, at=at, reason=_said(error), remedy=remedy) from error
    except (exceptions.DefaultCredentialsError, ValueError) as error:
        raise _not_usable(tried, at, error) from error
    except exceptions.GoogleAuthError as error:
        raise UnauthorizedError(tried, at=at, reason=_said(error), remedy=LOG_IN) from error


def _refused(tried: str, at: str, error: Any) -> RegistryError:  # noqa: ANN401 - google-auth has no types
    reason = _said(error)
    if "getAccessToken" in reason or "impersonat" in reason.lower():
        return ForbiddenError(tried, at=at, reason=reason, remedy=_IMPERSONATION)
    if "iat and exp" in reason:
        return UnauthorizedError(tried, at=at, reason=reason, remedy="set this machine's clock")
    if "JWT" in reason or "account not found" in reason.lower():
        return UnauthorizedError(
            tried, at=at, reason=reason, remedy=f"that key is not valid any more: make another, or {LOG_IN}"
        )
    if "metadata" in reason.lower():
        remedy = "give this machine, or this pod's Kubernetes service account, a service account of Google's"
        return UnauthorizedError(tried, at=at, reason=reason, remedy=remedy)
    if getattr(error, "retryable", False):
        return RegistryUnreachableError(tried, at=at, reason=reason, remedy="try again later")
    return UnauthorizedError(
        tried, at=at, reason=reason, remedy=f"your Google login has ended or was revoked: {LOG_IN}"
    )


def _not_usable(tried: str, at: str, error: Exception) -> PrebuiltError:
    if at:
        return SettingError(
            _FILE_SETTING,
            at=at,
            reason=_said(error),
            remedy=f"name a credentials file of Google's, or unset it and {LOG_IN}",
        )
    return UnauthorizedError(tried, reason=_said(error), remedy=LOG_IN)


def _said(error: Exception) -> str:
    """Return the sentence: google-auth appends the whole answer to it."""
    return str(error.args[0]) if error.args else type(error).__name__


def _payer_remedy(reason: str, repository: ArtifactRepository) -> str:
    """Return what helps where the project is not fit that a request is counted for, which may be another than the repository's."""
    disabled = _DISABLED.search(reason)
    if _NO_PAYER.search(reason):
        return _CHOOSE_PAYER.format(repository.project)
    if disabled:
        return f"enable the API: {_ENABLE.format(disabled[1])}"
    return _PAYS if _PAYING in reason else ""


def explained(error: RegistryError, repository: ArtifactRepository, permission: Permission) -> PrebuiltError:
    """Return what the API of Artifact Registry answered, with what helps.

    Args:
        error: By the status of the answer.
        repository: Which one was asked for.
        permission: What the request needs.
    """
    remedy = error.remedy
    if error.status is None:  # nothing was answered, or there was no token to ask with: the error says so
        return error
    of_payer = _payer_remedy(error.reason, repository)
    if of_payer:
        remedy = of_payer
    elif isinstance(error, ForbiddenError):
        remedy = (
            f"grant {permission} on project {repository.project} to whoever deploys, or have an operator run"
            f" `{repository.creation}` and set {CREATE}=0; check {PROJECT}, too: projects that are not there are denied"
        )
    elif isinstance(error, UnauthorizedError):
        remedy = LOG_IN
    elif isinstance(error, RateLimitedError):
        remedy = f"wait a while, or set {CREATE}=0 where the repository is there"
    elif error.code == "INVALID_ARGUMENT":
        remedy = f"check the location and the project in {HOST} and {PROJECT}"
    elif error.code == "NOT_FOUND":
        remedy = f"check {PROJECT}: there is no project {repository.project}"
    elif not remedy:
        remedy = f"create it yourself: {repository.creation}"
    return type(error)(
        error.tried, at=error.at, reason=error.reason, remedy=remedy, status=error.status, code=error.code
    )
