"""The configs and recipes that come with mft, in a wheel and in a checkout."""

from pathlib import Path

from mft.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent.parent


def shipped_config(name: str) -> Path:
    """The path of a shipped config; in a wheel they lie in mft/assets/configs, in a checkout beside mft/.

    Raises:
        ConfigError: there is none of that name.
    """
    for folder in (PACKAGE / "assets" / "configs", PACKAGE.parent / "configs"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError([f"{name}: no config of that name comes with mft"])
