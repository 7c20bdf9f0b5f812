"""A build host of AWS CodeBuild: executes a build's buildspec in a container beside a real Docker Engine.

What it does is what https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html says of version 0.2: phases one after
another, all commands in one shell, ``finally`` in any case, exported variables handed back at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prebuilt.testing.amazon_codebuild import RemoteBuild
from prebuilt.testing.engines.docker import Docker
from prebuilt.testing.engines.process import EngineError

PHASES = ("install", "pre_build", "build", "post_build")
_MARK = "::codebuild "
_PATIENCE_S = 60.0
_SOURCE, _AGENT = "/codebuild/output/src", "/codebuild/agent"

# Stands for the AWS command line of Amazon's images, as far as the buildspec uses it.
_AWS = """\
#!/usr/bin/env python3
import base64, sys
import boto3
service, command, option, region = sys.argv[1:]
assert (service, command, option) == ("ecr", "get-login-password", "--region"), sys.argv
token = boto3.client("ecr", region_name=region).get_authorization_token()["authorizationData"][0]["authorizationToken"]
print(base64.b64decode(token).decode().partition(":")[2])
"""


@dataclass(frozen=True, kw_only=True)
class CodeBuildHost:
    """Plays the build host, for :func:`prebuilt.testing.amazon_codebuild.codebuild_of_moto`.

    Attributes:
        docker: The engine that is in the build environment.
        image: What commands run in, in that engine: any with ``sh``, Python 3 and what buildspecs use.
        client: Makes clients of AWS by the name of a service, with the keys of the service role: by it the host downloads sources,
            reads secrets and begins logs.
        environ: What the environment has, for the service role and the network.
        mounts: Folders of this machine by their place in the container: where boto3 is.
    """

    docker: Docker
    image: str
    client: Any
    environ: Mapping[str, str]
    mounts: Mapping[Path, str] = field(default_factory=dict)

    def __call__(self, build: RemoteBuild) -> None:
        """Execute `build` to its end."""
        build.enter("QUEUED")
        with tempfile.TemporaryDirectory(prefix="prebuilt-codebuild-") as name, _failing_of_the_client(build):
            folder = Path(name)
            build.begin_log(self.client("logs"))
            build.enter("PROVISIONING")
            build.enter("DOWNLOAD_SOURCE")
            variables = self._variables(build)
            self._download(build, folder / "src")
            spec = _parse(build.asked["buildspecOverride"])
            _write_agent(folder / "agent", spec)
            self._execute(build, folder, spec, variables)

    def _download(self, build: RemoteBuild, folder: Path) -> None:
        """Get the source as CodeBuild does, which looks whose bucket it is.

        Source: https://docs.aws.amazon.com/codebuild/latest/userguide/setting-up-service-role.html
        """
        s3 = self.client("s3")
        bucket, _, key = build.asked["sourceLocationOverride"].partition("/")
        s3.get_bucket_location(Bucket=bucket)
        s3.get_bucket_acl(Bucket=bucket)
        archive = folder.with_suffix(".zip")
        archive.write_bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        with zipfile.ZipFile(archive) as files:
            files.extractall(folder)  # what the product has made

    def _execute(self, build: RemoteBuild, folder: Path, spec: Mapping[str, Any], variables: Mapping[str, str]) -> None:
        name = "build-" + build.data["id"].rpartition(":")[2]
        exported: dict[str, str] = {}
        with self._container(name, build, folder, variables) as process, _killed_when_stopped(self.docker, name, build):
            assert process.stdout is not None
            for line in process.stdout:
                verb, _, rest = line.rstrip("\n").removeprefix(_MARK).partition(" ")
                if not line.startswith(_MARK):
                    build.write(line.rstrip("\n"))
                elif verb == "phase":
                    build.enter(rest)
                else:
                    variable, _, value = rest.partition("=")
                    exported[variable] = value
            status = process.wait()
        if status == 0:
            build.export(**{variable: exported.get(variable, "") for variable in _exported(spec)})
            build.end()
        else:
            build.end("FAILED", f"Error while executing command. Reason: exit status {status}")

    @contextlib.contextmanager
    def _container(
        self, name: str, build: RemoteBuild, folder: Path, own: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[str]]:
        variables = {**self.environ, **own, "CODEBUILD_BUILD_ID": build.data["id"], "HOME": "/root"}
        socket = self.docker.host.removeprefix("unix://")
        mounts = {
            str(folder / "src"): _SOURCE,
            str(folder / "agent"): _AGENT,
            str(folder / "agent" / "aws"): "/usr/local/bin/aws",
            socket: "/var/run/docker.sock",
            str((self.docker.programs / "docker").resolve()): "/usr/local/bin/docker",
            **{str(path): place for path, place in self.mounts.items()},
        }
        for plugin in (self.docker.config / "cli-plugins").iterdir():
            mounts[str(plugin.resolve())] = f"/usr/local/lib/docker/cli-plugins/{plugin.name}"
        command = [
            *(str(self.docker.programs / "docker"), "run", "--rm", "--name", name, "--network=host", "--privileged"),
            *(f"--volume={path}:{place}" for path, place in mounts.items()),
            *(f"--env={variable}" for variable in variables),  # values are not on a command line
            *("--workdir", _SOURCE, self.image, "sh", f"{_AGENT}/run"),
        ]
        environ = {**os.environ, **self.docker.environ, **variables, "DOCKER_CONFIG": str(self.docker.config)}
        process = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield process
        finally:
            self._remove(name, build)
            process.communicate()

    def _remove(self, name: str, build: RemoteBuild) -> None:
        """Remove what is left of a build, as the end of its machine does."""
        build_id = build.data["id"].rpartition(":")[2]
        for left in self.docker.ask("ps", "--all", "--format={{.Names}}").split():
            if left == name or build_id in left:
                with contextlib.suppress(EngineError):  # it is on its way out by itself
                    self.docker.ask("rm", "--force", "--volumes", left)
        # A container that is on its way out holds its volume until it is gone.
        deadline_s = time.monotonic() + _PATIENCE_S
        while volumes := [each for each in self.docker.ask("volume", "ls", "--quiet").split() if build_id in each]:
            try:
                self.docker.ask("volume", "rm", "--force", *volumes)
            except EngineError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)

    def _variables(self, build: RemoteBuild) -> dict[str, str]:
        asked: Sequence[Mapping[str, str]] = build.asked["environmentVariablesOverride"]
        return {each["name"]: self._value(each) for each in asked}

    def _value(self, variable: Mapping[str, str]) -> str:
        if variable["type"] != "SECRETS_MANAGER":
            return variable["value"]
        secret, _, key = variable["value"].rpartition(":")
        text = self.client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"]
        return str(json.loads(text)[key])


@contextlib.contextmanager
def _failing_of_the_client(build: RemoteBuild) -> Iterator[None]:
    """End the build in its phase where AWS refuses in the body: that is what the user reads."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        build.end("FAILED", f"CLIENT_ERROR: {error}")


def _parse(text: str) -> dict[str, Any]:
    import yaml

    spec: dict[str, Any] = yaml.safe_load(text)
    if str(spec["version"]) != "0.2":
        raise ValueError(f"version {spec['version']} of buildspecs is not played here")
    return spec


def _exported(spec: Mapping[str, Any]) -> list[str]:
    return list(spec.get("env", {}).get("exported-variables", ()))


def _write_agent(folder: Path, spec: Mapping[str, Any]) -> None:
    """Write what the container runs: each command is a file that one shell reads, so that variables stay."""
    folder.mkdir()
    (folder / "aws").write_text(_AWS, encoding="utf-8")
    (folder / "aws").chmod(0o755)
    lines = ["at_end() {", "  status=$?", "  trap - EXIT"]
    lines += [
        f"  [ ! -f {_AGENT}/$phase-finally ] || . {_AGENT}/$phase-finally",
        "  exit $status",
        "}",
        "trap at_end EXIT",
    ]
    for phase in PHASES:
        lines.append(f"phase={phase}; echo {shlex.quote(_MARK + 'phase ' + phase.upper())}")
        asked = spec["phases"].get(phase, {})
        for number, command in enumerate(asked.get("commands", ())):
            (folder / f"{phase}-{number}").write_text(f"{command}\n", encoding="utf-8")
            lines.append(f". {_AGENT}/{phase}-{number} || exit $?")
        if "finally" in asked:
            (folder / f"{phase}-finally").write_text("\n".join(asked["finally"]) + "\n", encoding="utf-8")
            lines.append(f". {_AGENT}/{phase}-finally || exit $?")
            lines.append(f"mv {_AGENT}/{phase}-finally {_AGENT}/{phase}-done")
    for variable in _exported(spec):
        # Of the environment: a variable of the shell alone is not handed back.
        lines.append(f"printf '{_MARK}export %s\\n' \"$(env | grep '^{variable}=')\"")
    (folder / "run").write_text("\n".join([*lines, ""]), encoding="utf-8")


@contextlib.contextmanager
def _killed_when_stopped(docker: Docker, name: str, build: RemoteBuild) -> Iterator[None]:
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            if build.is_stopped.is_set():
                with contextlib.suppress(EngineError):  # it has ended meanwhile
                    docker.ask("kill", name)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
