"""Clients of the services that a build uses: S3, CodeBuild, CloudWatch Logs. boto3 is imported when the first is asked for."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from prebuilt.codebuild._version import __version__
from prebuilt.codebuild.config import REGION
from prebuilt.codebuild.failure import aws_errors
from prebuilt.core.errors import SettingError

_ATTEMPTS = 6  # throttling among them: boto3 waits up to 20 s between them
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 10, 60
# A look at a log that does not come off is followed by another one in a second, and must not keep us from looking at the build.
_LOOK_ATTEMPTS, _LOOK_CONNECT_TIMEOUT_S, _LOOK_READ_TIMEOUT_S = 1, 3, 5
_CONNECTIONS = 16  # one for each of the builds that go on side by side, and some more


@dataclass(frozen=True, slots=True, kw_only=True)
class AmazonClients:
    """Clients for one region, which any thread may use."""

    region: str
    s3: Any
    codebuild: Any
    logs: Any


class Amazon:
    """Makes clients by boto3's credential chain, once for each region. Concurrent calls are fine."""

    def __init__(self) -> None:
        """Open nothing."""
        self._lock = threading.Lock()
        self._session: Any = None
        self._clients: dict[str, AmazonClients] = {}

    def clients(self, region: str | None) -> AmazonClients:
        """Return the clients for `region`, or boto3's region for None.

        Raises:
            SettingError: There is no region, or AWS's configuration is malformed.
        """
        with self._lock, aws_errors("read the AWS configuration", at="", action=""):
            if self._session is None:
                import boto3

                self._session = boto3.session.Session()
            name = region or self._session.region_name
            if not name:
                raise SettingError(
                    REGION,
                    reason="it is not set, and boto3 is configured with no region",
                    remedy=f"set {REGION} or AWS_DEFAULT_REGION",
                )
            if name not in self._clients:
                self._clients[name] = self._made(str(name))
            return self._clients[name]

    def _made(self, region: str) -> AmazonClients:
        from botocore.config import Config

        patient = Config(
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            max_pool_connections=_CONNECTIONS,
            user_agent_extra=f"metaflow-prebuilt/{__version__}",
        )
        brief = patient.merge(
            Config(
                retries={"mode": "standard", "total_max_attempts": _LOOK_ATTEMPTS},
                connect_timeout=_LOOK_CONNECT_TIMEOUT_S,
                read_timeout=_LOOK_READ_TIMEOUT_S,
            )
        )
        of_services = {"s3": patient, "codebuild": patient, "logs": brief}
        clients = {
            service: self._session.client(service, region_name=region, config=config)
            for service, config in of_services.items()
        }
        return AmazonClients(region=region, **clients)
