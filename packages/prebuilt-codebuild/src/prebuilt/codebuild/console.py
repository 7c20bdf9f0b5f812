"""Where a person looks at a build."""

from __future__ import annotations

from urllib.parse import quote

# Source: https://docs.aws.amazon.com/general/latest/gr/mgmt-console.html, and for the others the guides of their partitions
_CONSOLES = {
    "aws": "{region}.console.aws.amazon.com",
    "aws-cn": "{region}.console.amazonaws.cn",
    "aws-us-gov": "{region}.console.amazonaws-us-gov.com",
}


def console_link(arn: str) -> str:
    """Return the page of a build, by its ARN; the ARN itself in partitions whose console is not known.

    ``arn:aws:codebuild:eu-west-1:123456789012:build/project:6c4e…``
    """
    _, partition, _, region, account, build = arn.split(":", maxsplit=5)
    host = _CONSOLES.get(partition)
    if host is None:
        return arn
    build_id = build.removeprefix("build/")
    project = build_id.partition(":")[0]
    path = f"codesuite/codebuild/{account}/projects/{project}/build/{quote(build_id, safe='')}/log"
    return f"https://{host.format(region=region)}/{path}?region={region}"
