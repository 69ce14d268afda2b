"""A dry run of a project as a person reads it."""

from typing import Any

from mft.runs.forecast import size


def lines(facts: dict[str, Any]) -> list[str]:
    """Two lines a stage, and the sums."""
    stages = facts["stages"]
    wide = max(len(stage["name"]) for stage in stages)
    kinds = max(len(stage["kind"]) for stage in stages)
    out = []
    for stage in stages:
        out.append(f"{stage['name']:<{wide}}  {stage['kind']:<{kinds}}  {stage['state']}: {stage['why']}")
        if told := stage.get("forecast"):
            out.append(f"{'':<{wide}}  {told}{_time(stage)}")
    return [*out, "", _sums(facts)]


def _time(stage: dict[str, Any]) -> str:
    if stage["kind"] != "train" or stage["hours"] is None:
        return ""
    return f"; {stage['hours']:.1f} hours" + (f", cost {stage['cost']:,.0f}" if stage["cost"] is not None else "")


def _sums(facts: dict[str, Any]) -> str:
    trains = any(stage["kind"] == "train" and stage.get("forecast") for stage in facts["stages"])
    running = sum(stage["state"] == "runs" for stage in facts["stages"])
    hours = "not known (--tokens-per-second, or `mft plan --calibrate`)" if facts["hours"] is None else f"{facts['hours']:.1f} hours"
    cost = "" if facts["cost"] is None else f", cost {facts['cost']:,.0f}"
    beside = f"; evaluation and quantisation not counted: {', '.join(facts['not_counted'])}" if facts["not_counted"] else ""
    more = f" and what {facts['disk_not_known']} more will take" if facts["disk_not_known"] else ""
    training = f"Training: {hours}{cost}" if trains else "No training"
    return (f"{running} of {len(facts['stages'])} stages run. {training}{beside}. Disk: {size(facts['disk_bytes'])}{more}, in "
            f"{facts['out']}")
