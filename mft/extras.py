"""Optional packages: one clear error instead of an ImportError in the middle of a run."""

from importlib.util import find_spec

from mft.errors import DependencyError


def require(module: str, *, extra: str, why: str) -> None:
    """Check that `module` can be imported.

    Raises:
        DependencyError: it cannot; the message names the pip command.
    """
    if find_spec(module) is None:
        raise DependencyError(f"{why} needs the package '{module}', which is not installed; run: pip install 'mft[{extra}]'")
