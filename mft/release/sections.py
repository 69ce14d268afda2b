"""The tables of a model card that come from the records of a run."""

from collections.abc import Iterator
from typing import Any

from mft.release.markdown import UNKNOWN, facts_table, number, plain, table, words
from mft.release.records import ModelRecords, RunRecords

LEFT_OUT = ("name", "kind", "data", "init_from", "allow_higher_learning_rate")


def training_section(run: RunRecords, model: ModelRecords, stage: str | None) -> str | None:
    """Settings and outcome of every train stage that the weights come from, the last first; None where nothing is recorded."""
    results = dict(run.results("train"))
    names = [name for name in run.ancestors(stage) if name in results]
    parts = [_one_training(run, name, results[name]) for name in names]
    if not parts and model.facts.get("quantization"):
        return facts_table([("base held in", words(model.facts["quantization"])), ("context, tokens", number(model.facts.get("context")))])
    return "\n\n".join(parts) or None


def _one_training(run: RunRecords, name: str, result: dict[str, Any]) -> str:
    own = run.settings(name)
    settings = [(key, plain(value)) for key, value in own.items() if key not in LEFT_OUT and key != "training" and value is not None]
    settings += [(f"training.{key}", plain(value)) for key, value in (own.get("training") or {}).items() if value is not None]
    tokens = (result.get("tokens") or {}).get("train") or {}
    outcome = [("optimizer steps", number(result.get("steps"))), ("ranks", number(result.get("ranks"))),
               ("computed in", number(result.get("compute_dtype"))), ("trainable parameters", number(result.get("trainable_parameters"))),
               ("training samples / packed rows", f"{number(tokens.get('samples'))} / {number(tokens.get('rows'))}"),
               ("tokens of one epoch, trained of them", f"{number(tokens.get('tokens'))}, {number(tokens.get('trained_tokens'))}"),
               ("seconds", number(result.get("seconds"))),
               ("loss, nats per trained token (last tenth of the steps)", number(result.get("loss")))]
    text = f"### Stage `{name}`\n\n{facts_table([*settings, *outcome])}"
    if tasks := result.get("tasks"):
        rows = [[task, number(facts.get("tokens")), number(facts.get("loss"))] for task, facts in tasks.items()]
        text += "\n\n" + table(["task", "trained tokens seen", "training loss"], rows)
    return text


def data_section(run: RunRecords, stage: str | None) -> str | None:
    """The ledger of every data set that the weights were trained on."""
    wanted = {run.settings(name).get("data") for name in run.ancestors(stage)}
    parts = []
    for name, result in run.results("data"):
        if name not in wanted:
            continue
        dropped = ", ".join(f"{reason} {number(count)}" for reason, count in sorted((result.get("dropped") or {}).items())) or "none"
        facts = [("rows read", number(result.get("read"))), ("rows kept", number(result.get("kept"))), ("dropped, by reason", dropped),
                 ("sha256 of the rows", number(result.get("sha256")))]
        rows = [[task, number(counts.get("train")), number(counts.get("validation"))]
                for task, counts in (result.get("per_task") or {}).items()]
        parts.append(f"Data set `{name}`\n\n{facts_table(facts)}\n\n{table(['task', 'training rows', 'held-out rows'], rows)}")
    return "\n\n".join(parts) or None


def merge_section(model: ModelRecords) -> str | None:
    """How the merge was checked."""
    merge = model.merge
    if not merge:
        return None
    options = model.manifest.get("options") or (model.manifest.get("made_from") or {}).get("options") or {}
    measured = [("KL, nats per token", merge.get("kl")), ("top-1 agreement", merge.get("top1_agreement"))]
    return facts_table([
        ("added to", f"{options.get('onto', UNKNOWN)} weights, written as {options.get('dtype', UNKNOWN)}"),
        ("tensors, changed of them", f"{number(merge.get('tensors'))}, {number(merge.get('merged'))}"),
        ("checked by", number(merge.get("verify"))), ("compared with", number(merge.get("reference"))),
        ("largest difference, tolerance", f"{number(merge.get('max_abs_diff'))}, {number(merge.get('tolerance'))}"),
        *((name, number(value)) for name, value in measured if value is not None)])


def evaluation_section(run: RunRecords, stage: str | None) -> str | None:
    """What was measured of this model or of those that its weights come from, each table with its protocol (law 10)."""
    family = set(run.ancestors(stage))
    parts = []
    for name, result in run.results("evaluate"):
        models = result.get("models") or []
        if family & set(models):
            parts += [f"### `{name}`: {result.get('benchmark') or 'benchmark ' + UNKNOWN}", *_scores(result, list(models))]
    return "\n\n".join(parts) or None


def _scores(result: dict[str, Any], models: list[str]) -> Iterator[str]:
    overall = result.get("overall") or {}
    if overall.get("loss"):
        yield f"Held-out loss, nats per trained token; in brackets the paired difference to {models[0]} ± its standard error:"
        rows = [[task, number(facts.get("rows")), *(_loss(facts, model) for model in models)]
                for task, facts in [*(result.get("tasks") or {}).items(), ("all", overall)]]
        yield table(["task", "rows", *models], rows)
    scored = [(model, facts) for model, facts in [*_by_model(result, models), ("", result)] if "pass@1" in facts]
    if scored:
        yield table(["model", "pass@1", "95% interval", "passed", "problems"],
                    [[model or ", ".join(models), number(facts["pass@1"]), words(facts.get("ci95")), number(facts.get("passed")),
                      number(facts.get("total"))] for model, facts in scored])
    protocols = {str(facts["protocol"]): _without_paths(facts["protocol"]) for _, facts in [*scored, ("", result)] if facts.get("protocol")}
    if not protocols:
        yield f"Protocol: {UNKNOWN}."
    for protocol in protocols.values():
        yield "Protocol:\n\n" + (facts_table([(key, plain(value)) for key, value in protocol.items()])
                                 if isinstance(protocol, dict) else str(protocol))


def _loss(facts: dict[str, Any], model: str) -> str:
    difference = (facts.get("difference") or {}).get(model) or {}
    beside = f" ({difference['mean']:+.4f} ± {difference['se']:.4f})" if None not in (difference.get("mean"), difference.get("se")) else ""
    loss = facts["loss"].get(model)
    return (UNKNOWN if loss is None else f"{loss:.4f}") + beside


def _without_paths(value: Any) -> Any:
    """A protocol without the places of this machine's files."""
    if isinstance(value, dict):
        return {key: _without_paths(each) for key, each in value.items()
                if key != "path" and not (isinstance(each, str) and each.startswith("/"))}
    return value


def _by_model(result: dict[str, Any], models: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Results that an evaluation keeps for each model: under the models' names, or in a list with a `model` each."""
    scores = result.get("scores") or result.get("results") or {}
    if isinstance(scores, dict):
        yield from ((model, scores[model]) for model in models if isinstance(scores.get(model), dict))
    else:
        yield from ((str(each.get("model", "")), each) for each in scores if isinstance(each, dict))


def quantization_section(run: RunRecords, model: ModelRecords) -> str | None:
    """The quantised forms of this model: this folder's own, and those of a matrix in the run."""
    jobs = [job for _, result in run.results("quantize") for job in result.get("jobs") or []]
    own = model.quantization
    if not jobs and not own:
        return None
    parts = []
    if own:
        parts.append("This folder:\n\n" + facts_table([(key, plain(value)) for key, value in own.items() if value is not None]))
    if jobs:
        header = ["name", "bits", "group size", "act-order", "damp", "bytes", "perplexity"]
        keys = ["bits", "group_size", "desc_act", "damp", "bytes", "perplexity"]
        parts.append(table(header, [[str(job.get("name") or UNKNOWN), *(number(job.get(key)) if not isinstance(job.get(key), dict)
                                     else words(job[key]) for key in keys)] for job in jobs]))
    return "\n\n".join(parts)
