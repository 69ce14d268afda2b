"""Generate a benchmark's samples with a model or a server, then judge them: what `mft evaluate humaneval` does, and a project's stage."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from mft import formats
from mft.errors import ConfigError, FormatError
from mft.evaluation.models import ModelUnderTest, loaded_in_turn
from mft.evaluation.protocol import Protocol
from mft.evaluation.writers import EndpointWriter, ModelWriter, Writer
from mft.evaluation.writing import collect_samples, endings, write_samples
from mft.files import MANIFEST, claim_folder, read_json
from mft.generation.openai_endpoint import Endpoints
from mft.hashes import hash_file, sha256_json
from mft.modeling.adapters import FACTS, is_adapter, read_adapter_facts
from mft.modeling.added_tokens import base_of_adapter
from mft.modeling.base import resolve_base
from mft.runs.benchmark import OpenExam, finish
from mft.runs.progress import progress_bar
from mft.tokenization.compatibility import format_for, own_template
from mft.tokenization.load import TextTokenizer, load_tokenizer
from mft.training.job import base_file_hashes
from mft.training.ranks import is_first_rank, join_ranks, leave_ranks, on_first_rank, rank, world_size

logger = logging.getLogger(__name__)

LIBRARIES: Final = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers")
RANK_TIMEOUT_MINUTES: Final = 120.0


@dataclass(frozen=True, slots=True)
class Draw:
    """How many samples of each problem are drawn, and which pass@k are said of them."""

    samples: int = 1
    ks: tuple[int, ...] = (1,)
    batch: int = 8

    def check(self, protocol: Protocol) -> None:
        """Raise where the numbers do not go together.

        Raises:
            ConfigError: a k above the number of samples, or several samples of greedy decoding.
        """
        problems = [f"pass@{k} cannot be said without bias from {self.samples} samples a problem; draw more with --samples"
                    for k in self.ks if not 1 <= k <= self.samples]
        if self.samples > 1 and protocol.decoding.temperature == 0:
            problems.append(f"{self.samples} samples with temperature 0 would all be the same; set temperature=0.8, say")
        if problems:
            raise ConfigError(problems)


def evaluate_model(opened: OpenExam, under_test: ModelUnderTest, out: Path, draw: Draw, *, format_name: str | None = None,
                   overwrite: bool = False, replace_other: bool = False) -> dict[str, Any]:
    """Samples of a model in `out/samples.jsonl`, verdicts in `verdicts.jsonl`, the score in `evaluation.json`, which is returned.

    Under torchrun the ranks share the problems, and rank 0 judges; the others get an empty result. A killed evaluation goes on.

    Raises:
        FormatError: the protocol's format is not known for this model. OutputError: `out` holds another evaluation.
    """
    draw.check(opened.protocol)
    tokenizer = load_tokenizer(_tokenizer_folder(under_test.path))
    prompt_format = format_of(opened.protocol, under_test.path, tokenizer, format_name)
    facts = {"model": {**under_test.facts(), "name": under_test.name, "sha256": weights_hash(under_test.path, under_test.stamps)}}
    join_ranks(RANK_TIMEOUT_MINUTES)
    job = sha256_json([opened.problem_facts, opened.protocol.sha256, facts["model"]["sha256"], under_test.facts(), draw.samples, draw.batch,
                       prompt_format.reference])
    on_first_rank(lambda: claim_folder(out, job, overwrite=overwrite, replace_other=replace_other))
    for _, model in loaded_in_turn([under_test]):
        writer = ModelWriter(model, tokenizer, prompt_format, draw.batch)
        _write(opened, writer, out, draw)
        facts["generation"] = {**writer.facts(), "samples": draw.samples, "device": str(model.device.type)}
        del model, writer
    leave_ranks()
    return _judge(opened, out, draw, facts) if is_first_rank() else {}


def evaluate_endpoint(opened: OpenExam, endpoints: Endpoints, out: Path, draw: Draw, *, tokenizer: Path | None = None,
                      format_name: str | None = None, overwrite: bool = False) -> dict[str, Any]:
    """As `evaluate_model`, with servers that write.

    A format with control tokens is rendered here, which needs the model's `tokenizer` folder; without it, `raw` prompts go as plain text
    and those of format `model` as chat messages.

    Raises:
        ConfigError: the protocol's format needs a tokenizer and none is given.
    """
    draw.check(opened.protocol)
    name = format_name or opened.protocol.format
    prompt_format = None
    if tokenizer is not None and name != "model":
        prompt_format = format_for(name, load_tokenizer(tokenizer))
    elif tokenizer is None and name not in ("raw", "model"):
        raise ConfigError([f"protocol '{opened.protocol.name}' renders its prompts in format '{name}'; give --tokenizer, the folder of the "
                           "served model's tokenizer"])
    job = sha256_json([opened.problem_facts, opened.protocol.sha256, endpoints.model, draw.samples, name])
    claim_folder(out, job, overwrite=overwrite)
    writer = EndpointWriter(endpoints, prompt_format)
    _write(opened, writer, out, draw)
    facts = {"model": {"name": endpoints.model, "kind": "endpoint", "sha256": None},
             "generation": {**writer.facts(), "samples": draw.samples}}
    return _judge(opened, out, draw, facts)


def _write(opened: OpenExam, writer: Writer, out: Path, draw: Draw) -> None:
    with progress_bar("generate") as report:
        write_samples(opened.problems, opened.protocol, writer, out, samples=draw.samples, rank=rank(), ranks=world_size(), progress=report)


def _judge(opened: OpenExam, out: Path, draw: Draw, facts: dict[str, Any]) -> dict[str, Any]:
    found = collect_samples(out, opened.problems, draw.samples)
    facts["generation"]["endings"] = endings(out)
    facts |= {"samples_file": {"file": "samples.jsonl", "sha256": hash_file(out / "samples.jsonl")["sha256"]}, "own_prompt": False}
    result = opened.judged(found, facts, folder=out).to_json(draw.ks)
    result["versions"] |= {name: number for name in LIBRARIES if (number := _version(name))}
    return finish(opened, result, found, out)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def weights_hash(path: Path, stamps: Path | None = None) -> str:
    """Hash of a model's identity: of its manifest where it has one, else of its config and weights; of an adapter, of its base's too."""
    if (path / MANIFEST).is_file():
        return str(hash_file(path / MANIFEST)["sha256"])
    if is_adapter(path):
        files = {each.name: hash_file(each)["sha256"] for each in sorted(path.glob("adapter_*"))}
        return sha256_json([files, read_adapter_facts(path).base_files])
    return sha256_json(base_file_hashes(path, stamps))


def format_of(protocol: Protocol, model: Path, tokenizer: TextTokenizer, given: str | None) -> Any:
    """The prompt format that the protocol renders its prompts in.

    Raises:
        FormatError: it is the model's own, and the model names none and has no chat template.
    """
    if given is not None or protocol.format != "model":
        return format_for(given or protocol.format, tokenizer)
    facts = read_json(model / FACTS) if (model / FACTS).is_file() else {}
    if facts.get("format"):
        return format_for(facts["format"], tokenizer)
    if own_template(tokenizer):
        return format_for("jinja", tokenizer)
    raise FormatError(f"protocol '{protocol.name}' talks to the model in its own format, and {model} names none and has no chat template; "
                      f"give --format ({', '.join(formats.names())}), or take protocol evalplus_base, evalplus' rules for such models")


def _tokenizer_folder(path: Path) -> Path:
    if (path / "tokenizer.json").is_file() or not is_adapter(path):
        return path
    return base_of_adapter(resolve_base(read_adapter_facts(path).base, beside=path), path)


def card_row(record: dict[str, Any]) -> str:
    """The row of a model card's table, in Markdown: model, score with interval, protocol."""
    low, high = record["ci95"]
    model = (record.get("model") or {}).get("name") or record["samples_file"]["file"]
    name = record["benchmark"] + (f", first {record['problem_file']['first']} problems" if "first" in record["problem_file"] else "")
    return (f"| {model} | {name} | {100 * record['pass@1']:.1f} ({record['passed']}/{record['total']}) | "
            f"{100 * low:.1f} to {100 * high:.1f} | {record['protocol']['name']} ({record['protocol']['sha256'][:12]}) | "
            f"{record['problem_file']['sha256'][:12]} |")


def beside(records: Sequence[dict[str, Any]]) -> list[str]:
    """A model card's table of scores."""
    return ["| model | benchmark | pass@1, % | 95% interval | protocol | tests |", "|---|---|---|---|---|---|", *map(card_row, records)]
