"""Channels as conda's configuration files name them."""

from pathlib import Path

import pytest

from prebuilt.core.errors import SettingError
from prebuilt.lock.conda_client import channel_config
from prebuilt.lock.conda_specs import open_channels
from prebuilt.lock.condarc import Condarc


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose home is empty, on a machine without configuration."""
    for name in ("CONDARC", "MAMBARC", "CONDA_PREFIX", "CONDA_EXE", "CONDA_ROOT", "MAMBA_ROOT_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    for name in ("CONDA_CHANNEL_ALIAS", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return {"HOME": str(tmp_path / "home")}


def write(path: Path, text: str) -> Path:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_no_file_says_nothing(environ: dict[str, str]):
    """Then there are no channels, and the usual alias."""
    assert Condarc.load(environ).channels == ()
    assert Condarc.load(environ).alias is None


@pytest.mark.parametrize(
    "place", [".condarc", ".conda/condarc", ".config/conda/.condarc", ".conda/condarc.d/10.yml", ".mambarc"]
)
def test_each_place_is_read(environ: dict[str, str], tmp_path: Path, place: str):
    """Of conda's old and new files of a user, and mamba's."""
    write(tmp_path / "home" / place, "channels: [one, two]\nchannel_alias: https://conda.example\n")
    assert Condarc.load(environ).channels == ("one", "two")
    assert Condarc.load(environ).alias == "https://conda.example"


def test_stronger_files_come_first(environ: dict[str, str], tmp_path: Path):
    """The environment's before the user's, and what CONDARC names before all; nothing twice."""
    write(tmp_path / "home" / ".condarc", "channels: [user, both]\n")
    write(tmp_path / "env" / ".condarc", "channels: [env, both]\n")
    named = write(tmp_path / "named", "channels: [named]\n")
    config = Condarc.load({**environ, "CONDA_PREFIX": str(tmp_path / "env"), "CONDARC": str(named)})
    assert config.channels == ("named", "env", "both", "user")


def test_defaults_and_other_names_for_several(environ: dict[str, str], tmp_path: Path):
    """`defaults` is what default_channels lists, else conda's own; custom channels have bases of their own."""
    assert Condarc.load(environ).expanded(["defaults", "x"])[-1] == "x"
    assert len(Condarc.load(environ).expanded(["defaults"])) > 1
    write(
        tmp_path / "home" / ".condarc",
        "default_channels: [https://mirror.example/main]\ncustom_multichannels: {ours: [one, team/two]}\n"
        "custom_channels: {team: https://conda.example/c/}\n",
    )
    expanded = Condarc.load(environ).expanded(["ours", "defaults", "nodefaults", "conda-forge"])
    assert expanded == ("one", "https://conda.example/c/team/two", "https://mirror.example/main", "conda-forge")


def test_variables_are_filled_in(environ: dict[str, str], tmp_path: Path):
    """As conda does it: a password need not be in the file."""
    write(tmp_path / "home" / ".condarc", "channels: ['https://me:${WORD}@conda.example/c']\n")
    assert Condarc.load({**environ, "WORD": "s3cret"}).channels == ("https://me:s3cret@conda.example/c",)


@pytest.mark.parametrize(
    "text", ["channels: one\n", "- list\n", "a: [\n", "custom_channels: [a]\n", "channels: [{a: 1}]\n"]
)
def test_a_malformed_file_is_named(environ: dict[str, str], tmp_path: Path, text: str):
    """It is not taken for an absent one."""
    path = write(tmp_path / "home" / ".condarc", text)
    with pytest.raises(SettingError, match=str(path)):
        Condarc.load(environ)


def test_names_are_below_the_alias(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Channels, and those that a requirement names, are looked for there; CONDA_CHANNEL_ALIAS wins."""
    write(tmp_path / "home" / ".condarc", "channel_alias: https://conda.example/\n")
    (channel,) = open_channels(["forge"], channel_config(tmp_path))
    assert channel.base_url == "https://conda.example/forge/"
    monkeypatch.setenv("CONDA_CHANNEL_ALIAS", "https://other.example")
    (channel,) = open_channels(["forge"], channel_config(tmp_path))
    assert channel.base_url == "https://other.example/forge/"
