"""Passwords of indexes, channels and registries: used here, and in nothing that leaves this machine."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt.core.platforms import Platform
from prebuilt.testing.conda_channel import build_channel, serve_channel
from prebuilt.testing.conda_package import CondaPackageSpec, text_file
from prebuilt.testing.conda_python import dummy_python_package
from prebuilt.testing.python_index import PackageIndex, make_wheel
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth

pytestmark = [pytest.mark.metaflow, pytest.mark.slow]

OF_INDEX, OF_CHANNEL, OF_REGISTRY = "index-pass-4711", "channel-pass-4711", "registry-pass-4711"


@pytest.fixture
def site(place, tmp_path) -> Iterator[InMemoryRegistry]:
    """Return the registry of a site that asks for a login at every door; the user has them where users have them."""
    channel = build_channel(
        tmp_path / "channel",
        [
            dummy_python_package(".".join(map(str, sys.version_info[:3])), Platform.host().subdir),
            *(
                CondaPackageSpec(
                    name=name,
                    version="2.32",
                    noarch="python",
                    files=(text_file(f"site-packages/{name}/__init__.py", ""),),
                    depends=("python",),
                )
                for name in ("requests", "private")
            ),
        ],
    )
    home = Path(place.variables["HOME"])
    with (
        PackageIndex(username="someone", password=OF_INDEX).serving() as index,
        serve_channel(channel, user="someone", password=OF_CHANNEL) as served,
        InMemoryRegistry(auth=RegistryAuth(scheme="token", users={"someone": OF_REGISTRY})) as registry,
    ):
        for name in ("requests", "fine"):
            index.add(make_wheel(tmp_path / "dist", name, "2.32"))
        login = base64.b64encode(f"someone:{OF_REGISTRY}".encode()).decode()
        (home / ".docker").mkdir()
        (home / ".docker" / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": login}}}))
        (home / ".netrc").write_text(f"machine 127.0.0.1 login someone password {OF_CHANNEL}\n")
        (home / ".netrc").chmod(0o600)
        place.variables.update(
            PIP_INDEX_URL=index.url_with_credentials,
            CONDA_CHANNELS=served.url,
            METAFLOW_PREBUILT_IMAGE_REGISTRY="site",
            SITE_REPOSITORY=registry.repository("site/images"),
        )
        place.secrets.extend([OF_INDEX, OF_CHANNEL, OF_REGISTRY, login])
        yield registry


@pytest.mark.parametrize(
    "asked", [{"pypi": {"fine": "2.32"}}, {"conda": {"private": "2.32"}, "pypi": {"fine": "2.32"}}]
)
def test_no_secret_leaves_this_machine(place, site, asked):
    """Layers, configs, manifests, locks and the catalogue hold none, nor does what is printed or kept in the cache."""
    outcome = place.run(**asked)
    assert outcome.deployed, outcome.text
    held = site.store.repository("site/images")
    pushed = [*held.blobs.values(), *(manifest.data for manifest in held.manifests.values())]
    kept = [path.read_bytes() for path in place.cache.rglob("*") if path.is_file()]
    stored = [path.read_bytes() for path in place.folder.rglob(".metaflow/**/*") if path.is_file()]
    assert any(b"fine" in place.plain(data) for data in pushed)
    assert not any(b"AskingFlow" in place.plain(data) for data in pushed)  # nor code of the flow
    for secret in place.secrets:
        for data in (*pushed, *kept, *stored):
            assert secret.encode() not in place.plain(data)


def test_a_wrong_password_is_told_and_not_shown(place, site):
    """Of the registry: the message says who was asking and how to log in."""
    place.secrets.append("not-the-password")
    login = base64.b64encode(b"someone:not-the-password").decode()
    config = Path(place.variables["HOME"], ".docker", "config.json")
    config.write_text(json.dumps({"auths": {site.host: {"auth": login}}}))
    message = place.run(pypi={"fine": "2.32"}).message
    assert "401" in message
    assert f"docker login {site.host}" in message


def test_a_channel_that_wants_a_login_is_told(place, site):
    """The message says where rattler looks for one."""
    Path(place.variables["HOME"], ".netrc").unlink()
    message = place.run(conda={"private": "2.32"}).message
    assert "401" in message
    assert "RATTLER_AUTH_FILE" in message


def test_a_password_in_a_channel_url_is_used_and_not_kept(place, site):
    """As for indexes: the URL of the channel is written down without it."""
    Path(place.variables["HOME"], ".netrc").unlink()
    url = place.variables["CONDA_CHANNELS"].replace("://", f"://someone:{OF_CHANNEL}@")
    outcome = place.run(conda={"private": "2.32"}, CONDA_CHANNELS=url)
    assert outcome.deployed, outcome.text
    assert not holding(OF_CHANNEL, place, site)


def test_a_password_in_a_direct_url_is_used_and_not_kept(place, site, tmp_path):
    """A wheel that is named by its URL is asked for with the credentials in it; nothing that stays has them."""
    secret = "direct-pass-4711"
    place.secrets.append(secret)
    with PackageIndex(username="someone", password=secret).serving() as other:
        other.add(make_wheel(tmp_path / "dist", "direct", "1.0"))
        url = other.url_with_credentials.removesuffix("/simple") + "/files/direct-1.0-py3-none-any.whl"
        outcome = place.run(pypi={"direct": f"@ {url}"})
    assert outcome.deployed, outcome.text
    assert not holding(secret, place, site)


def holding(secret, place, site):
    """Return what holds the secret: names of files in the cache, digests of what was pushed."""
    held = site.store.repository("site/images")
    pushed = {**held.blobs, **{digest: manifest.data for digest, manifest in held.manifests.items()}}
    kept = {str(path): path.read_bytes() for path in place.cache.rglob("*") if path.is_file()}
    return [name for name, data in {**pushed, **kept}.items() if secret.encode() in place.plain(data)]
