"""Settings of the registry ``ecr``, and the host names that they make."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import botocore
import pytest

from prebuilt.core.errors import SettingError
from prebuilt.core.settings import Settings
from prebuilt.ecr.api import ECRApi
from prebuilt.ecr.config import ECRConfig
from prebuilt.ecr.hosts import registry_host
from prebuilt.oci.amazon import is_ecr

ACCOUNT = "123456789012"
# What the SDK knows of every partition of AWS.
PARTITIONS = json.loads((Path(botocore.__file__).parent / "data" / "partitions.json").read_text())["partitions"]
REGIONS = [
    (region, partition["outputs"]["dnsSuffix"])
    for partition in PARTITIONS
    for region in partition["regions"]
    if not region.endswith("-global")
]


def config(**values: str) -> ECRConfig:
    """Return what these settings, without ``METAFLOW_PREBUILT_``, make."""
    return ECRConfig.from_settings(Settings({f"METAFLOW_PREBUILT_{name}": value for name, value in values.items()}, {}))


@pytest.mark.parametrize(("region", "suffix"), REGIONS)
def test_hosts_are_right_in_every_region(region: str, suffix: str) -> None:
    """A registry is named with the suffix of its region's partition, as the SDK knows it, and recognised as ECR's."""
    host = registry_host(ACCOUNT, config(ECR_REGION=region).region or "")
    assert host == f"{ACCOUNT}.dkr.ecr.{region}.{suffix}"
    assert is_ecr(host)


@pytest.mark.parametrize(
    ("region", "fips", "dualstack", "host"),
    [
        ("us-east-1", True, False, "dkr.ecr-fips.us-east-1.amazonaws.com"),
        ("us-gov-west-1", True, False, "dkr.ecr-fips.us-gov-west-1.amazonaws.com"),
        ("eu-west-1", False, True, "dkr-ecr.eu-west-1.on.aws"),
        ("us-east-1", True, True, "dkr-ecr-fips.us-east-1.on.aws"),
        ("cn-north-1", False, True, "dkr-ecr.cn-north-1.on.amazonwebservices.com.cn"),
    ],
)
def test_fips_and_dualstack_have_names_of_their_own(region: str, *, fips: bool, dualstack: bool, host: str) -> None:
    """The documented forms."""
    assert registry_host(ACCOUNT, region, fips=fips, dualstack=dualstack) == f"{ACCOUNT}.{host}"
    assert is_ecr(f"{ACCOUNT}.{host}")


def test_dualstack_where_there_is_none_is_refused() -> None:
    """No name is made up."""
    with pytest.raises(SettingError, match="us-iso-east-1"):
        registry_host(ACCOUNT, "us-iso-east-1", dualstack=True)


def test_defaults() -> None:
    """Nothing set: the published namespace, a repository beside it for documents, and ECR's own defaults."""
    made = config()
    assert (made.account, made.region) == (None, None)
    assert (made.repository, made.documents_repository) == ("metaflow-prebuilt", "metaflow-prebuilt-documents")
    assert made.creates
    assert (made.fips, made.dualstack) == (None, None)
    assert {made.immutable_tags, made.scan_on_push} == {False}
    assert (made.encryption, made.kms_key) == ("AES256", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ECR_ACCOUNT", "12345678901"),
        ("ECR_ACCOUNT", "1234-5678-9012"),
        ("ECR_ACCOUNT", "arn:aws:iam::123456789012:root"),
        ("ECR_REGION", "eu-west"),
        ("ECR_REGION", "EU-WEST-1"),
        ("ECR_REGION", "eu-west-1a"),
        ("ECR_REGION", "https://eu-west-1"),
        ("IMAGE_NAMESPACE", "Flows"),
        ("IMAGE_NAMESPACE", "a"),
        ("IMAGE_NAMESPACE", "team/"),
        ("IMAGE_NAMESPACE", "team/flows:latest"),
        ("ECR_DOCUMENTS_REPOSITORY", "docs!"),
        ("ECR_ENCRYPTION", "kms"),
        ("ECR_KMS_KEY", "alias/flows"),
        ("ECR_CREATE_REPOSITORY", "maybe"),
    ],
)
def test_malformed_settings_are_named(name: str, value: str) -> None:
    """The error names the setting, and shows what is wrong with its value."""
    with pytest.raises(SettingError, match=re.escape(f"METAFLOW_PREBUILT_{name}:")):
        config(**{name: value})


def test_documents_cannot_share_a_repository_whose_tags_stay() -> None:
    """Locks and catalogues move their tags."""
    with pytest.raises(SettingError, match="METAFLOW_PREBUILT_ECR_DOCUMENTS_REPOSITORY"):
        config(IMAGE_NAMESPACE="flows", ECR_DOCUMENTS_REPOSITORY="flows", ECR_IMMUTABLE_TAGS="1")
    assert config(IMAGE_NAMESPACE="flows", ECR_DOCUMENTS_REPOSITORY="flows").documents_repository == "flows"


@pytest.mark.parametrize("variable", ["FIPS", "DUALSTACK"])
def test_switches_of_aws_are_respected(variable: str) -> None:
    """AWS's own variables decide where ours are not set."""
    aws, ours = f"AWS_USE_{variable}_ENDPOINT", f"METAFLOW_PREBUILT_ECR_{variable}"
    for environ, expected in (
        ({aws: "true"}, True),
        ({aws: "true", ours: "0"}, False),
        ({aws: "true", ours: ""}, False),
        ({aws: "false"}, False),
        ({ours: "1"}, True),
    ):
        made = ECRConfig.from_settings(Settings(environ, {}))
        assert getattr(made, variable.lower()) is expected


@pytest.mark.parametrize(("variable", "part"), [("FIPS", "ecr-fips"), ("DUALSTACK", "api.aws")])
def test_our_switch_counts_for_the_api_as_well(monkeypatch: pytest.MonkeyPatch, variable: str, part: str) -> None:
    """Registry and API are asked at endpoints of one kind: what we are told counts before what boto3 finds for itself."""
    monkeypatch.setenv(f"AWS_USE_{variable}_ENDPOINT", "true")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for ours, expected in (("0", False), ("1", True), (None, True)):
        environ = {
            f"AWS_USE_{variable}_ENDPOINT": "true",
            **({f"METAFLOW_PREBUILT_ECR_{variable}": ours} if ours else {}),
        }
        api = ECRApi(replace(ECRConfig.from_settings(Settings(environ, {})), region="us-east-1"))
        assert (part in api._open_client().meta.endpoint_url) is expected


@pytest.mark.parametrize("region", ["eu-west-1", "cn-north-1"])
def test_fips_where_there_is_none_is_refused(region: str) -> None:
    """A region without such an endpoint is named, with the setting: its name would lead nowhere."""
    with pytest.raises(SettingError, match=f"METAFLOW_PREBUILT_ECR_FIPS: .*no endpoint.*{region}"):
        ECRApi(config(ECR_FIPS="1", ECR_REGION=region)).authorization()


@pytest.mark.parametrize("region", ["us-gov-west-1", "us-nowhere-7"])
def test_fips_is_believed_where_nothing_else_is_known(region: str) -> None:
    """A region that has it, and one that botocore has yet to hear of, are asked."""
    assert "ecr-fips" in ECRApi(config(ECR_FIPS="1", ECR_REGION=region))._open_client().meta.endpoint_url
