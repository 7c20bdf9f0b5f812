"""How rattler reaches channels: the user's rattler configuration, for resolving and for downloads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prebuilt.core.errors import SettingError

if TYPE_CHECKING:
    from rattler import ChannelConfig, Client, Config

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


def conda_client(*, max_retries: int = 3, timeout_s: int | None = None) -> Client:
    """Return a client with rattler's configuration and credentials.

    Credentials come from ``RATTLER_AUTH_FILE``, the keyring, ``~/.rattler/credentials.json`` and netrc.

    Args:
        max_retries: How often it tries a request again by itself; none where the caller does.
        timeout_s: How long a whole request may take, its answer included; None for ever.
    """
    from rattler import Client

    return Client.from_config(
        conda_config(), max_retries=max_retries, user_agent="metaflow-prebuilt", timeout=timeout_s
    )


def channel_config(folder: Path) -> ChannelConfig:
    """Return how channel names become URLs: by ``CONDA_CHANNEL_ALIAS``, as for conda; paths are relative to `folder`."""
    from rattler import ChannelConfig

    alias = os.environ.get("CONDA_CHANNEL_ALIAS") or _DEFAULT_ALIAS
    return ChannelConfig(channel_alias=alias.rstrip("/") + "/", root_dir=str(folder))
