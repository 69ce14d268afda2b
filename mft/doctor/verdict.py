"""The checks as one answer: whether all is well, for programs and for people."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from mft.doctor.capabilities import CAPABILITIES, Capability, capabilities
from mft.doctor.examine import Checked
from mft.doctor.finding import Check, fault
from mft.doctor.registry import CHECKS
from mft.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Verdict:
    """Every check, what the machine can do, and how long it took to find out."""

    checks: Sequence[Checked]
    capabilities: Sequence[Capability]
    seconds: float

    @property
    def faults(self) -> list[Checked]:
        """The checks that found a fault."""
        return [check for check in self.checks if check.state == "fault"]

    def to_json(self) -> dict[str, Any]:
        """As `mft doctor --json` has it."""
        return {"ok": not self.faults, "checks": [check.to_json() for check in self.checks],
                "capabilities": [capability.to_json() for capability in self.capabilities], "seconds": round(self.seconds, 2)}

    def lines(self) -> list[str]:
        """What a person reads: each check with its remedy, then what can and cannot be done here."""
        wide = max(len(check.name) for check in self.checks)
        out = []
        for check in self.checks:
            out.append(f"{check.state:<8} {check.name:<{wide}}  {check.finding.found}")
            if check.finding.remedy:
                out.append(f"{'':<8} {'':<{wide}}  -> {check.finding.remedy}")
        can = [f"  {one.does}: {one.why}" for one in self.capabilities if one.can]
        cannot = [line for one in self.capabilities if not one.can for line in _cannot(one)]
        return [*out, "", *(["this machine can:", *can] if can else []), *(["this machine cannot:", *cannot] if cannot else [])]

    def summary(self) -> str:
        """The message of a doctor that found faults: each check, what it found, its remedy."""
        faults = self.faults
        return "\n".join([f"{len(faults)} of {len(self.checks)} checks found a fault",
                          *(f"  {check.name}: {check.finding.found}\n    -> {check.finding.remedy}" for check in faults)])


def make_verdict(checked: Sequence[Checked], needs: Iterable[str], seconds: float) -> Verdict:
    """The verdict over finished checks. A capability in `needs` that cannot be had is a fault of a check of its own."""
    found = capabilities(checked)
    wanted = set(needs)
    lacking = [Checked(f"need {one.name}", fault(f"{one.does} is needed (--need) and cannot be had: {one.why}", one.remedy), 0.0)
               for one in found if one.name in wanted and not one.can]
    return Verdict([*checked, *lacking], found, seconds)


def choose_checks(only: Sequence[str], needs: Sequence[str]) -> list[Check]:
    """The checks to make: all, or those named in `only` and those that the capabilities in `needs` rest on.

    Raises:
        ConfigError: each name that is not known.
    """
    known = {check.name: check for check in CHECKS}
    problems = [*_unknown("--only", "check", only, list(known)), *_unknown("--need", "capability", needs, list(CAPABILITIES))]
    if problems:
        raise ConfigError(problems)
    wanted = {*only, *(name for need in needs for name in CAPABILITIES[need].rests_on)}
    return [check for check in CHECKS if not only or check.name in wanted]


def _unknown(flag: str, what: str, given: Sequence[str], allowed: Sequence[str]) -> list[str]:
    problems = []
    for name in given:
        if name not in allowed:
            close = get_close_matches(name, allowed, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            problems.append(f"{flag}: '{name}' is not a {what}; allowed: {', '.join(allowed)}{hint}")
    return problems


def _cannot(one: Capability) -> list[str]:
    return [f"  {one.does}: {one.why}", *([f"    -> {one.remedy}"] if one.remedy else [])]
