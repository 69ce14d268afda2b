"""One self-contained HTML page of a run: no script, no font, no image, nothing that is fetched."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from mft.files import write_text
from mft.report.markup import Html, joined, tag
from mft.report.read import RUN, read_run
from mft.report.records import Run
from mft.report.sections.benchmarks import benchmark_section, problems_section, title_of
from mft.report.sections.data import all_drops, data_section, drops_section
from mft.report.sections.evaluation import evaluation_section, generations_section
from mft.report.sections.funnel import funnel_section
from mft.report.sections.merge import merge_section
from mft.report.sections.project import header, run_section
from mft.report.sections.training import samples_section, tokens_section, training_section

REPORT = "report.html"

# The browser itself then refuses whatever a page like this could ask for.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the page of `run`, the output folder of a project or of one train run, and return where it is.

    `out` is the file to write, by default `report.html` in the folder; of a single synthesis beside its folder, whose files are all listed
    in its manifest. Parts whose files are absent are named on the page.

    Raises:
        DataError: the folder is not that of a run, or one of its files is broken.
    """
    found = read_run(run)
    page = render_page(found)
    listed = not (run / RUN).is_file() and bool(found.syntheses)
    out = out or (run.resolve().with_name(f"{run.resolve().name}.{REPORT}") if listed else run / REPORT)
    write_text(out, page)
    return out


def render_page(run: Run) -> str:
    """The whole page as HTML text."""
    parts = list(_sections(run))
    links = tag("nav", *(tag("a", title, href=f"#{anchor}") for anchor, title, _ in parts), aria_label="Sections")
    style = Html(files("mft.report").joinpath("style.css").read_text(encoding="utf-8"))
    head = tag("head", Html('<meta charset="utf-8">'),
               Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
               Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
               Html('<meta name="color-scheme" content="light dark">'),
               tag("title", f"{run.name}: mft report"), tag("style", style))
    body = tag("body", header(run), links, tag("main", joined(part for _, _, part in parts)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _sections(run: Run) -> Iterator[tuple[str, str, Html]]:
    """Anchor, short title for the navigation, and section; a subject that occurs twice names its stage."""
    for number, evaluation in enumerate(run.evaluations):
        yield (anchor := _anchor("results", number)), "Before and after", evaluation_section(run, evaluation, anchor)
        if evaluation.generations:
            yield (anchor := _anchor("generations", number)), "Generations", generations_section(evaluation.generations, anchor)
    for number, benchmark in enumerate(run.benchmarks):
        yield (anchor := _anchor("benchmark", number)), title_of(benchmark), benchmark_section(benchmark, anchor)
    several = len(run.trainings) > 1
    for number, training in enumerate(run.trainings):
        def named(title: str, stage: str = training.stage) -> str:
            return f"{title}: {stage}" if several else title

        yield (anchor := _anchor("training", number)), named("Training"), training_section(training, anchor, named("Training"))
        if training.tokens:
            title = named("Lengths and fill")
            yield (anchor := _anchor("lengths", number)), title, tokens_section(training.tokens, anchor, title)
        if training.samples:
            title = named("What is trained")
            yield (anchor := _anchor("samples", number)), title, samples_section(training.samples, anchor, title)
    for number, synthesis in enumerate(run.syntheses):
        title = f"Funnel: {synthesis.stage}" if len(run.syntheses) > 1 else "Funnel"
        yield (anchor := _anchor("funnel", number)), title, funnel_section(synthesis, anchor, title)
    yield from _data_sections(run)
    for number, merge in enumerate(run.merges):
        title = f"Merge check: {merge.stage}" if len(run.merges) > 1 else "Merge check"
        yield (anchor := _anchor("merge", number)), title, merge_section(merge, anchor, title)
    for number, benchmark in enumerate(run.benchmarks):
        anchor = _anchor("problems", number)
        if problems := problems_section(benchmark, anchor):
            yield anchor, "Problems", problems
    yield "run", "The run", run_section(run, "run")


def _data_sections(run: Run) -> Iterator[tuple[str, str, Html]]:
    for number, build in enumerate(run.data):
        title = f"Data: {build.stage}" if len(run.data) > 1 else "Data"
        yield (anchor := _anchor("data", number)), title, data_section(build, anchor, title)
    encoded = {split if len(run.trainings) == 1 else f"{training.stage} {split}": tokens
               for training in run.trainings for split, tokens in training.tokens.items()}
    if run.data or encoded:
        drops = all_drops(run.data, encoded)
        yield "drops", "Drops by reason", drops_section(drops, "drops", sum(build.read for build in run.data))


def _anchor(name: str, number: int) -> str:
    return name if number == 0 else f"{name}-{number + 1}"
