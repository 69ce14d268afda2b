"""`mft evaluate score`, `check` and `compare`: judge given completions, the benchmark itself, two scores."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.evaluate_options import Inside, Isolation, Ks, Overwrite, Problems, ProtocolName, Rules, Unsafe, Workers, exam, numbers, shown
from mft.cli.outcome import Outcome, Table

Benchmark = Annotated[str, typer.Argument(help="humaneval, humaneval-plus, humaneval-x, humaneval-zh, mbpp, mbpp-plus, spider")]


def score(
    benchmark: Benchmark,
    samples: Annotated[Path, typer.Option(help="JSON lines, plain or gzip: task_id with completion, solution, generation or samples")],
    protocol: ProtocolName,
    rules: Rules = None,
    problems: Problems = None,
    k: Ks = "1",
    id_column: Annotated[str | None, typer.Option(help="the key of a row that names the problem; default: the usual ones")] = None,
    answer_column: Annotated[str | None, typer.Option(help="the key that holds the answer; default: the usual ones")] = None,
    own_prompt: Annotated[bool, typer.Option("--own-prompt", help="join each completion with the prompt of its own row")] = False,
    out: Annotated[Path | None, typer.Option(help="folder for evaluation.json and the verdicts; a killed run goes on there")] = None,
    workers: Workers = None,
    isolation: Isolation = "auto",
    unsafe: Unsafe = False,
    inside: Inside = False,
    overwrite: Overwrite = False,
) -> Outcome:
    """Judge the completions of a file under a protocol. The score names its protocol, test file and interval."""
    from mft.evaluation.completions import Columns
    from mft.runs.benchmark import score_file

    asked = exam(benchmark, protocol, problems, rules, workers=workers, isolation=isolation, unsafe=unsafe, inside=inside)
    return shown(score_file(asked, samples, ks=numbers(k), columns=Columns(id_column, answer_column), own_prompt=own_prompt, out=out,
                            overwrite=overwrite))


def check(
    benchmark: Benchmark,
    protocol: ProtocolName,
    rules: Rules = None,
    problems: Problems = None,
    limit: Annotated[int | None, typer.Option(min=1, help="the first so many problems alone")] = None,
    workers: Workers = None,
    isolation: Isolation = "auto",
    unsafe: Unsafe = False,
    inside: Inside = False,
) -> Outcome:
    """Canonical solutions must all pass and bodies that do nothing must all fail, through the whole protocol; else exit code 3."""
    from mft.runs.benchmark import check_benchmark

    return shown(check_benchmark(exam(benchmark, protocol, problems, rules, workers=workers, isolation=isolation, unsafe=unsafe,
                                      inside=inside, limit=limit)))


def compare(
    a: Annotated[Path, typer.Argument(help="an evaluation.json, or the folder that holds it")],
    b: Annotated[Path, typer.Argument(help="another, of the same problems")],
) -> Outcome:
    """Pair two scores problem by problem: McNemar's exact test, and every problem that flipped."""
    from mft.runs.benchmark import compare_scores

    found = compare_scores(a, b)
    rows = [[head["name"], head["protocol"], f"{head['pass@1']:.1%}", str(head["passed"])] for head in (found["a"], found["b"])]
    lines = [f"both {found['both']}, neither {found['neither']}; B gains {len(found['gained'])}, loses {len(found['lost'])}: "
             f"p = {found['p']:.4f} (McNemar, exact, two-sided)",
             f"gained: {', '.join(found['gained']) or 'none'}", f"lost: {', '.join(found['lost']) or 'none'}"]
    if not found["same_judging"]:
        lines.append("the two were judged by different rules: the difference may be theirs")
    return Outcome(found, [Table("", ["score", "protocol", "pass@1", "passed"], rows), *lines])
