"""Permissions in moto, looked at as IAM does: by the action, by what it is done to, and for everybody but the operator."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

if TYPE_CHECKING:
    from moto.core.authorization import ActionAuthenticatorMixin
    from moto.iam.access_control import IAMRequest, IAMRequestBase

OPERATOR = "testing"
"""Access key of the one who may do everything."""

Document = Mapping[str, Any]


class AskedPermission(NamedTuple):
    """An action that somebody wanted to do, and what to."""

    who: str
    action: str
    resource: str


@dataclass(kw_only=True)
class Permissions:
    """What was asked for since the start, or since permissions were looked at first.

    Attributes:
        asked: Of everybody but the operator, in order, whether it was allowed or not.
    """

    asked: list[AskedPermission] = field(default_factory=list)

    def actions(self, who: str) -> set[str]:
        """Return the actions that were asked for by those whose ARN has `who` in it."""
        return {each.action for each in self.asked if who in each.who}

    def look(self, *, is_wanted: bool) -> None:
        """Look at permissions from now on, or at none."""
        from moto import settings
        from moto.core.authorization import ActionAuthenticatorMixin

        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0 if is_wanted else float("inf")
        ActionAuthenticatorMixin.request_count = 0
        self.asked.clear()


@contextlib.contextmanager
def permissions_of_moto() -> Iterator[Permissions]:
    """Have moto, in this process, judge by resources, deny in JSON what was asked in JSON, and let the operator do everything.

    By itself it knows resources of S3 alone: any other policy that names what it allows would allow nothing.
    """
    from moto.core.authorization import ActionAuthenticatorMixin
    from moto.core.exceptions import JsonRESTError
    from moto.iam.access_control import IAMRequest, IAMRequestBase

    permissions = Permissions()
    authorize_anybody = ActionAuthenticatorMixin._authenticate_and_authorize_action  # noqa: SLF001 - moto has no other names
    check_one = IAMRequestBase.check_action_permitted

    def authorize(response: ActionAuthenticatorMixin, kind: type, resource: str = "*") -> None:
        if f"Credential={OPERATOR}/" not in response.headers.get("Authorization", ""):
            authorize_anybody(response, kind, resource)

    def check(request: IAMRequestBase, resource: str) -> None:
        for each in _resources(request) or [resource]:
            permissions.asked.append(AskedPermission(request._access_key.arn, request._action, each))  # noqa: SLF001 - the same
            check_one(request, each)

    def deny(request: IAMRequest) -> None:
        user, action = request._access_key.arn, request._action  # noqa: SLF001 - the same
        raise JsonRESTError("AccessDeniedException", f"User: {user} is not authorized to perform: {action}")

    with (
        mock.patch.object(ActionAuthenticatorMixin, "_authenticate_and_authorize_action", authorize),
        mock.patch.object(IAMRequestBase, "check_action_permitted", check),
        mock.patch.object(IAMRequest, "_raise_access_denied", deny),
    ):
        yield permissions


def is_allowed(policy: Document, action: str, resource: str, **values: str) -> bool:
    """Return whether a policy allows `action` on `resource`; `values` are those that its conditions ask about."""
    from moto.iam.access_control import IAMPolicy, PermissionResult

    names = {name.replace("_", ":"): value for name, value in values.items()}
    found = IAMPolicy(json.dumps(policy)).is_action_permitted(action, resource, None, names)
    return bool(found is PermissionResult.PERMITTED)


def take_role(client: Callable[[str], Any], arn: str, *, service: str, source: str) -> dict[str, str]:
    """Return the keys of a role as environment variables, as a service of Amazon takes it for the resource `source`.

    Args:
        client: Makes clients of the operator's by the name of a service.
        arn: Of the role.
        service: ``codebuild.amazonaws.com``.
        source: ARN.

    Raises:
        PermissionError: The role's trust policy does not let it.
    """
    role = client("iam").get_role(RoleName=arn.rpartition("/")[2])["Role"]
    trust = role["AssumeRolePolicyDocument"]
    is_trusted = any(each["Principal"] == {"Service": service} for each in trust["Statement"])
    if not (is_trusted and is_allowed(trust, "sts:AssumeRole", arn, aws_SourceArn=source)):
        raise PermissionError(f"{service} is not authorized to perform: sts:AssumeRole on {arn} for {source}")
    keys = client("sts").assume_role(RoleArn=arn, RoleSessionName="service")["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["SessionToken"],
    }


def _resources(request: IAMRequestBase) -> list[str]:
    """Return the resources that a request is about; none where its service is not known here, or it names none."""
    name = _NAMES.get(request._service)  # noqa: SLF001 - moto has no other names
    if name is None:
        return []
    place = f"arn:aws:{request._service}:{request._region}:{request.account_id}:"  # noqa: SLF001 - the same
    return [
        each if each.startswith("arn:") else place + each
        for each in name(json.loads(request._body or b"{}"))  # noqa: SLF001 - the same
    ]


# Source: the column of resource types in https://docs.aws.amazon.com/service-authorization/latest/reference/


def _projects(asked: Document) -> list[str]:
    names = asked.get("ids") or [asked[key] for key in ("projectName", "id") if key in asked]
    return [name if name.startswith("arn:") else f"project/{name.partition(':')[0]}" for name in names]


def _log_streams(asked: Document) -> list[str]:
    stream = f":log-stream:{asked['logStreamName']}" if "logStreamName" in asked else ":*"
    return [f"log-group:{asked['logGroupName']}{stream}"] if "logGroupName" in asked else []


def _repositories(asked: Document) -> list[str]:
    names = asked.get("repositoryNames") or [asked[key] for key in ("repositoryName",) if key in asked]
    return [f"repository/{name}" for name in names]


def _secrets(asked: Document) -> list[str]:
    name = asked["SecretId"]
    return [name if name.startswith("arn:") else f"secret:{name}-a1B2c3"]


_NAMES: Mapping[str, Callable[[Document], list[str]]] = {
    "codebuild": _projects,
    "ecr": _repositories,
    "logs": _log_streams,
    "secretsmanager": _secrets,
}
