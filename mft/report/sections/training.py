"""Training: the loss per task over steps, what the model read, and which characters were trained."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mft.report.axes import figure, legend, series_class
from mft.report.charts import Line, Part, histogram, line_chart, stacked_bar
from mft.report.curve import Curve, Point, mean_of, thinned, trailing_mean
from mft.report.markup import Column, Html, facts, joined, notice, section, table, tag
from mft.report.records import SplitTokens, TrainedSample, Training
from mft.report.sections.data import ledger_fault
from mft.report.units import MISSING, amount, count, decimal, duration, percent, size

MAX_POINTS = 400
"""Points of one line; a longer run is shown as means of neighbouring log lines."""

TOTAL = "total loss"

MEMORY = {"peak_rss_bytes": "peak resident memory", "peak_cuda_bytes": "peak of CUDA's allocator",
          "measured_bytes": "memory of a step, measured", "predicted_bytes": "memory of a step, predicted"}

TRAINED_NOTE = "The loss is computed on the marked characters alone; the model reads the rest as context."


def training_section(training: Training, anchor: str, title: str) -> Html:
    """The loss over steps and the run in figures."""
    rate, memory = (training.curve.tokens_per_s, training.curve.memory_bytes) if training.curve else (None, None)
    numbers = facts([
        ("optimizer steps", None if training.steps is None else count(training.steps)), ("time", duration(training.seconds)),
        ("trainable parameters", None if training.trainable_parameters is None else count(training.trainable_parameters)),
        ("tokens per second, median", None if rate is None else count(rate)),
        ("largest device memory", None if memory is None else size(memory)),
        *((MEMORY.get(name, name.removesuffix("_bytes").replace("_", " ")), amount(name, value)) for name, value in training.memory.items()
          if isinstance(value, int | float) and not isinstance(value, bool)),
        ("adapter", f"{training.stage}/{Path(training.adapter).name}" if training.adapter else None)])
    curve = [] if training.curve is None else [_curve_figure(training.curve), *_remarks(training.curve)]
    return section(anchor, title, "Loss of each task during training, in nats per trained token.", *curve, numbers,
                   _task_table(training) if training.tasks else None, _memory_table(training.memory))


def _memory_table(memory: Mapping[str, Any]) -> Html | None:
    """What `mft plan` predicts for this device, part by part, beside what was measured."""
    parts = memory.get("predicted")
    if not isinstance(parts, dict):
        return None
    rows = [[name, size(value)] for name, value in parts.items() if value and name not in ("runtime", "total")]
    total = [["together, predicted (of logits and workspace the larger)", size(parts.get("total", 0))],
             ["measured: the most since the base was loaded", size(memory.get("measured_bytes", 0))]]
    return joined([tag("h3", "Memory of a step"), table([Column("part", numeric=False), Column("predicted")], [*rows, *total])])


def _curve_figure(curve: Curve) -> Html | None:
    series = _all_series(curve)
    logged = max((len(train) for _, train, _ in series), default=0)
    if not series:
        return None
    shown = [(name, thinned(train, MAX_POINTS), validation) for name, train, validation in series]
    window = max(1, max(len(train) for _, train, _ in shown) // 20)
    lines = [_line(name, series_class(index) if name != TOTAL else "total", train, validation, window)
             for index, (name, train, validation) in enumerate(shown)]
    caption = []
    if logged > MAX_POINTS:
        caption.append(f"Each point is the mean of {-(-logged // MAX_POINTS)} neighbouring log lines.")
    if window > 1:
        caption.append(f"Thin: each point. Thick: mean of the last {window} points, weighted by trained tokens.")
    rings = any(line.rings for line in lines)
    if rings:
        caption.append("Rings: loss on validation rows.")
    chart = line_chart(lines, title="Loss per task over optimizer steps", x_label="optimizer step",
                       y_label="loss (nats per trained token)")
    key = {line.name: line.class_ for line in lines} | ({"validation": "ring-mark"} if rings else {})
    return figure(chart, " ".join(caption), key=legend(key))


def _all_series(curve: Curve) -> list[tuple[str, tuple[Point, ...], tuple[Point, ...]]]:
    tasks = sorted(curve.tasks.keys() | curve.validation_tasks.keys())
    series = [(task, curve.tasks.get(task, ()), curve.validation_tasks.get(task, ())) for task in tasks]
    if len(tasks) != 1 and (curve.overall or curve.validation):   # with one task the total is that task
        series.append((TOTAL, curve.overall, curve.validation))
    return series


def _line(name: str, class_: str, train: tuple[Point, ...], validation: tuple[Point, ...], window: int) -> Line:
    smooth = trailing_mean(train, window)
    titles = {float(point.step): decimal(point.loss) for point in smooth}
    for point in validation:
        before = titles.get(float(point.step))
        titles[float(point.step)] = (f"{before}, " if before else "") + f"validation {decimal(point.loss)}"
    each = _pairs(train) if window > 1 else ()
    return Line(name, class_, smooth=_pairs(smooth), each=each, rings=_pairs(validation), titles=titles)


def _pairs(points: tuple[Point, ...]) -> list[tuple[float, float]]:
    return [(point.step, point.loss) for point in points]


def _remarks(curve: Curve) -> Iterator[Html]:
    if curve.not_finite:
        yield notice("bad", f"Logged losses that are not finite: {count(curve.not_finite)}.", " They are left out of the chart.")
    if curve.cut_off:
        yield notice("plain", "The last line of the metrics file is cut off", " and is left out, as after a kill.")


def _task_table(training: Training) -> Html:
    validation = training.curve.validation_tasks if training.curve else {}
    columns = [Column("task", numeric=False), Column("trained tokens seen"), Column("training loss, last tenth")]
    if validation:
        columns += [Column("first validation loss"), Column("last validation loss")]
    rows = []
    for task, state in training.tasks.items():
        row: list[object] = [task, count(state.tokens), decimal(state.loss)]
        if validation:
            points = validation.get(task, ())
            row += [_at_step(points[:1]), _at_step(points[-1:])]
        rows.append(row)
    return table(columns, rows)


def _at_step(points: tuple[Point, ...]) -> str:
    return f"{decimal(mean_of(points).loss)} (step {count(points[0].step)})" if points else MISSING


def tokens_section(splits: Mapping[str, SplitTokens], anchor: str, title: str) -> Html:
    """Lengths of the samples, how full the packed rows are, and the tokens of each task."""
    return section(anchor, title, "Samples are packed into rows of one context length, and never see each other there.",
                   tag("div", *(_split(name, split) for name, split in splits.items()), class_="pair"),
                   _tokens_table(splits))


def _split(name: str, split: SplitTokens) -> Html:
    parts: list[object] = [tag("h3", name)]
    if split.read is not None and split.kept is not None:
        parts.append(ledger_fault(f"encoding {name}", split.read, split.kept, split.dropped))
    parts.append(facts([
        ("samples", count(split.samples)), ("tokens", count(split.tokens)), ("trained", _share(split.trained_tokens, split.tokens)),
        ("packed rows", None if split.rows is None else count(split.rows)),
        ("context", None if split.context is None else f"{count(split.context)} tokens"),
        ("fill", None if split.fill is None else percent(split.fill))]))
    if split.rows and split.context:
        parts.append(_fill_bar(name, split, split.rows * split.context))
    if split.lengths is not None and split.lengths.counts:
        chart = histogram(split.lengths.edges, split.lengths.counts, title=f"Sample lengths, {name}", x_label="tokens per sample",
                          y_label="samples")
        parts.append(figure(chart))
    return tag("div", *parts)


def _fill_bar(name: str, split: SplitTokens, places: int) -> Html:
    bar = [Part("trained", split.trained_tokens, "trained-part"),
           Part("context only", split.tokens - split.trained_tokens, "context-part"),
           Part("empty", max(0, places - split.tokens), "empty-part")]
    key = legend({f"{part.name} {_percent_of(part.value, places)}": part.class_ for part in bar})
    return figure(stacked_bar(bar, title=f"Use of the packed rows, {name}", unit="tokens"),
                  f"Where the {count(places)} places of the packed rows go.", key=key)


def _tokens_table(splits: Mapping[str, SplitTokens]) -> Html | None:
    rows = [[task, name, count(numbers.get("samples")), count(numbers.get("tokens")), count(numbers.get("trained_tokens")),
             _percent_of(numbers.get("trained_tokens", 0), numbers.get("tokens", 0))]
            for name, split in splits.items() for task, numbers in split.per_task.items()]
    columns = [Column("task", numeric=False), Column("split", numeric=False), Column("samples"), Column("tokens"),
               Column("trained tokens"), Column("share trained")]
    return table(columns, rows) if rows else None


def _share(part: int, whole: int) -> str:
    return f"{count(part)} ({_percent_of(part, whole)})"


def _percent_of(part: int, whole: int) -> str:
    return percent(part / whole, 1) if whole else MISSING


def samples_section(samples: tuple[TrainedSample, ...], anchor: str, title: str) -> Html:
    """Rendered samples with the trained spans coloured."""
    key = tag("ul", tag("li", tag("mark", "trained", class_="trained")), tag("li", tag("span", "context only")), class_="legend")
    return section(anchor, title, TRAINED_NOTE, key, *(_sample(sample) for sample in samples))


def _sample(sample: TrainedSample) -> Html:
    spans = [tag("mark", span.text, class_="trained") if span.trained else tag("span", span.text) for span in sample.spans]
    heading = tag("h3", tag("span", sample.task, class_="pill"), " ", tag("span", sample.id, class_="id"))
    origin = tag("p", sample.origin, class_="note") if sample.origin and sample.origin != sample.id else None
    return tag("article", joined([heading, origin, tag("pre", *spans, class_="sample", tabindex="0")]), class_="card")
