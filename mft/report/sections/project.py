"""The run itself: its head figures, stages, versions and config."""

from collections.abc import Iterator

from mft.report.markup import Column, Html, facts, joined, section, table, tag
from mft.report.records import Evaluation, Held, Run
from mft.report.sections.benchmarks import percent, title_of
from mft.report.sections.evaluation import change_class, change_text
from mft.report.sections.merge import merge_holds
from mft.report.units import count, decimal, duration


def header(run: Run) -> Html:
    """The title, the status and the four or five figures that a hurried reader wants."""
    status = tag("span", run.status, class_="pill") if run.status and not _only_the_page_is_missing(run) else None
    what = "Synthesis" if run.syntheses and not run.trainings else "Fine-tuning run"
    by = f"{what} of mft {run.mft}" if run.mft else f"{what} of mft"
    return tag("header", tag("p", by, class_="kicker"), tag("h1", run.name, " ", status), tag("div", *_tiles(run), class_="tiles"))


def _only_the_page_is_missing(run: Run) -> bool:
    """A report stage writes the page while the run still says `running`; every other stage has ended by then."""
    return run.status == "running" and all(stage.seconds is not None for stage in run.stages if stage.kind != "report")


def _tiles(run: Run) -> Iterator[Html]:
    for evaluation in run.evaluations:
        if evaluation.overall is not None and len(evaluation.models) > 1:
            yield _loss_tile(evaluation, evaluation.overall)
    for benchmark in run.benchmarks:
        best = max(benchmark.scores, key=lambda score: score.pass_at["pass@1"])
        yield _tile(f"{title_of(benchmark)} pass@1", percent(best.pass_at["pass@1"]),
                    f"{best.name}, {percent(best.ci95[0])} to {percent(best.ci95[1])}")
    if run.data:
        kept, read = sum(build.kept for build in run.data), sum(build.read for build in run.data)
        yield _tile("rows kept", count(kept), f"of {count(read)} read")
    for training in run.trainings:
        seen = sum(state.tokens or 0 for state in training.tasks.values())
        below = [] if training.seconds is None else [f"in {duration(training.seconds)}"]
        below += [f"on {count(seen)} trained tokens"] if seen else []
        yield _tile("optimizer steps", count(training.steps), " ".join(below))
    for merge in run.merges:
        holds = merge_holds(merge)
        word, class_ = {True: ("passed", "fall"), False: ("failed", "rise"), None: ("not run", "")}[holds]
        yield _tile("merge check", word, f"largest difference {decimal(merge.max_abs_diff)}" if holds is not None else "", class_)
    seconds = [stage.seconds for stage in run.stages if stage.seconds is not None]
    if len(seconds) > 1:
        yield _tile("time", duration(sum(seconds)), f"{len(seconds)} stages")


def _loss_tile(evaluation: Evaluation, overall: Held) -> Html:
    base, after = evaluation.models[0], evaluation.models[-1]
    change = overall.difference.get(after)
    value = f"{decimal(overall.loss.get(base), 3)} → {decimal(overall.loss.get(after), 3)}"
    if change is None:
        return _tile("held-out loss", value)
    return _tile("held-out loss", value, change_text(change), change_class(change))


def _tile(name: str, value: str, below: str = "", class_: str = "") -> Html:
    return tag("div", tag("div", name, class_="name"), tag("div", value, class_="value"),
               tag("div", below, class_=f"below {class_}".rstrip()) if below else None, class_="tile")


def run_section(run: Run, anchor: str) -> Html:
    """Stages with their times, versions, the resolved config."""
    parts: list[object] = []
    if len(run.stages) > 1:
        columns = [Column("stage", numeric=False), Column("kind", numeric=False), Column("", numeric=False), Column("time")]
        rows = ([stage.name, stage.kind, "skipped, unchanged" if stage.skipped else "", duration(stage.seconds)]
                for stage in run.stages)
        parts.append(table(columns, rows))
    if run.versions:
        parts.append(facts((name, str(version)) for name, version in run.versions.items() if version is not None))
    if run.config is not None:
        parts.append(tag("details", tag("summary", "Resolved config"), tag("pre", tag("span", run.config), tabindex="0")))
    if run.absent:
        parts.append(tag("p", "Not in this run: ", "; ".join(run.absent), ".", class_="note absent"))
    return section(anchor, "The run", "Stages, versions and the config they ran with.", joined(parts))

