"""A plan as a person reads it: lines of text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mft.runs.planning import StagePlan

PARTS = {
    "weights": "the base", "adapters": "trained weights, float32", "gradients": "of the trained weights, float32",
    "optimizer": "its states", "communication": "buffers of the engine", "activations": "kept for the backward pass",
    "logits": "the head, tile by tile, for a moment", "workspace": "one layer's backward pass, for a moment",
    "runtime": "beside the tensors"}


def plan_parts(plans: Sequence[StagePlan], measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All stages, one after the other."""
    return [line for plan in plans for line in (*_stage_lines(plan), *_measured_lines(measured.get(plan.name)), "")][:-1]


def headline(plan: StagePlan) -> str:
    """A plan in one line, as the shipped configs quote it.

    Such as `H200: 52.1 of 150.8 GB, fits; full recomputation; 2 rows of 4,096 tokens at once`.
    """
    verdict = "fits" if plan.fits else "does not fit"
    rows = f"{plan.micro_batch_rows} row{'s' * (plan.micro_batch_rows > 1)} of {plan.context:,} tokens at once"
    return f"{plan.device.name}: {_gb(plan.memory.total)} of {_gb(plan.device.memory_bytes)} GB, {verdict}, {plan.recompute}, {rows}"


def _stage_lines(plan: StagePlan) -> Iterator[str]:
    each = f" on each of {plan.devices}" if plan.devices > 1 else ""
    yield f"stage '{plan.name}'{each}: {headline(plan)}"
    yield f"  base: {plan.base}"
    yield f"  attention: {plan.attention}" + ("; sdpa would hold a mask in every layer besides" if "flash" in plan.attention else "")
    parts = plan.memory.to_json()
    for name, meaning in PARTS.items():
        yield f"  {name:<14} {parts[name] / 1e9:>8.2f} GB   {meaning}"
    yield f"  {'total':<14} {parts['total'] / 1e9:>8.2f} GB   with the larger of logits and workspace; 5% more must be free"
    if plan.cache_bytes:
        yield f"  disk: {plan.cache_bytes / 1e9:.2f} GB for the base in NF4 (model.quantized_cache)"
    yield from _time_lines(plan)
    yield from _choice_lines(plan)


def _choice_lines(plan: StagePlan) -> Iterator[str]:
    yield "  what else: micro-batch x context, GB without and with recomputation (* does not fit)"
    own = plan.others[0].distributed
    for engine, rows, context in dict.fromkeys((choice.distributed, choice.micro_batch_rows, choice.context) for choice in plan.others):
        shown = [f"{_gb(choice.memory.total)}{'' if choice.memory.fits(plan.device.memory_bytes) else '*'}" for choice in plan.others
                 if (choice.distributed, choice.micro_batch_rows, choice.context) == (engine, rows, context)]
        zero = f", zero_stage {engine.stage}" if engine.stage else ""
        yield f"    {rows:>2} x {context:<6,} {shown[0]:>8} {shown[1]:>8}" + ("" if engine is own else f"   with {engine.engine}{zero}")


def _time_lines(plan: StagePlan) -> Iterator[str]:
    time = plan.time
    steps = "unknown" if time.steps is None else f"{time.steps:,}"
    yield (f"  {steps} steps of {plan.tokens_per_step:,} tokens at most, {plan.accumulation} micro-batch{'es' * (plan.accumulation > 1)} "
           f"a step on each device; data: {plan.work.source}")
    if time.bound_tokens_per_s is not None:
        hours = "" if time.hours_at_the_bound is None else f", so at least {_hours(time.hours_at_the_bound)}"
        yield f"  bound: {time.bound_tokens_per_s:,.0f} tokens/s if all arithmetic ran at the data sheet's peak{hours}"
    if time.tokens_per_s is None:
        yield "  hours and cost need --tokens-per-second or --calibrate"
    elif time.hours is not None:
        cost = "" if time.cost is None else f", cost {time.cost:,.0f}"
        yield f"  at {time.tokens_per_s:,.0f} tokens/s: {_hours(time.hours)}, {time.device_hours:,.1f} device hours{cost}"


def _measured_lines(facts: Mapping[str, Any] | None) -> Iterator[str]:
    if facts:
        predicted = facts["predicted_bytes"]
        beside = "" if predicted is None else f", predicted {predicted / 1e9:.2f} GB"
        yield (f"  measured here in {facts['steps']} steps: {facts['tokens_per_s']:,.0f} tokens/s, "
               f"{facts['measured_bytes'] / 1e9:.2f} GB{beside}")


def _gb(number: int) -> str:
    return f"{number / 1e9:.1f}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
