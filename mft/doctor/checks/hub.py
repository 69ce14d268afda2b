"""The model hub: what the environment says of it, and whether the config's base can be had."""

import os
from typing import Any

from mft.doctor.context import Context
from mft.doctor.finding import Finding, fault, ok, together, warning
from mft.doctor.locate import hub_cache, is_offline
from mft.doctor.units import size

TIMEOUT_S = 5.0
SHOWN = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE")


def check_hub(context: Context) -> Finding:
    """The network is touched only for a base that is a hub id, not in the cache, with no variable that forbids it."""
    facts: dict[str, Any] = {name: os.environ[name] for name in SHOWN if name in os.environ} | {"cache": str(hub_cache())}
    mode = "offline (HF_HUB_OFFLINE)" if is_offline() else f"online, by {os.environ.get('HF_ENDPOINT', 'the default endpoint')}"
    base = context.base()
    if base is None or base.kind != "hub":
        return ok(f"{mode}; " + ("the base is a local folder" if base else "no base was named") + ", the hub is not asked", **facts)
    if base.folder is not None:
        return ok(f"{mode}; {base.name} is in the cache: {base.folder}", **facts)
    bring = (f"on a machine with a network: hf download {base.name} --local-dir FOLDER; bring FOLDER here and set model.base to it, or set "
             "HF_HOME to a cache that holds it")
    if is_offline():
        return fault(f"HF_HUB_OFFLINE is set, and {base.why}", bring, **facts)
    return together([_on_hub(base.name, bring)], "", **facts)


def _on_hub(name: str, bring: str) -> Finding:
    """What the hub says of a base, within a few seconds."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError

    try:
        info = HfApi().model_info(name, timeout=TIMEOUT_S, files_metadata=True)
    except RepositoryNotFoundError:
        return fault(f"{name}: is no folder here, and the hub has no such model, or it is private",
                     "correct model.base; for a private or gated model: hf auth login, and accept its licence")
    except HfHubHTTPError as error:
        return fault(f"{name}: the hub answered {error.response.status_code}", f"see whether you have access (hf auth login); or {bring}")
    except (HTTPError, OSError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        return warning(f"{name} is not in the cache, and the hub did not answer within {TIMEOUT_S:g} s: {said}",
                       f"set HF_ENDPOINT to a mirror; or {bring}")
    whole = sum(file.size or 0 for file in info.siblings or [] if file.rfilename.endswith(".safetensors"))
    return warning(f"{name} is not in the cache yet: the first run downloads {size(whole)} to {hub_cache()}", f"hf download {name}")
