"""A project's evaluate stage on a code benchmark: every model's score, the pairs, and where they stand among published scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from mft.errors import ConfigError
from mft.evaluation.config import CodeOptions
from mft.evaluation.judging import JudgeOptions
from mft.evaluation.models import ModelUnderTest
from mft.evaluation.published import among_published
from mft.files import write_json
from mft.runs.benchmark import Exam, paired
from mft.runs.benchmark_model import Draw, beside, evaluate_model

RESULT: Final = "result.json"


def exam_of(options: CodeOptions, folder: Path) -> Exam:
    """The stage's exam; paths are relative to `folder`, that of the config."""
    protocol = options.protocol
    if protocol.endswith((".yaml", ".yml")):
        protocol = str(folder / protocol)
    changes = {**options.rules, **({"format": options.format} if options.format else {})}
    judge = JudgeOptions(options.workers, options.isolation, "inside" if options.inside else "separate")
    return Exam(options.benchmark, protocol, folder / options.problems if options.problems else None, changes, judge, options.limit)


def run_benchmark(options: CodeOptions, models: Sequence[ModelUnderTest], out: Path, folder: Path, *, overwrite: bool,
                  replace_other: bool) -> dict[str, Any]:
    """Evaluate each model in a folder of its own name below `out`; a killed stage goes on where it was. Written as `out/result.json`.

    Raises:
        ConfigError: the benchmark or the protocol cannot be used. As `evaluate_model`.
    """
    opened = exam_of(options, folder).load()
    draw = Draw(options.samples, tuple(options.k), options.batch_size)
    names = [model.name for model in models]
    if RESULT in names:
        raise ConfigError([f"a model cannot be called {RESULT} here"])
    scores = {model.name: evaluate_model(opened, model, out / model.name, draw, overwrite=overwrite, replace_other=replace_other)
              for model in models}
    first = names[0]
    pairs = {name: paired(scores[first], scores[name], (first, name)) for name in names[1:]} if options.samples == 1 else {}
    result: dict[str, Any] = {"benchmark": options.benchmark, "models": names, "scores": scores, "comparisons": pairs,
                              "card": beside(list(scores.values()))}
    if options.benchmark == "humaneval" and options.limit is None:
        best = max(names, key=lambda name: scores[name]["pass@1"])
        result["published"] = among_published(best, scores[best]["pass@1"], scores[best]["protocol"]["name"])
    write_json(out / RESULT, result)
    return result
