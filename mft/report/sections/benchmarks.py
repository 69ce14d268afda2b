"""Scores on a code benchmark: the table, the pairs, where they stand among published ones, and every problem with its answers."""

import json
from collections.abc import Sequence
from typing import Any

from mft.report.benchmarks import AnsweredProblem, BenchmarkEvaluation, BenchmarkScore
from mft.report.markup import Column, Html, facts, joined, notice, section, table, tag
from mft.report.units import MISSING, count

TITLES = {"humaneval": "HumanEval", "humaneval-plus": "HumanEval+", "humaneval-x": "HumanEval-X", "humaneval-zh": "HumanEval in Chinese",
          "mbpp": "MBPP", "mbpp-plus": "MBPP+", "spider": "Spider's questions on made-up rows"}
SHORT_HASH = 12


def title_of(evaluation: BenchmarkEvaluation) -> str:
    """The benchmark's name as people write it."""
    return TITLES.get(evaluation.benchmark, evaluation.benchmark)


def percent(share: float) -> str:
    """One decimal: 74.4%."""
    return f"{100 * share:.1f}%"


def benchmark_section(evaluation: BenchmarkEvaluation, anchor: str) -> Html:
    """Scores with intervals and protocol, the paired comparisons, the published table."""
    first = evaluation.scores[0]
    lead = (f"Answers to {count(len(first.correct))} problems, judged by running them. pass@1 is the chance that one answer passes all "
            "tests of its problem; the interval is of 95%.")
    return section(anchor, title_of(evaluation), lead, _near_zero(evaluation), _scores(evaluation), _pairs(evaluation),
                   _published(evaluation), _rules(first), _card(evaluation))


def _near_zero(evaluation: BenchmarkEvaluation) -> Html | None:
    if all(score.pass_at["pass@1"] <= 0.02 for score in evaluation.scores):
        return notice("plain", "pass@1 is near 0.", " So few problems are solved that the scores cannot tell the models apart; the "
                      "held-out loss can.")
    return None


def _scores(evaluation: BenchmarkEvaluation) -> Html:
    others = sorted({key for score in evaluation.scores for key in score.pass_at} - {"pass@1"}, key=lambda key: int(key[5:]))
    columns = [Column("model", numeric=False), Column("pass@1"), Column("passed"), Column("95% interval"), *map(Column, others)]
    if any(score.base for score in evaluation.scores):
        columns.append(Column("base tests alone"))
    columns += [Column("answers cut at the limit"), Column("judged inside")]
    rows = []
    for score in evaluation.scores:
        cells: list[object] = [score.name, percent(score.pass_at["pass@1"]), f"{count(score.passed)} of {count(score.total)}",
                               tag("td", f"{percent(score.ci95[0])} to {percent(score.ci95[1])}", class_="number", title=score.ci95_method)]
        cells += [percent(score.pass_at[key]) if key in score.pass_at else MISSING for key in others]
        if any(each.base for each in evaluation.scores):
            cells.append(percent(score.base["pass@1"]) if score.base else MISSING)
        cut = ((score.generation or {}).get("endings") or {}).get("length")
        inside = sum(len(ids) for ids in (score.judge.get("judged_inside") or {}).values())
        rows.append([*cells, MISSING if score.generation is None else count(cut or 0), count(inside)])
    return table(columns, rows, class_="results")


def _pairs(evaluation: BenchmarkEvaluation) -> Html | None:
    if not evaluation.comparisons:
        return None
    base = evaluation.scores[0].name
    columns = [Column("model", numeric=False), Column("both pass"), Column("gained"), Column("lost"), Column("p"),
               Column("problems that flipped", numeric=False)]
    rows = []
    for name, pair in evaluation.comparisons.items():
        flips = [f"+{each}" for each in pair["gained"]] + [f"\u2212{each}" for each in pair["lost"]]
        rows.append([name, count(pair["both"]), count(len(pair["gained"])), count(len(pair["lost"])), f"{pair['p']:.3g}",
                     ", ".join(flips) or "none"])
    return joined([tag("h3", f"Problem by problem against {base}"), table(columns, rows),
                   tag("p", "p: McNemar's exact test, two-sided, over the problems that flipped.", class_="note")])


def _published(evaluation: BenchmarkEvaluation) -> Html | None:
    if not evaluation.published:
        return None
    columns = [Column("model", numeric=False), Column("pass@1, %"), Column("protocol", numeric=False), Column("source", numeric=False)]
    rows = [[tag("strong", row["model"]) if row["ours"] else row["model"], f"{row['percent']:.1f}", row["protocol"], row["source"]]
            for row in evaluation.published]
    return tag("details", tag("summary", "Among published scores"), table(columns, rows),
               tag("p", "Published scores were made with other rules than this one, mostly unstated: the same answers score points apart "
                        "by rule of extraction, joining, imports and test file.", class_="note"))


def _rules(score: BenchmarkScore) -> Html:
    protocol = score.protocol
    summary = facts([("protocol", f"{protocol['name']} ({str(protocol.get('sha256'))[:SHORT_HASH]})"),
                     ("tests", f"{score.problem_file['file']} ({score.problem_file['sha256'][:SHORT_HASH]})"),
                     ("only the first", score.problem_file.get("first")),
                     ("timeout", f"{protocol['timeout_s']:g} s"), ("isolation", score.judge.get("isolation")),
                     ("tests run", {"separate": "in a process of their own", "inside": "beside the solution"}.get(
                         str(score.judge.get("mode"))))])
    text = json.dumps({"protocol": protocol, "judge": score.judge, "generation": score.generation}, indent=2, ensure_ascii=False)
    return joined([summary, tag("details", tag("summary", "Protocol, judge and decoding in full"),
                                tag("pre", tag("span", text), tabindex="0"))])


def _card(evaluation: BenchmarkEvaluation) -> Html | None:
    if not evaluation.card:
        return None
    return tag("details", tag("summary", "Rows for a model card"), tag("pre", tag("span", "\n".join(evaluation.card)), tabindex="0"))


def problems_section(evaluation: BenchmarkEvaluation, anchor: str) -> Html | None:
    """Every problem: its prompt, each model's answer, and what failed. Closed until it is opened."""
    by_problem: dict[str, list[tuple[str, AnsweredProblem]]] = {}
    for score in evaluation.scores:
        for answer in score.answers:
            by_problem.setdefault(answer.id, []).append((score.name, answer))
    if not by_problem:
        return None
    lead = "What was asked, what was answered and what failed. Of several samples of a problem, the first that failed."
    return section(anchor, "Problems", lead, *(_problem(name, answers) for name, answers in by_problem.items()))


def _problem(name: str, answers: Sequence[tuple[str, AnsweredProblem]]) -> Html:
    marks = ", ".join(f"{model}: {_verdict(answer)}" for model, answer in answers)
    panes = [_answer(model, answer) for model, answer in answers]
    return tag("details", tag("summary", tag("span", name, class_="id"), f"  {marks}"), _pane("prompt", answers[0][1].prompt),
               tag("div", *panes, class_="panes"))


def _verdict(answer: AnsweredProblem) -> str:
    if answer.samples > 1:
        return f"{answer.passed} of {answer.samples} passed"
    return "passed" if answer.passed else answer.status


def _answer(model: str, answer: AnsweredProblem) -> Html:
    failed: Any = tag("p", tag("span", _verdict(answer), class_="fall" if answer.passed == answer.samples else "rise"),
                      f": {answer.detail}" if answer.detail else None, class_="note")
    return tag("div", _pane(model, answer.completion), failed)


def _pane(title: str, text: str) -> Html:
    # The span keeps a newline at the start of the text: the parser drops one right after <pre>.
    shown = tag("pre", tag("span", text), tabindex="0") if text else tag("p", "(empty)", class_="note")
    return tag("div", tag("h4", title), shown, class_="pane")
