"""Run a synthesis: seeds through its steps, and what came of every row, whole or not at all.

    OUT/rows.jsonl      the rows that were kept, with lineage, tests and measurements
        dropped.jsonl   {"id", "step", "reason"} of every other row, made ones included
        funnel.json     rows in, made, kept, dropped by reason, step by step
        manifest.json   options, hashes of seeds and files, the client's ledger
    OUT.answers/        what the model wrote, by the hash of what was asked: a run that is repeated or changed pays for no answer twice
"""

import json
import logging
import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mft
from mft.data.decontamination.config import DecontaminateStep
from mft.data.engine.work import work_folder
from mft.data.ledger import Ledger
from mft.data.step_inputs import problem_hashes
from mft.errors import CheckFailed, ConfigError, OutputError
from mft.files import MANIFEST, atomic_folder, check_manifest, read_json, write_json, write_manifest, write_text
from mft.hashes import sha256_json
from mft.synthesis.client.config import EndpointConfig
from mft.synthesis.client.request import Client
from mft.synthesis.config import SynthesizeOptions
from mft.synthesis.feedback.judging import Judging
from mft.synthesis.registry import run_step
from mft.synthesis.row import Row
from mft.synthesis.seeds import ROWS, read_seeds, seeds_hash
from mft.synthesis.tally import Dropped, Tally
from mft.synthesis.tools import Told, Tools, tell_nobody

logger = logging.getLogger(__name__)

KIND: Final = "synthesis"
DROPPED: Final = "dropped.jsonl"
FUNNEL: Final = "funnel.json"
SYNTHESIZER: Final = 2
"""Raised when the same options over the same seeds give other rows, so that an old folder is not taken for the new one."""


@dataclass(frozen=True, slots=True)
class SynthesisResult:
    """A finished synthesis. `funnel`: one entry a step, `read` first; `ledger`: what the client says of requests and costs."""

    folder: Path
    made: int
    kept: int
    dropped: dict[str, int]
    funnel: list[dict[str, Any]]
    ledger: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """`{made, kept, dropped, funnel, ledger, path}`."""
        return {"made": self.made, "kept": self.kept, "dropped": self.dropped, "funnel": self.funnel, "ledger": self.ledger,
                "path": str(self.folder)}


def synthesize(seeds: Path, folder: Path, options: SynthesizeOptions, *, client: Client | None = None, overwrite: bool = False,
               beside: Path | None = None, told: Told = tell_nobody) -> SynthesisResult:
    """Run the steps over the seeds and write the folder.

    `client` answers in place of the one that the options describe. `beside`: the folder that a relative path of a local model starts from.

    A folder that holds the finished synthesis of the same seeds and options is returned as it is. One that was stopped goes on: answers
    come from the client's store, verdicts from a hidden folder beside `folder`. The rows are the same either way.

    Raises:
        ConfigError: a step needs a model and there is none. DataError: seeds that cannot be used. SandboxError: no sandbox here.
        OutputError: `folder` holds something else and `overwrite` is False, or what no synthesis has written.
    """
    folder = Path(os.path.abspath(folder))
    if options.makers and client is None and options.client is None:
        raise ConfigError([f"{', '.join(dict.fromkeys(options.makers))}: a language model must answer; say which one: client"])
    job = job_hash(seeds, options)
    _check_replaceable(folder, overwrite)
    if not overwrite and (finished := _finished(folder, job)):
        logger.info("%s: holds this synthesis, finished; nothing to do", folder)
        return finished
    with _opened(folder, options, client, beside) as model, work_folder(folder, job) as work:
        ledger = Ledger("read")
        rows = read_seeds(seeds, options, ledger)
        ledger.close()
        tools = Tools(Judging(options.judging.isolation, options.judging.workers, work), options.seed, model, told)
        tallies = _run(rows, options, tools)
        result = _result(folder, ledger, tallies, model)
        _tell_unanswered(result)
        with atomic_folder(folder, replace=overwrite) as partial:
            _write(partial, tallies[-1].kept, [gone for tally in tallies for gone in tally.dropped], result, options)
            write_manifest(partial, {"kind": KIND, "job": job, "mft": mft.__version__, "python": platform.python_version(),
                                     "seeds": {"path": str(seeds), "sha256": seeds_hash(seeds)},
                                     "options": options.model_dump(mode="json"),
                                     **{key: value for key, value in result.to_json().items() if key != "path"}})
    return result


@contextmanager
def _opened(folder: Path, options: SynthesizeOptions, client: Client | None, beside: Path | None) -> Iterator[Client | None]:
    """The client that is given, or the one of the options; None where no step needs one."""
    if client is not None or options.client is None or not options.makers:
        yield client
        return
    from mft.synthesis.client.open import open_client

    with open_client(options.client, answers_folder(folder), beside=beside) as opened:
        yield opened


def answers_folder(folder: Path) -> Path:
    """Where the answers of the synthesis in `folder` are kept: beside it, since they outlive it."""
    return folder.with_name(f"{folder.name}.answers")


def _run(rows: Sequence[Row], options: SynthesizeOptions, tools: Tools) -> list[Tally]:
    tallies = []
    for config in options.steps:
        tally = run_step(rows, config, tools)
        tally.close()
        tallies.append(tally)
        rows = tally.kept
    return tallies


def _result(folder: Path, read: Ledger, tallies: Sequence[Tally], client: Client | None) -> SynthesisResult:
    """Count everything once more, over all steps (law 1).

    Raises:
        AssertionError: the steps do not add up, which is a bug of ours.
    """
    first = {**read.to_json(), "made": 0, "replaced": 0}
    funnel = [first, *(tally.to_json() for tally in tallies)]
    dropped = sum((Counter(entry["dropped"]) for entry in funnel), Counter[str]())
    made, replaced, kept = sum(entry["made"] for entry in funnel), sum(entry["replaced"] for entry in funnel), funnel[-1]["kept"]
    if read.read + made != kept + replaced + dropped.total():
        raise AssertionError(f"the synthesis does not add up: {read.read} read, {made} made, {kept} kept, {replaced} replaced, {dropped}")
    ledger = getattr(client, "ledger", None)
    written = ledger.to_json() if ledger is not None else {}
    return SynthesisResult(folder, made, kept, dict(sorted(dropped.items())), funnel, written)


def _tell_unanswered(result: SynthesisResult) -> None:
    """Rows that went for want of an answer can be had by another run."""
    missing = {reason: count for reason, count in result.dropped.items() if reason.startswith("unanswered_")}
    if missing:
        logger.warning("%d rows were dropped without an answer (%s); when the cause is gone, run it once more with --overwrite: answers "
                       "that are there are not asked again", sum(missing.values()), ", ".join(f"{key} {n}" for key, n in missing.items()))


def _write(folder: Path, kept: Iterable[Row], dropped: Iterable[Dropped], result: SynthesisResult, options: SynthesizeOptions) -> None:
    write_text(folder / ROWS, "".join(_line(row.to_json()) for row in kept))
    write_text(folder / DROPPED, "".join(_line(_gone(each, options.keep_dropped_texts)) for each in dropped))
    write_json(folder / FUNNEL, result.funnel)


def _gone(dropped: Dropped, with_texts: bool) -> dict[str, Any]:
    head = {"id": dropped.row.id, "step": dropped.step, "reason": dropped.reason}
    return head | ({"row": dropped.row.to_json()} if with_texts else {})


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def job_hash(seeds: Path, options: SynthesizeOptions) -> str:
    """Hash of all that decides the rows: what the seeds hold, the options, the problem files behind them; not where files lie.

    Raises:
        DataError: the seeds, or a file that a step names, are not there.
    """
    written = options.model_dump(mode="json")
    written["judging"].pop("workers")
    written["client"] = _deciding(options)
    for step, config in zip(written["steps"], options.steps, strict=True):
        if isinstance(config, DecontaminateStep):
            step["problems"] = problem_hashes(config)["sha256"]
    return sha256_json({"synthesizer": SYNTHESIZER, "seeds": seeds_hash(seeds), "options": written})


def _deciding(options: SynthesizeOptions) -> dict[str, Any] | None:
    """What of the client's config can change an answer; not where servers are, nor how fast or how dear they may be."""
    if options.client is None or not options.makers:
        return None
    if isinstance(options.client, EndpointConfig):
        return options.client.model_dump(mode="json", include={"type", "model", "omit", "seed", "extra"})
    return options.client.model_dump(mode="json")


def _check_replaceable(folder: Path, overwrite: bool) -> None:
    """Only what a synthesis has written is ever replaced.

    Raises:
        OutputError: the folder holds something else.
    """
    if folder.is_file():
        raise OutputError(f"{folder}: is a file, not a folder")
    if overwrite and folder.is_dir() and any(folder.iterdir()) and _manifest_of(folder).get("kind") != KIND:
        raise OutputError(f"{folder}: holds files that no `mft synthesize` has written, which --overwrite does not remove; "
                          "give another output folder, or remove them")


def _finished(folder: Path, job: str) -> SynthesisResult | None:
    """The finished synthesis of this job that the folder holds, or None where the folder is free.

    Raises:
        OutputError: it holds something else, or files that have changed.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    manifest = _manifest_of(folder)
    if manifest.get("kind") != KIND or manifest.get("job") != job:
        what = "another synthesis" if manifest.get("kind") == KIND else "files that are not of this synthesis"
        raise OutputError(f"{folder}: holds {what}; give another output folder, or --overwrite to start anew")
    try:
        check_manifest(folder)
    except CheckFailed as error:
        raise OutputError(f"{error}\n{folder}: holds this synthesis, but not as it was written; --overwrite starts anew") from error
    return SynthesisResult(folder, **{key: manifest[key] for key in ("made", "kept", "dropped", "funnel", "ledger")})


def _manifest_of(folder: Path) -> dict[str, Any]:
    """The folder's manifest, or {} where there is none that could be mft's."""
    try:
        manifest = read_json(folder / MANIFEST)
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
