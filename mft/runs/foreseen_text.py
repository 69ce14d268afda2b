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
    running = sum(stage["state"] == "runs" for stage in facts["stages"])
    beside = f"; not counted is the time of {', '.join(facts['not_counted'])}" if facts["not_counted"] else ""
    more = f" and what {facts['disk_not_known']} more will take" if facts["disk_not_known"] else ""
    return (f"{running} of {len(facts['stages'])} stages run. {_training(facts)}{beside}. Disk: {size(facts['disk_bytes'])}{more}, in "
            f"{facts['out']}")


def _training(facts: dict[str, Any]) -> str:
    trains = [stage for stage in facts["stages"] if stage["kind"] == "train" and "forecast" in stage]
    if not trains:
        return "No training"
    if facts["hours"] is not None:
        return f"Training: {facts['hours']:.1f} hours" + ("" if facts["cost"] is None else f", cost {facts['cost']:,.0f}")
    if unknown := [stage["name"] for stage in trains if stage.get("steps") is None]:
        return f"Hours are not known before data is encoded: `mft train CONFIG --stage {unknown[0]} --dry-run`"
    return "Hours are not known without --tokens-per-second, which `mft plan CONFIG --calibrate` measures"
