"""How a person sees what `mft data build` and `stats` found."""

from collections.abc import Mapping
from typing import Any

from mft.cli.outcome import Table, counts

Facts = Mapping[str, Any]


def mixture_parts(mixture: Facts | None) -> list[Any]:
    """What was asked of each task beside what came out, in rows and shares; with tokens where they are known, else characters."""
    if not mixture:
        return []
    unit = "tokens" if all("tokens" in task for task in mixture["tasks"].values()) else "characters"
    keys = ("requested_share", "realised_share", f"{unit[:-1]}_share", f"trained_{unit[:-1]}_share")
    numbers = [[name, *(f"{task[key]:,}" for key in ("available", "requested", "realised", "shortfall")), f"{task['epochs']:.2f}"]
               for name, task in mixture["tasks"].items()]
    shares = [[name, *(f"{task[key]:.1%}" for key in keys)] for name, task in mixture["tasks"].items()]
    return [Table(f"mixture ({mixture['type']}), training rows", ["task", "there are", "asked for", "given", "missing", "epochs"], numbers),
            Table("shares of the training rows", ["task", "rows asked for", "rows", unit, f"trained {unit}"], shares),
            *shortfall_lines(mixture)]


def shortfall_lines(mixture: Facts) -> list[str]:
    """One line for all that a mixture could not give."""
    short = [f"{name} {task['shortfall']:,} of {task['requested']:,}" for name, task in mixture["tasks"].items() if task["shortfall"]]
    if not short:
        return []
    return [f"shortfall: {mixture['shortfall']:,} training rows are missing ({'; '.join(short)}); nothing takes their place"]


def stats_parts(facts: Facts) -> list[Any]:
    """Sizes, lengths, drops and shares of a built or an encoded folder."""
    unit = facts["unit"]
    samples, trained = max(1, facts["samples"]), max(1, facts[f"trained_{unit}"])
    sizes = [[name, f"{task['samples']:,}", f"{task['samples'] / samples:.1%}", f"{task[unit]:,}", f"{task[f'trained_{unit}']:,}",
              f"{task[f'trained_{unit}'] / trained:.1%}"] for name, task in facts["per_task"].items()]
    measures = ("mean", "p50", "p90", "p99", "max")
    lengths = [[name, *(f"{task['lengths'][key]:,}" for key in measures)] for name, task in facts["per_task"].items()]
    return [Table("training and validation rows", ["task", "samples", "share", unit, "trained", "share"], sizes),
            Table(f"{unit} of a row", ["task", *measures], lengths), *_lines(facts), *_steps(facts.get("steps")),
            *mixture_parts(facts.get("mixture"))]


def _lines(facts: Facts) -> list[str]:
    packed = f"; {facts['rows']:,} packed rows of {facts['context']:,}, {facts['fill']:.2%} full" if facts.get("rows") is not None else ""
    size = f"{facts['samples']:,} samples, " + ", ".join(
        f"{facts[unit]:,} {unit}, {facts[f'trained_{unit}']:,} trained" for unit in ("tokens", "characters") if unit in facts)
    lines = [size + packed]
    if languages := facts.get("languages"):
        shares = ", ".join(f"{name} {count / sum(languages.values()):.1%}" for name, count in languages.items() if count)
        lines.append(f"language of the questions, by script: {shares}")
    if built := facts.get("building"):
        lines.append(f"build: read {built['read']:,}, kept {built['kept']:,}, emitted {built['emitted']:,}; "
                     f"dropped: {counts(built['dropped'])}")
    return [*lines, f"{'encoding: ' if built else ''}read {facts['read']:,}, kept {facts['kept']:,}; dropped: {counts(facts['dropped'])}"]


def _steps(steps: list[Facts] | None) -> list[Any]:
    if not steps:
        return []
    rows = []
    for step in steps:
        rows.append([f"{step['step']} {step.get('task', '')}".strip(), *_counts(step)])
        sources = step.get("sources", ())
        rows += [[f"  {source['source']}", *_counts(source)] for source in sources if len(sources) > 1]
    return [Table("steps", ["step", "read", "kept", "dropped"], rows)]


def _counts(step: Facts) -> list[str]:
    return [f"{step['read']:,}", f"{step['kept']:,}", counts(step["dropped"])]
