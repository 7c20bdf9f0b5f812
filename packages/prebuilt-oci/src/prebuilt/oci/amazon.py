"""What is particular about Amazon ECR and does not show in its answers."""

from __future__ import annotations

import re

# Source: https://docs.aws.amazon.com/general/latest/gr/ecr.html for the forms, and the partitions of botocore for the rest.
_HOST = re.compile(
    r"(\d{12})\.dkr(?:\.ecr|-ecr|\.ecr-fips|-ecr-fips)\.([a-z0-9-]+)\."
    r"(?:amazonaws\.(?:com|com\.cn|eu)|on\.aws|on\.amazonwebservices\.(?:com\.cn|eu)"
    r"|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)"
)

# Source: https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html, "Maximum layer size"; it cannot be raised.
LAYER_LIMIT_MIB = 52_000
LAYER_LIMIT_REMEDY = (
    f"a layer of Amazon ECR has {LAYER_LIMIT_MIB:,} MiB at most: a package as large as that cannot be in the image, have the"
    " task fetch it"
)

_DENIED_ACTION = re.compile(r"not authorized to perform:? (ecr:[A-Za-z]+)")
_EXPIRED = re.compile(r"authorization token has expired", re.IGNORECASE)
_REFUSED = re.compile(r"\b40[13]\b|denied|unauthorized|no basic auth|authentication required", re.IGNORECASE)

# Source: https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html, and the actions' descriptions in
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerregistry.html
_ACTIONS = (
    ("GET|HEAD", r"/manifests/", "ecr:BatchGetImage"),
    ("PUT", r"/manifests/", "ecr:PutImage"),
    ("POST", r"/blobs/uploads/", "ecr:InitiateLayerUpload"),
    ("PATCH", r"/blobs/uploads/", "ecr:UploadLayerPart"),
    ("PUT", r"/blobs/uploads/", "ecr:UploadLayerPart and ecr:CompleteLayerUpload"),
    ("HEAD", r"/blobs/sha256:", "ecr:BatchCheckLayerAvailability"),
    ("GET", r"/blobs/sha256:", "ecr:GetDownloadUrlForLayer"),
)


def is_ecr(host: str) -> bool:
    """Return whether `host` is a private registry of Amazon ECR, in any partition, by any of its names."""
    return ecr_region(host) is not None


def ecr_region(host: str) -> str | None:
    """Return the region of a private registry of Amazon ECR; None for other hosts."""
    found = _HOST.fullmatch(host)
    return found[2] if found else None


def missing_remedy(url: str) -> str:
    """Return what helps where a repository of ECR is not there; empty where `url` is not of one.

    Repositories belong to an account and a region: what is looked for in another one is not there.
    """
    host, _, path = url.partition("://")[2].partition("/v2/")
    found, named = _HOST.fullmatch(host), re.match(r"(.+?)/(?:manifests|blobs)/", path)
    if not found or not named:
        return ""
    account, region = found[1], found[2]
    create = f"aws ecr create-repository --region {region} --repository-name {named[1]}"
    return (
        f"it is looked for in the account {account} in {region}: if it is in another region or account, correct"
        f" METAFLOW_PREBUILT_ECR_REGION or METAFLOW_PREBUILT_ECR_ACCOUNT, or the image's name; else create the repository: {create}"
    )


def iam_action(method: str, url: str) -> str:
    """Return the IAM action that a request to ECR needs; empty where none is known.

    It has to be known: the answer to a HEAD has no body that could name it.
    """
    for methods, path, action in _ACTIONS:
        if re.fullmatch(methods, method) and re.search(path, url):
            return action
    return ""


def allow_remedy(action: str) -> str:
    """Return what helps where an IAM action is denied."""
    return f"allow {action} for this repository; if it is another account's, its own policy has to allow it as well"


def rate_remedy(method: str, url: str) -> str:
    """Return what helps where ECR takes no more requests of a kind: each action has a rate of its own, which can be raised.

    Source: https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html
    """
    return f"wait a while, lower the concurrency, or ask AWS for a higher rate of {iam_action(method, url) or 'this request'}"


def expired_remedy(host: str = "") -> str:
    """Return what helps where ECR says that a password has ended.

    One that is fetched for a build is good for hours; one that `docker login` kept is shown again by each deploy.
    """
    return (
        f"if it is of `docker login`, remove it: docker logout {host or 'with the name of the registry'}; your AWS credentials are"
        " used then. Else deploy again: it ended before the work was done"
    )


def is_expired(said: str) -> bool:
    """Return whether ECR says that a password has ended."""
    return _EXPIRED.search(said) is not None


def engine_remedy(said: str, host: str = "") -> str:
    """Return what helps where an engine that pulls and pushes by itself `said` why it could not; empty where ECR is not why.

    It is known by Amazon's own words, and by the `host` that was asked. Nobody logs in to ECR: whoever deploys has the right or not.

    Source: https://docs.aws.amazon.com/AmazonECR/latest/userguide/common-errors-docker.html
    """
    action = _DENIED_ACTION.search(said)
    if action:
        return allow_remedy(action[1])
    if is_expired(said):
        return expired_remedy(host)
    if is_ecr(host) and _REFUSED.search(said):
        return "allow whoever deploys to use this repository: docs/how-to/ecr.md has a table of actions, and a policy"
    return ""
