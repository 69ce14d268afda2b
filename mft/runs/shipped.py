"""The configs and recipes that come with mft, in a wheel and in a checkout."""

from difflib import get_close_matches
from pathlib import Path

from mft.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent.parent
FOLDERS = (PACKAGE / "assets" / "configs", PACKAGE.parent / "configs")
"""Where configs lie: in a wheel inside the package, in a checkout beside it."""


def shipped_configs() -> list[Path]:
    """The shipped configs, by name."""
    found = {path.name: path for folder in reversed(FOLDERS) for path in folder.glob("*.yaml")}
    return [found[name] for name in sorted(found)]


def shipped_config(name: str) -> Path:
    """The path of a shipped config.

    Raises:
        ConfigError: there is none of that name.
    """
    shipped = {path.name: path for path in shipped_configs()}
    if name in shipped:
        return shipped[name]
    likely = likely_config(name)
    hint = f"did you mean '{likely.name}'?" if likely else f"shipped: {', '.join(shipped) or 'none'}"
    raise ConfigError([f"{name}: no config of that name comes with mft; {hint}"])


def likely_config(name: str) -> Path | None:
    """The shipped config of this name, or of the nearest spelling."""
    shipped = {path.stem: path for path in shipped_configs()}
    return next((shipped[close] for close in get_close_matches(name.removesuffix(".yaml"), shipped, n=1, cutoff=0.7)), None)
