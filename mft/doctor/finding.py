"""What a check found, and what a check is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mft.doctor.context import Context

State = Literal["ok", "warning", "fault", "skipped"]
WORST_FIRST: tuple[State, ...] = ("fault", "warning", "ok", "skipped")


@dataclass(frozen=True, slots=True)
class Finding:
    """`found`: one sentence. `remedy`: what to do about it, where there is something to do. `facts`: numbers and names for --json."""

    state: State
    found: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at. `run` may raise anything and may hang: either becomes a fault of this check alone."""

    name: str
    run: Callable[["Context"], Finding]
    time_limit_s: float = 20.0


def ok(found: str, **facts: Any) -> Finding:
    """Nothing to do."""
    return Finding("ok", found, "", facts)


def warning(found: str, remedy: str, **facts: Any) -> Finding:
    """Something that may bite, or a thing that this machine cannot do and nobody has asked for."""
    return Finding("warning", found, remedy, facts)


def fault(found: str, remedy: str, **facts: Any) -> Finding:
    """Something that will not work."""
    return Finding("fault", found, remedy, facts)


def skipped(found: str) -> Finding:
    """Not looked at, and why."""
    return Finding("skipped", found)


def together(findings: Sequence[Finding], passed: str, **facts: Any) -> Finding:
    """Several findings of one check as one: the worst state, every complaint, every remedy once; `passed` where all is well."""
    complaints = sorted((finding for finding in findings if finding.state in ("fault", "warning")),
                        key=lambda finding: WORST_FIRST.index(finding.state))
    if not complaints:
        return ok(passed, **facts)
    remedies = dict.fromkeys(finding.remedy for finding in complaints if finding.remedy)
    return Finding(complaints[0].state, "; ".join(finding.found for finding in complaints), "; ".join(remedies), facts)
