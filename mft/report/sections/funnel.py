"""The funnel of a synthesis: what is left after each step, and why the rest went."""

from mft.report.axes import at, figure
from mft.report.markup import Column, Html, notice, section, table, tag
from mft.report.records import FunnelStep, Synthesis
from mft.report.units import count


def funnel_section(synthesis: Synthesis, anchor: str, title: str) -> Html:
    """A bar a step, and the table behind it."""
    seeds = synthesis.funnel[0].kept if synthesis.funnel else 0
    lead = f"{count(seeds)} seeds, {count(synthesis.made)} rows made of them, {count(synthesis.kept)} kept."
    drawn = figure(_plot(synthesis), "Rows after each step.")
    return section(anchor, title, lead, *map(_fault, synthesis.funnel), drawn, _table(synthesis))


def _fault(step: FunnelStep) -> Html | None:
    """A notice where rows were lost in silence."""
    gone = step.kept + step.replaced + sum(step.dropped.values())
    if step.read + step.made == gone:
        return None
    return notice("bad", f"Step {step.step} does not add up:", f" {count(step.read)} read + {count(step.made)} made, but {count(gone)} "
                                                               "kept, replaced or dropped.")


def _plot(synthesis: Synthesis) -> Html:
    """Bars in the order of the steps, each in the middle of its line, so that their ends draw the funnel."""
    largest = max([step.kept for step in synthesis.funnel] or [0]) or 1
    rows = []
    for step in synthesis.funnel:
        width = 100 * step.kept / largest
        shape = tag("rect", tag("title", f"{step.step}: {count(step.kept)} rows"), x=at((100 - width) / 2), y="0", width=at(width),
                    height="100%", class_="bar")
        rows.append(tag("div", tag("span", step.step, class_="name"), tag("svg", shape, width="100%", height="14", aria_hidden="true"),
                        tag("span", count(step.kept), class_="value"), class_="bar-row"))
    return tag("div", *rows, class_="bars")


def _table(synthesis: Synthesis) -> Html:
    columns = [Column("step", numeric=False), Column("in"), Column("made"), Column("kept"), Column("share kept"),
               Column("dropped", numeric=False)]
    return table(columns, [_row(step) for step in synthesis.funnel])


def _row(step: FunnelStep) -> list[str]:
    candidates = step.read + step.made - step.replaced
    most_first = sorted(step.dropped.items(), key=lambda each: (-each[1], each[0]))
    reasons = ", ".join(f"{reason} {count(number)}" for reason, number in most_first)
    return [step.step, count(step.read), count(step.made) if step.made else "", count(step.kept),
            f"{step.kept / candidates:.1%}" if candidates else "", reasons or "none"]
