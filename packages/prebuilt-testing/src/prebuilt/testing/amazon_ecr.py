"""Amazon ECR in this process: moto's API, and a registry behind the real host names that takes the passwords that the API gave."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fnmatch
import functools
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from unittest import mock

from prebuilt.oci.amazon import ecr_region
from prebuilt.testing.amazon_permissions import OPERATOR, Permissions, permissions_of_moto
from prebuilt.testing.certificate import make_certificate
from prebuilt.testing.connect_proxy import ConnectProxy
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth

ACCOUNT, REGION = "123456789012", "eu-west-1"
HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"


@dataclass(kw_only=True)
class Passwords(RegistryAuth):
    """The passwords that the API handed out; 403 is the answer to one that has ended, as it is Amazon's.

    Attributes:
        good: Those that open the registry.
        lifetime: How long the API says that a password is good for. Nothing ends by itself.
        regions: Where each was handed out: it opens the registries there, of every account.
        owners: The access key of whoever asked for each.
    """

    good: set[str] = field(default_factory=set)
    lifetime: timedelta = timedelta(hours=12)
    regions: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)

    def hand_out(self, region: str = REGION, owner: str = OPERATOR) -> tuple[str, datetime]:
        """Return a new password for a region, and when it ends; `owner` is the access key of whoever asks."""
        password = secrets.token_hex(32)
        self.good.add(password)
        self.regions[password] = region
        self.owners[password] = owner
        return password, datetime.now(timezone.utc) + self.lifetime

    def expire_all(self) -> None:
        """End every password that was handed out."""
        self.good.clear()

    def allows(self, authorization: str | None, repository: str, action: str) -> bool:
        """Return whether a password that is good was shown."""
        del repository, action
        return self._shown(authorization) in self.good

    def opens(self, host: str, authorization: str | None) -> bool:
        """Return whether a password that is good for the region of `host` was shown."""
        password = self._shown(authorization)
        return password in self.good and self.regions[password] == ecr_region(host)

    def owner(self, authorization: str | None) -> str | None:
        """Return the access key of whoever asked for the password that was shown; None where none of ours was."""
        return self.owners.get(self._shown(authorization))

    @staticmethod
    def _shown(authorization: str | None) -> str:
        kind, _, value = (authorization or "").partition(" ")
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return ""
        return password if (kind, user) == ("Basic", "AWS") else ""


@dataclass(frozen=True, kw_only=True)
class AmazonECR:
    """The API and the registry.

    Attributes:
        api_url: Of moto's server.
        registry: What is behind every host name.
        passwords: What opens it.
        permissions: What users and roles have asked for.
        proxy: What leads to it.
        environ: What a process needs in its environment to find both.
    """

    api_url: str
    registry: InMemoryRegistry
    passwords: Passwords
    permissions: Permissions
    proxy: ConnectProxy
    environ: Mapping[str, str]

    def client(self, service: str = "ecr", **options: Any) -> Any:  # noqa: ANN401 - boto3 has no types
        """Return a client that may do everything."""
        import boto3

        keys = {"aws_access_key_id": OPERATOR, "aws_secret_access_key": OPERATOR, **options}
        return boto3.client(service, region_name=REGION, endpoint_url=self.api_url, **keys)

    def repository(self, name: str) -> Mapping[str, Any] | None:
        """Return what the API says of a repository; None if it is not there."""
        client = self.client()
        try:
            found: Mapping[str, Any] = client.describe_repositories(repositoryNames=[name])["repositories"][0]
        except client.exceptions.RepositoryNotFoundException:
            return None
        return found

    def user(self, *actions: str) -> dict[str, str]:
        """Make a user who may do `actions` and nothing else; return its keys as environment variables.

        From then on the API looks at permissions.
        """
        iam = self.client("iam")
        statement = [{"Effect": "Allow", "Action": sorted(actions or ("sts:GetCallerIdentity",)), "Resource": "*"}]
        iam.create_user(UserName="deployer")
        policy = json.dumps({"Version": "2012-10-17", "Statement": statement})
        iam.put_user_policy(UserName="deployer", PolicyName="deploy", PolicyDocument=policy)
        key = iam.create_access_key(UserName="deployer")["AccessKey"]
        self.permissions.look(is_wanted=True)
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def reset(self) -> None:
        """Forget all repositories, users, images and passwords, and look at no permissions."""
        from moto.moto_api._internal.models import moto_api_backend

        self.permissions.look(is_wanted=False)
        moto_api_backend.reset()
        self.passwords.expire_all()
        self.passwords.lifetime = timedelta(hours=12)
        self.registry.faults.clear()
        self.registry.forget_requests()
        self.registry.store.clear()
        self.proxy.asked.clear()


@contextlib.contextmanager
def amazon_ecr(folder: Path) -> Iterator[AmazonECR]:
    """Give Amazon ECR for the time of the body; `folder` takes its certificate.

    What moto hands out here is what the registry takes.
    """
    from moto.server import ThreadedMotoServer

    passwords = Passwords(scheme="basic", refuses_with=403)
    certificate = folder / "amazon.pem"
    tls = make_certificate(certificate, f"*.dkr.ecr.{REGION}.amazonaws.com", "*.dkr.ecr-fips.us-east-1.amazonaws.com")
    api = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    with _models_read_once(), ecr_of_moto(passwords) as permissions, _running(api) as api_url:
        registry = InMemoryRegistry(auth=passwords, tls=tls, has_repository=has_repository, is_immutable=_is_immutable)
        with registry, ConnectProxy(registry.host).serving() as proxy:
            environ = {
                "AWS_ENDPOINT_URL": api_url,
                "AWS_ACCESS_KEY_ID": OPERATOR,
                "AWS_SECRET_ACCESS_KEY": OPERATOR,
                "AWS_DEFAULT_REGION": REGION,
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_CONFIG_FILE": str(folder / "no-config"),
                "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
                "HTTPS_PROXY": proxy.url,
                "NO_PROXY": "127.0.0.1",
                "METAFLOW_PREBUILT_CA_BUNDLE": str(certificate),
            }
            amazon = AmazonECR(
                api_url=api_url,
                registry=registry,
                passwords=passwords,
                permissions=permissions,
                proxy=proxy,
                environ=environ,
            )
            amazon.reset()  # what moto knows is the process's
            yield amazon


@contextlib.contextmanager
def ecr_of_moto(passwords: Passwords) -> Iterator[Permissions]:
    """Have moto, in this process, hand out `passwords`, and look at permissions as IAM does; give what is asked for.

    moto has no registry, and its passwords are all the same and ended in 2015.
    """
    from moto.core.responses import ActionResult
    from moto.ecr.responses import ECRResponse

    def get_authorization_token(response: ECRResponse) -> ActionResult:
        signed = response.headers.get("Authorization", "")
        owner = signed.partition("Credential=")[2].partition("/")[0]
        password, ends_at = passwords.hand_out(response.region, owner)
        token = base64.b64encode(f"AWS:{password}".encode()).decode()
        endpoint = f"https://{response.current_account}.dkr.ecr.{response.region}.amazonaws.com"
        data = {"authorizationToken": token, "expiresAt": ends_at, "proxyEndpoint": endpoint}
        return ActionResult({"authorizationData": [data]})

    with (
        mock.patch.object(ECRResponse, "get_authorization_token", get_authorization_token),
        permissions_of_moto() as permissions,
    ):
        yield permissions


@contextlib.contextmanager
def _models_read_once() -> Iterator[None]:
    """Have all sessions of this process share what they read of AWS's APIs: it is the half of a short test."""
    import botocore.session

    shared = functools.cache(botocore.session.create_loader)
    with mock.patch.object(botocore.session, "create_loader", shared):
        yield


@contextlib.contextmanager
def _running(api: Any) -> Iterator[str]:  # noqa: ANN401 - moto has no types
    """Give the address of moto's server."""
    api.start()
    try:
        host, port = api.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        api.stop()
        api._server.server_close()  # noqa: SLF001 - moto leaves its socket open


def _repositories(region: str = REGION) -> Mapping[str, Any]:
    from moto.ecr.models import ecr_backends

    found: Mapping[str, Any] = ecr_backends[ACCOUNT][region].repositories
    return found


def has_repository(name: str, host: str = HOST) -> bool:
    """Return whether moto, in this process, has the repository of `host`; other accounts have what ours has in its region."""
    region = ecr_region(host) if host.startswith(ACCOUNT) else None
    return name in _repositories(region or REGION)


def _is_immutable(name: str, tag: str) -> bool:
    """Return whether the repository's settings keep `tag` where it is."""
    repository = _repositories()[name]
    filters = repository.image_tag_mutability_exclusion_filters or ()
    is_excluded = any(fnmatch.fnmatchcase(tag, each["filter"]) for each in filters)
    return bool(repository.is_tag_immutable()) is not is_excluded
