"""Amazon's cloud on this machine: moto's APIs, Batch whose jobs are containers of a real Docker Engine, and a real registry as ECR.

Jobs are on a network that leads to the APIs and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prebuilt.testing.amazon_ecr import ACCOUNT, REGION
from prebuilt.testing.certificate import make_certificate
from prebuilt.testing.connect_proxy import ConnectProxy
from prebuilt.testing.engines.docker import Docker, docker_engine
from prebuilt.testing.engines.process import free_port, running
from prebuilt.testing.engines.registry import distribution_registry

COMPUTE_ENVIRONMENT = "nodes"
OTHER_REGION = "us-east-1"
"""Where ECR's registry is, too."""

_BUCKET, _ROLE, _QUEUE, _TABLE = "metaflow", "tasks", "steps", "foreach"
_LOG_GROUP = "/aws/batch/job"
_STATUSES = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Amazon:
    """A cloud that is up, with what an operator of Metaflow has made in it.

    Attributes:
        endpoint: Of all APIs, from this machine and from jobs.
        docker: The engine of the one node.
        proxy: Leads whoever asks for ECR's registry there, and everybody else where they want.
        certificate: The authority to trust there.
        log: What moto says.
    """

    endpoint: str
    docker: Docker
    proxy: ConnectProxy
    certificate: Path
    log: Path

    @property
    def environ(self) -> dict[str, str]:
        """What a user of this cloud has configured, for AWS, for Metaflow and for the registry ``ecr``."""
        role = f"arn:aws:iam::{ACCOUNT}:role/{_ROLE}"
        address = self.endpoint.removeprefix("http://").partition(":")[0]
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self.log.with_name("no-config")),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.log.with_name("no-credentials")),
            "AWS_ENDPOINT_URL": self.endpoint,
            "HTTPS_PROXY": self.proxy.url,
            "NO_PROXY": f"127.0.0.1,localhost,{address}",
            "METAFLOW_S3_ENDPOINT_URL": self.endpoint,
            "METAFLOW_DATASTORE_SYSROOT_S3": f"s3://{_BUCKET}/flows",
            "METAFLOW_DEFAULT_DATASTORE": "s3",
            "METAFLOW_BATCH_JOB_QUEUE": _QUEUE,
            "METAFLOW_ECS_S3_ACCESS_IAM_ROLE": role,
            "METAFLOW_SFN_IAM_ROLE": role,
            "METAFLOW_EVENTS_SFN_ACCESS_IAM_ROLE": role,
            "METAFLOW_SFN_DYNAMO_DB_TABLE": _TABLE,
            "METAFLOW_PREBUILT_IMAGE_REGISTRY": "ecr",
            "METAFLOW_PREBUILT_CA_BUNDLE": str(self.certificate),
        }

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3 has no types
        """Return a client that may do everything."""
        import boto3

        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",  # noqa: S106 - of nobody
        )

    def jobs(self) -> list[Mapping[str, Any]]:
        """Return every job so far, as Batch describes it, the oldest first."""
        batch = self.client("batch")
        ids = [
            job["jobId"]
            for status in _STATUSES
            for job in batch.list_jobs(jobQueue=_QUEUE, jobStatus=status)["jobSummaryList"]
        ]
        jobs: list[Mapping[str, Any]] = batch.describe_jobs(jobs=ids)["jobs"] if ids else []
        return sorted(jobs, key=lambda job: job["createdAt"])

    def image_of(self, job_definition: str) -> str:
        """Return the image that the job definition of an ARN names."""
        found = self.client("batch").describe_job_definitions(jobDefinitions=[job_definition])
        return str(found["jobDefinitions"][0]["containerProperties"]["image"])

    def output_of(self, job: Mapping[str, Any]) -> str:
        """Return what a job that has ended wrote to its container's output; nothing if it had no container."""
        stream = job["container"].get("logStreamName")
        if stream is None:
            return ""
        found = self.client("logs").get_log_events(logGroupName=_LOG_GROUP, logStreamName=stream, startFromHead=True)
        return "\n".join(event["message"] for event in found["events"])


@contextlib.contextmanager
def amazon_cloud(folder: Path) -> Iterator[Amazon]:
    """Give a cloud of which everything is in `folder`, for the time of the body. Needs root.

    Raises:
        EngineError: Docker or the registry is not installed, or something did not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    certificate = folder / "amazon.pem"
    make_certificate(certificate, *(f"*.dkr.ecr.{region}.amazonaws.com" for region in (REGION, OTHER_REGION)))
    with (
        ConnectProxy("", hosts="*.dkr.ecr.*.amazonaws.com").serving() as proxy,
        distribution_registry(folder / "registry") as registry,
        docker_engine("current", buildx=True, environ=reaching(proxy, certificate)) as docker,
        _closed_network(docker) as (network, address),
    ):
        port, door = free_port(), free_port()
        proxy.server = f"127.0.0.1:{door}"
        amazon = Amazon(
            endpoint=f"http://{address}:{port}",
            docker=docker,
            proxy=proxy,
            certificate=certificate,
            log=folder / "amazon.log",
        )
        options = {
            "address": address,
            "port": port,
            "network": network,
            "registry": registry,
            "certificate": certificate,
            "door": door,
        }
        command = [sys.executable, "-m", "prebuilt.testing.engines.aws_server"]
        command += [f"--{name}={value}" for name, value in options.items()]
        environ = {**_without_settings(), **docker.environ}
        with running(command, log=amazon.log, ready=lambda: _answers(amazon.endpoint), environ=environ):
            _prepare(amazon)
            yield amazon


def reaching(proxy: ConnectProxy, certificate: Path) -> dict[str, str]:
    """Return what a daemon needs in its environment to reach ECR's registry by its name."""
    return {
        "HTTPS_PROXY": proxy.url,
        "NO_PROXY": "127.0.0.1,localhost",
        "SSL_CERT_FILE": str(certificate),
        "SSL_CERT_DIR": str(certificate.parent / "none"),
    }


@contextlib.contextmanager
def _closed_network(docker: Docker) -> Iterator[tuple[str, str]]:
    """Give a network that leads to this machine and nowhere else: its name, and our address on it."""
    name = f"jobs-{secrets.token_hex(3)}"
    docker.ask("network", "create", "--internal", name)
    try:
        yield name, docker.ask("network", "inspect", "--format={{(index .IPAM.Config 0).Gateway}}", name)
    finally:
        for container in docker.ask("ps", "--all", "--quiet", f"--filter=network={name}").split():
            docker.ask("rm", "--force", container)
        docker.ask("network", "rm", name)


def _without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "METAFLOW_", "MOTO_"))}


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=2) as response:  # noqa: S310 - http
            return bool(response.status == 200)  # noqa: PLR2004 - HTTP
    except (urllib.error.URLError, OSError):
        return False


def _prepare(amazon: Amazon) -> None:
    """Make what an operator makes once: a bucket, a role, a queue, a table."""
    amazon.client("s3").create_bucket(Bucket=_BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    iam = amazon.client("iam")
    role = iam.create_role(RoleName=_ROLE, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    iam.create_instance_profile(InstanceProfileName=_ROLE)
    iam.add_role_to_instance_profile(InstanceProfileName=_ROLE, RoleName=_ROLE)
    _make_queue(amazon, role)
    amazon.client("dynamodb").create_table(
        TableName=_TABLE,
        KeySchema=[{"AttributeName": "pathspec", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pathspec", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )


def _make_queue(amazon: Amazon, role: str) -> None:
    ec2, batch = amazon.client("ec2"), amazon.client("batch")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/24")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/25", AvailabilityZone=f"{REGION}a")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="jobs", Description="jobs", VpcId=vpc)["GroupId"]
    environment = batch.create_compute_environment(
        computeEnvironmentName=COMPUTE_ENVIRONMENT,
        type="MANAGED",
        state="ENABLED",
        serviceRole=role,
        computeResources={
            "type": "EC2",
            "minvCpus": 0,
            "maxvCpus": 8,
            "desiredvCpus": 0,
            "instanceTypes": ["m5.large"],
            "subnets": [subnet],
            "securityGroupIds": [group],
            "instanceRole": _ROLE,
        },
    )["computeEnvironmentArn"]
    order = [{"order": 1, "computeEnvironment": environment}]
    batch.create_job_queue(jobQueueName=_QUEUE, state="ENABLED", priority=1, computeEnvironmentOrder=order)
