"""Data: rows in and out of each step, and why the others were dropped."""

from collections.abc import Mapping

from mft.report.axes import figure
from mft.report.charts import bars
from mft.report.markup import Column, Html, notice, section, table, tag
from mft.report.records import DataBuild, SplitTokens
from mft.report.units import count


def data_section(build: DataBuild, anchor: str, title: str) -> Html:
    """The whole build's ledger, step by step and task by task."""
    dropped = sum(build.dropped.values())
    emitted = "" if build.emitted is None or build.emitted == build.kept else f", {count(build.emitted)} emitted"
    lead = f"{count(build.read)} rows read = {count(build.kept)} kept + {count(dropped)} dropped{emitted}."
    if build.read != build.kept + dropped:
        lead = "The rows of this build do not add up."
    moved = (f"Task {task} was too small to validate on; its {count(small.rows)} rows joined {small.into}."
             for task, small in build.joined.items())
    digest = tag("p", "Hash of the built rows: ", tag("code", build.sha256), class_="note") if build.sha256 else None
    return section(anchor, title, lead, ledger_fault(f"stage {build.stage}", build.read, build.kept, build.dropped),
                   *(ledger_fault(f"step {step.step}", step.read, step.kept, step.dropped) for step in build.steps),
                   _steps_table(build) if build.steps else None, _tasks_table(build) if build.per_task else None,
                   *(tag("p", text, class_="note") for text in moved), digest)


def ledger_fault(what: str, read: int, kept: int, dropped: Mapping[str, int]) -> Html | None:
    """A notice where rows were lost in silence, None where read = kept + dropped."""
    total = sum(dropped.values())
    if read == kept + total:
        return None
    return notice("bad", f"Ledger of {what} does not add up:",
                  f" {count(read)} read, but {count(kept)} kept + {count(total)} dropped = {count(kept + total)}.")


def drops_section(dropped: Mapping[str, int], anchor: str, read: int | None) -> Html:
    """All drops by reason, of data steps and of encoding, as bars."""
    if not dropped:
        return section(anchor, "Drops by reason", "No row was dropped.")
    total = sum(dropped.values())
    of = f" of {count(read)} read" if read else ""
    return section(anchor, "Drops by reason", f"{count(total)} rows{of} were left out, each counted under one reason.",
                   figure(bars(dropped, unit="rows")))


def all_drops(builds: tuple[DataBuild, ...], encoded: Mapping[str, SplitTokens]) -> dict[str, int]:
    """Reason -> rows, over data stages and then the encoding of each split."""
    drops: dict[str, int] = {}
    for build in builds:
        for reason, number in build.dropped.items():
            drops[reason] = drops.get(reason, 0) + number
    for split, tokens in encoded.items():
        for reason, number in tokens.dropped.items():
            drops[f"{reason} (encoding, {split})"] = number
    return {reason: number for reason, number in drops.items() if number}


def _steps_table(build: DataBuild) -> Html:
    columns = [Column("step", numeric=False), Column("read"), Column("kept"), Column("dropped"), Column("reasons", numeric=False)]
    rows = [[step.step if step.task is None else f"{step.step} {step.task}",
             count(step.read), count(step.kept), count(sum(step.dropped.values())),
             ", ".join(f"{reason} {count(number)}" for reason, number in step.dropped.items() if number) or "none"]
            for step in build.steps]
    foot = ["whole build", count(build.read), count(build.kept), count(sum(build.dropped.values())), ""]
    return table(columns, rows, foot=foot)


def _tasks_table(build: DataBuild) -> Html:
    splits = list(dict.fromkeys(split for numbers in build.per_task.values() for split in numbers))
    columns = [Column("task", numeric=False), *(Column(f"{split} rows") for split in splits)]
    rows = [[task, *(count(numbers.get(split, 0)) for split in splits)] for task, numbers in build.per_task.items()]
    foot = ["all tasks", *(count(sum(numbers.get(split, 0) for numbers in build.per_task.values())) for split in splits)]
    return table(columns, rows, foot=foot)
