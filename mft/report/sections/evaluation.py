"""Before and after: held-out loss per task, the verdict, and what the models write."""

import json
import math
from collections.abc import Sequence

from mft.report.axes import figure, legend
from mft.report.charts import Change, before_after
from mft.report.markup import Column, Html, joined, notice, section, table, tag
from mft.report.records import Evaluation, Generation, Held, PairedDifference, Run
from mft.report.units import MISSING, count, decimal, difference

ALL = "all tasks"


def evaluation_section(run: Run, evaluation: Evaluation, anchor: str) -> Html:
    """The verdict, a chart of the change, and the table."""
    base, after = evaluation.models[0], evaluation.models[-1]
    lead = (f"Loss on held-out rows that no training step saw: the mean negative log-likelihood of the answer tokens, in nats. "
            f"Lower is better. Every model reads the same rows, so the differences to {base} are paired.")
    return section(anchor, "Before and after", lead, _verdict(evaluation), _change_chart(evaluation, base, after),
                   _table(run, evaluation), _distances(evaluation),
                   tag("p", "± is one standard error of the paired difference. ↓ and ↑ mark a change larger than that; "
                            "≈ one that is not; a single row has no standard error. Perplexity is exp(loss). "
                            "Point at a number to see all its digits.", class_="note"),
                   _protocol(evaluation) if evaluation.protocol else None)


def role_of(run: Run, model: str) -> str:
    """What a model of an evaluation is, beside its name: `base`, or the product of the stage of that name."""
    return {"train": "adapter", "merge": "merged"}.get(run.kind_of(model) or "", model)


def change_class(change: PairedDifference) -> str:
    """`fall` or `rise` where the mean is further from zero than its standard error, else (or without an error) `same`."""
    if change.se is None or not abs(change.mean) > change.se:
        return "same"
    return "fall" if change.mean < 0 else "rise"


def change_text(change: PairedDifference) -> str:
    """The difference with a sign that does not lean on colour."""
    text = difference(change.mean, change.se)
    return text if change.se is None else {"fall": "↓", "rise": "↑", "same": "≈"}[change_class(change)] + "\u00a0" + text


def _verdict(evaluation: Evaluation) -> Html | None:
    verdict = evaluation.verdict
    if verdict is None:
        return None
    remarks = tag("ul", *(tag("li", remark) for remark in (*verdict.faults, *verdict.notes)))
    if len(evaluation.models) == 1:
        return notice("plain", "One model, nothing to compare.")
    if verdict.ok:
        return notice("good", "Check passed.", " The loss fell over all tasks and rose on none, beyond what chance explains.",
                      remarks if verdict.notes else None)
    return notice("bad", "Check failed.", remarks)


def _protocol(evaluation: Evaluation) -> Html:
    text = json.dumps(evaluation.protocol, indent=2, ensure_ascii=False)
    return tag("details", tag("summary", "Protocol"), tag("pre", tag("span", text), tabindex="0"))


def _rows(evaluation: Evaluation) -> dict[str, Held]:
    return evaluation.tasks if evaluation.overall is None else {**evaluation.tasks, ALL: evaluation.overall}


def _change_chart(evaluation: Evaluation, base: str, after: str) -> Html | None:
    changes = {}
    for task, held in _rows(evaluation).items():
        old, new = held.loss.get(base), held.loss.get(after)
        if old is not None and new is not None and math.isfinite(old) and math.isfinite(new):
            change = held.difference.get(after)
            changes[task] = Change(old, new, "same" if change is None else change_class(change))
    if not changes or base == after:
        return None
    chart = before_after(changes, title=f"Held-out loss of {base} and {after}", x_label="held-out loss (nats per trained token)",
                         before=base, after=after)
    return figure(chart, None, key=legend({base: "ring-mark", after: "dot-mark"}))


def _table(run: Run, evaluation: Evaluation) -> Html:
    base, after = evaluation.models[0], evaluation.models[-1]
    changed = [model for model in evaluation.models[1:] if any(model in held.difference for held in _rows(evaluation).values())]
    columns = [Column("task", numeric=False), Column("rows"), Column("trained tokens")]
    columns += [Column(_title(run, model), group="loss") for model in evaluation.models]
    columns += [Column(_title(run, model), group=f"change from {base}") for model in changed]
    columns += [Column(_title(run, model), group="perplexity") for model in dict.fromkeys((base, after))]
    rows = [_cells(task, held, evaluation.models, changed) for task, held in evaluation.tasks.items()]
    foot = _cells(ALL, evaluation.overall, evaluation.models, changed) if evaluation.overall else None
    return table(columns, rows, foot=foot, class_="results")


def _distances(evaluation: Evaluation) -> Html | None:
    """How far the models' next-token distributions are from one of them."""
    far = evaluation.divergence
    if far is None:
        return None
    columns = [Column("model", numeric=False), Column("KL (nats)"), Column("same first token"), Column("perplexity on these rows")]
    rows = [[name, f"{one['kl']:.5f} \u00b1 {one['kl_standard_error']:.5f}", f"{100 * one['top1_agreement']:.2f}%",
             decimal(one["perplexity"], 3)] for name, one in far["models"].items()]
    return joined([tag("h3", f"Distance from {far['reference']}"), table(columns, rows),
                   tag("p", f"Mean KL divergence of a model's next-token distribution from that of {far['reference']}, over "
                            f"{count(far['tokens'])} trained tokens, with its standard error; how often both say the same token first.",
                       class_="note")])


def _title(run: Run, model: str) -> Html:
    role = role_of(run, model)
    return joined([model, None if role == model else tag("small", role)])


def _cells(task: str, held: Held, models: Sequence[str], changed: Sequence[str]) -> list[object]:
    cells: list[object] = [task, count(held.rows), count(held.tokens)]
    cells += [_exact(held.loss.get(model)) for model in models]
    for model in changed:
        change = held.difference.get(model)
        cells.append(MISSING if change is None else tag(
            "td", change_text(change), class_=f"number {change_class(change)}", title=f"{change.mean!r} ± {change.se!r}"))
    cells += [_perplexity(held.loss.get(model)) for model in dict.fromkeys((models[0], models[-1]))]
    return cells


def _exact(value: float | None) -> Html:
    return tag("td", decimal(value), class_="number", title=None if value is None else repr(value))


def _perplexity(loss: float | None) -> str:
    if loss is None or not math.isfinite(loss) or loss > 700:
        return MISSING
    return decimal(math.exp(loss), 3)


def generations_section(generations: Sequence[Generation], anchor: str) -> Html:
    """Each held-out prompt with its reference and what every model wrote."""
    cards: dict[tuple[str, str], list[Generation]] = {}
    for each in generations:
        cards.setdefault((each.task, each.id), []).append(each)
    return section(anchor, "Generations", "What the models write for held-out prompts, as the decoder returned it.",
                   *(_card(same) for same in cards.values()))


def _card(same: list[Generation]) -> Html:
    first = same[0]
    panes = [] if first.reference is None else [_pane("reference", first.reference)]
    panes += [_pane(each.model + (", cut at the token limit" if each.finish_reason == "length" else ""), each.completion)
              for each in same]
    return tag("article", tag("h3", tag("span", first.task, class_="pill"), " ", tag("span", first.id, class_="id")),
               _pane("prompt", first.prompt), tag("div", *panes, class_="panes"), class_="card")


def _pane(title: str, text: str) -> Html:
    # The span keeps a newline at the start of the text: the parser drops one right after <pre>.
    shown = tag("pre", tag("span", text), tabindex="0") if text else tag("p", "(empty)", class_="note")
    return joined([tag("div", tag("h4", title), shown, class_="pane")])
