"""The CloudFormation template: it is right, least, and what the documentation says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import prebuilt.codebuild

SOURCES = Path(prebuilt.codebuild.__file__).parent
TEMPLATE = SOURCES / "cloudformation.yaml"


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms: each is the name of a function with its argument."""


def _function(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    raise TypeError(node)


_Loader.add_multi_constructor("!", _function)


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    """The properties of each resource."""
    template = yaml.load(TEMPLATE.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe one
    return {name: resource["Properties"] for name, resource in template["Resources"].items()}


def statements(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the statements of a policy, those with a condition included."""
    for each in document["Statement"]:
        yield each["If"][1] if "If" in each else each


def actions(document: dict[str, Any]) -> set[str]:
    """Return the actions that a policy allows."""
    named = (each["Action"] for each in statements(document))
    return {action for each in named for action in ([each] if isinstance(each, str) else each)}


def test_the_linter_has_nothing_to_say(tmp_path: Path) -> None:
    """CloudFormation's linter finds no error, no warning, and nothing to note, in any partition; that it is listening shows beside it."""
    broken = tmp_path / "broken.yaml"
    broken.write_text(TEMPLATE.read_text(encoding="utf-8").replace("PrivilegedMode", "PrivilegeMode"), encoding="utf-8")
    program = "import sys; from cfnlint.runner import main; sys.exit(main())"
    options = ["--non-zero-exit-code=informational", "--format=parseable"]
    regions = ["--regions", "eu-west-1", "us-gov-west-1", "cn-north-1"]
    command = [sys.executable, "-c", program, *options, *regions, "--", str(TEMPLATE), str(broken)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr == ""
    assert "PrivilegeMode" in done.stdout
    assert [line for line in done.stdout.splitlines() if not line.startswith(f"{broken}:")] == []


def test_the_documentation_lists_what_the_template_allows(resources: dict[str, Any]) -> None:
    """Each action of both policies is in its table."""
    page = next(parent / "docs/how-to/codebuild.md" for parent in Path(__file__).parents if (parent / "docs").is_dir())
    _, _, after = page.read_text(encoding="utf-8").partition("### Whoever deploys")
    deployers, _, rest = after.partition("### The project's role")
    role = rest.partition("\n## ")[0]
    assert set(re.findall(r"`(\w+:\w+)`", deployers)) == actions(resources["DeployersPolicy"]["PolicyDocument"])
    (policy,) = resources["Role"]["Policies"]
    tables = "\n".join(line for line in role.splitlines() if line.startswith("|"))
    asked = {action for action in re.findall(r"`(\w+:\w+)`", tables) if not action.startswith("ec2:")}
    assert asked == actions(policy["PolicyDocument"])


def test_nothing_is_allowed_everywhere(resources: dict[str, Any]) -> None:
    """Logging in to ECR has no resource; everything else has one, and no action is a pattern."""
    (policy,) = resources["Role"]["Policies"]
    for document in (policy["PolicyDocument"], resources["DeployersPolicy"]["PolicyDocument"]):
        assert not [action for action in actions(document) if "*" in action]
        everywhere = [each["Action"] for each in statements(document) if each["Resource"] == "*"]
        assert everywhere in ([], ["ecr:GetAuthorizationToken"])


def test_leftovers_expire(resources: dict[str, Any]) -> None:
    """Contexts and parts of uploads that nobody deleted are gone after a day; versions, which would stay, are not kept."""
    (rule,) = resources["Contexts"]["LifecycleConfiguration"]["Rules"]
    assert (rule["Status"], rule["ExpirationInDays"]) == ("Enabled", 1)
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert "VersioningConfiguration" not in resources["Contexts"]
    assert all(resources["Contexts"]["PublicAccessBlockConfiguration"].values())
