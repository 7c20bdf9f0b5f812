"""Stacks of CloudFormation in moto, with what moto cannot make: projects of CodeBuild and policies of buckets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from moto.iam.models import IAMBackend, ManagedPolicy, Role
    from moto.logs.models import LogGroup

_NAME = "prebuilt"


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A stack that is there.

    Attributes:
        outputs: By name.
        resources: Physical names by logical ones.
    """

    outputs: Mapping[str, str]
    resources: Mapping[str, str]


def deploy_stack(client: Any, template: str, **parameters: str) -> Stack:  # noqa: ANN401 - boto3 has no types
    """Make a stack of `template` as ``aws cloudformation deploy --capabilities CAPABILITY_IAM`` does, with a client of CloudFormation.

    moto has to be in this process.
    """
    given = [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()]
    with _all_is_made():
        client.create_stack(StackName=_NAME, TemplateBody=template, Parameters=given, Capabilities=["CAPABILITY_IAM"])
    (found,) = client.describe_stacks(StackName=_NAME)["Stacks"]
    made = client.describe_stack_resources(StackName=_NAME)["StackResources"]
    return Stack(
        outputs={each["OutputKey"]: each["OutputValue"] for each in found["Outputs"]},
        resources={each["LogicalResourceId"]: each["PhysicalResourceId"] for each in made},
    )


@contextlib.contextmanager
def _all_is_made() -> Iterator[None]:
    """Have moto make projects and policies of buckets; have what it makes of groups and roles be as Amazon's is."""
    from moto.cloudformation import parsing
    from moto.iam.models import IAMBackend, Role
    from moto.logs.models import LogGroup

    own = {"AWS::CodeBuild::Project": _Project, "AWS::S3::BucketPolicy": _BucketPolicy}
    known = {**parsing.get_model_map(), **own}
    attribute, make_policy = LogGroup.get_cfn_attribute, IAMBackend.create_policy

    def get_cfn_attribute(group: LogGroup, name: str) -> str:
        # Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-logs-loggroup.html
        return f"{attribute(group, name)}:*" if name == "Arn" else str(attribute(group, name))

    def put_policy(role: Role, name: str, document: Any) -> None:  # noqa: ANN401 - JSON, as text or not
        # moto keeps what AWS::NoValue leaves in lists, and cannot read what is not text.
        role.policies[name] = document if isinstance(document, str) else json.dumps(_without_nothing(document))

    def create_policy(backend: IAMBackend, *, policy_document: str, **fields: Any) -> ManagedPolicy:  # noqa: ANN401 - moto's
        whole = json.dumps(_without_nothing(json.loads(policy_document)))
        return make_policy(backend, policy_document=whole, **fields)

    with (
        mock.patch.object(parsing, "get_model_map", return_value=known),
        mock.patch.object(parsing, "get_name_type_map", return_value={"AWS::CodeBuild::Project": "Name"}),
        mock.patch.object(LogGroup, "get_cfn_attribute", get_cfn_attribute),
        mock.patch.object(Role, "put_policy", put_policy),
        mock.patch.object(IAMBackend, "create_policy", create_policy),
    ):
        yield


@dataclass(kw_only=True)
class _Made:
    """A resource, as moto's CloudFormation asks for it, and notes on it what it likes."""

    physical_resource_id: str
    attributes: Mapping[str, str]

    def get_cfn_attribute(self, name: str) -> str:
        return self.attributes[name]

    def is_created(self) -> bool:
        return True


class _Project:
    """Makes a project by the call that its properties stand for, whose names and types botocore knows."""

    @staticmethod
    def create_from_cloudformation_json(name: str, resource: Any, account: str, region: str, **_: object) -> _Made:  # noqa: ANN401 - JSON
        from moto.codebuild.models import codebuild_backends

        asked = {"name": name, **_in_camel_case(resource["Properties"])}
        _check_call("codebuild", "CreateProject", asked)
        made = codebuild_backends[account][region].create_project(
            project_name=name,
            description=asked["description"],
            project_source=asked["source"],
            artifacts=asked["artifacts"],
            environment=asked["environment"],
            service_role=asked["serviceRole"],
            tags=None,
            cache=None,
            timeout=asked["timeoutInMinutes"],
            queued_timeout=asked["queuedTimeoutInMinutes"],
            source_version=None,
            logs_config=asked["logsConfig"],
            vpc_config=None,
        )
        return _Made(physical_resource_id=name, attributes={"Arn": made["arn"]})


class _BucketPolicy:
    """Takes the policy of a bucket, and does not apply it: moto speaks plain HTTP, which such policies refuse."""

    @staticmethod
    def create_from_cloudformation_json(name: str, resource: Any, *_: str, **__: object) -> _Made:  # noqa: ANN401 - JSON
        asked = resource["Properties"]
        _check_call("s3", "PutBucketPolicy", {"Bucket": asked["Bucket"], "Policy": json.dumps(asked["PolicyDocument"])})
        return _Made(physical_resource_id=name, attributes={})


def _check_call(service: str, operation: str, asked: Mapping[str, Any]) -> None:
    """Raise where a call of AWS has no such parameters."""
    import botocore.session
    from botocore.validate import validate_parameters

    model = botocore.session.get_session().get_service_model(service).operation_model(operation)
    validate_parameters(asked, model.input_shape)


def _in_camel_case(properties: Any) -> Any:  # noqa: ANN401 - JSON
    """Return what CloudFormation writes ``BuildSpec`` as the API does: ``buildspec``, and all else with a small first letter."""
    if isinstance(properties, dict):
        return {
            "buildspec" if name == "BuildSpec" else name[0].lower() + name[1:]: _in_camel_case(value)
            for name, value in properties.items()
        }
    return [_in_camel_case(each) for each in properties] if isinstance(properties, list) else properties


def _without_nothing(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {name: _without_nothing(each) for name, each in value.items() if each is not None}
    return [_without_nothing(each) for each in value if each is not None] if isinstance(value, list) else value
