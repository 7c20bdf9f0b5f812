"""How rattler reaches channels: the user's rattler configuration, for resolving and for downloads."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import SettingError
from prebuilt.core.home import home_folder
from prebuilt.core.storage import scratch_folder
from prebuilt.core.url_secrets import remember_credentials
from prebuilt.lock.authorities import trusting
from prebuilt.lock.condarc import Condarc
from prebuilt.lock.url_credentials import all_from_netrc

if TYPE_CHECKING:
    from rattler import ChannelConfig, Client, Config

_log = logging.getLogger(__name__)
_TOOL = "rattler"  # its files are shared by pixi and rattler-build, where users already have mirrors and proxies
_DEFAULT_ALIAS = "https://conda.anaconda.org/"


def conda_config() -> Config:
    """Return rattler's configuration: mirrors, proxies, TLS, S3, the authentication file.

    Raises:
        SettingError: A configuration file is malformed.
    """
    from rattler import Config
    from rattler.exceptions import ConfigError

    try:
        return Config.load_from_default_locations(_TOOL)
    except ConfigError as error:
        raise SettingError("rattler's configuration", reason=str(error), remedy="mend the file") from error


def conda_client(
    authorities: Path | None = None,
    *,
    logins: Mapping[str, Credentials] | None = None,
    max_retries: int = 3,
    timeout_s: int | None = None,
) -> Client:
    """Return a client with rattler's configuration and credentials.

    Credentials come from ``RATTLER_AUTH_FILE``, the keyring, ``~/.rattler/credentials.json`` and netrc.

    Args:
        authorities: File of certificate authorities to verify servers with; None: the system's.
        logins: By host, what it is asked with in place of all that; the keyring is not asked then.
        max_retries: How often it tries a request again by itself; none where the caller does.
        timeout_s: How long a whole request may take, its answer included; None for ever.
    """
    from rattler import Client

    config = conda_config()
    with trusting(authorities), _logins_of(config, logins) if logins else nullcontext():
        return Client.from_config(config, max_retries=max_retries, user_agent="metaflow-prebuilt", timeout=timeout_s)


@contextmanager
def _logins_of(config: Config, logins: Mapping[str, Credentials]) -> Iterator[None]:
    """Have `config` know `logins` while a client is made, which reads them once.

    Only from a file, which is gone afterwards. In URLs they would stay in rattler's cache. Since rattler reads no other file then, this
    one holds what is in those.
    """
    home = home_folder(os.environ)
    known = {host: _basic(login) for host, login in all_from_netrc(os.environ, home).items()}
    for path in reversed(authentication_files(config, os.environ, home)):
        known |= read_authentication(path)
    known |= {host: _basic(login) for host, login in logins.items()}
    with scratch_folder("prebuilt-login-") as folder:  # nobody else may look into it
        path = folder / "credentials.json"
        path.write_text(json.dumps(known), encoding="utf-8")
        config.set("authentication-override-file", str(path))
        yield


def _basic(login: Credentials) -> dict[str, Any]:
    return {"BasicHTTP": {"username": login.username, "password": login.secret}}


def authentication_files(config: Config, environ: Mapping[str, str], home: Path) -> list[Path]:
    """Return the files of credentials that rattler may read, the strongest first; they need not be there."""
    named = (environ.get("RATTLER_AUTH_FILE"), config.authentication_override_file)
    return [Path(path) for path in (*named, home / ".rattler" / "credentials.json") if path]


def read_authentication(path: Path) -> dict[str, Any]:
    """Return what a file of rattler's credentials holds, by host; nothing if it is not there. rattler itself says what is wrong in it."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        _log.warning("%s is not used: %s", path, error)
        return {}


def channel_config(folder: Path) -> ChannelConfig:
    """Return how channel names become URLs: by :func:`channel_alias`; paths are relative to `folder`."""
    from rattler import ChannelConfig

    return ChannelConfig(channel_alias=channel_alias(), root_dir=str(folder))


def channel_alias() -> str:
    """Return what names of channels are below: ``CONDA_CHANNEL_ALIAS``, or what ``.condarc`` says, as for conda.

    Credentials in it are remembered for all that is below it, and are not in what is returned.
    """
    alias = os.environ.get("CONDA_CHANNEL_ALIAS") or Condarc.load(os.environ).alias or _DEFAULT_ALIAS
    return remember_credentials(alias.rstrip("/") + "/")
