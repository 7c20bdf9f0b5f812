"""Names of ECR's registries, in every partition of AWS."""

from __future__ import annotations

from dataclasses import dataclass

from prebuilt.core.errors import SettingError
from prebuilt.ecr.config import REGION


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A part of AWS with names of its own.

    Attributes:
        prefix: What the codes of its regions begin with.
        suffix: What host names end with.
        dualstack_suffix: The same for hosts that speak IPv6 as well; None where none are documented.
    """

    prefix: str
    suffix: str
    dualstack_suffix: str | None = None


_COMMERCIAL = Partition(prefix="", suffix="amazonaws.com", dualstack_suffix="on.aws")
# Written down, so that naming an image needs no SDK; a test compares them with botocore's.
# Source: partitions.json of botocore; for dual-stack names https://docs.aws.amazon.com/general/latest/gr/ecr.html
_PARTITIONS = (
    Partition(prefix="cn-", suffix="amazonaws.com.cn", dualstack_suffix="on.amazonwebservices.com.cn"),
    Partition(prefix="us-gov-", suffix="amazonaws.com", dualstack_suffix="on.aws"),
    Partition(prefix="us-iso-", suffix="c2s.ic.gov"),
    Partition(prefix="us-isob-", suffix="sc2s.sgov.gov"),
    Partition(prefix="us-isof-", suffix="csp.hci.ic.gov"),
    Partition(prefix="eu-isoe-", suffix="cloud.adc-e.uk"),
    Partition(prefix="eusc-", suffix="amazonaws.eu", dualstack_suffix="on.amazonwebservices.eu"),
)


def registry_host(account: str, region: str, *, fips: bool = False, dualstack: bool = False) -> str:
    """Return the host name of an account's registry: ``123456789012.dkr.ecr.eu-west-1.amazonaws.com``.

    Raises:
        SettingError: Dual-stack names are asked for where none are known.

    Source: https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-requests.html
    """
    partition = next((each for each in _PARTITIONS if region.startswith(each.prefix)), _COMMERCIAL)
    service = "ecr-fips" if fips else "ecr"
    if not dualstack:
        return f"{account}.dkr.{service}.{region}.{partition.suffix}"
    if partition.dualstack_suffix is None:
        raise SettingError(
            "METAFLOW_PREBUILT_ECR_DUALSTACK",
            reason=f"no dual-stack name of ECR is known in the partition of {region}",
            remedy=f"unset it and AWS_USE_DUALSTACK_ENDPOINT, or change {REGION}",
        )
    return f"{account}.dkr-{service}.{region}.{partition.dualstack_suffix}"
