"""Sizes, memory and fits of a matrix before anything is loaded, and what of it no quantiser could make."""

from collections.abc import Sequence
from typing import Any

from mft.errors import ConfigError
from mft.modeling.shape import Shape, shape_of
from mft.quantization.config import CALIBRATED, AwqJob, GgufJob, GptqJob, Job, NearestJob, Nf4Job, QuantizeOptions, settings_of
from mft.quantization.size import bnb_bytes, fit_table, full_bytes, grid_bytes, host_bytes, quantising_bytes, serving_bytes

SERVED = 4096
"""Context of the memory for serving that a dry run names."""


def predicted_bytes(shape: Shape, job: Job) -> int:
    """Bytes of a job's weights, from the model's shape alone."""
    match job:
        case GptqJob() | NearestJob():
            return grid_bytes(shape, job.bits, job.group_size)
        case AwqJob():
            return grid_bytes(shape, 4, job.group_size) - 4 * shape.layers * sum(inputs for inputs, _ in shape.linear.values())
        case GgufJob():
            return full_bytes(shape) if job.type != "q8_0" else shape.parameters * 34 // 32
        case Nf4Job():
            return bnb_bytes(shape, "nf4", double_quant=job.double_quant)
        case _:
            return bnb_bytes(shape, "int8")


def preview(config: dict[str, Any], options: QuantizeOptions) -> dict[str, Any]:
    """Sizes, memory and the fit table of every job from config.json alone.

    Raises:
        ModelError, ConfigError: a model whose shape is not known; a job that does not go with it.
    """
    shape = shape_of(config)
    check_jobs(shape, options.jobs)
    rows, tokens = options.calibration.rows, min(options.calibration.max_tokens, int(config.get("max_position_embeddings") or 4096))
    jobs = []
    for name, job in zip(options.names, options.jobs, strict=True):
        size = predicted_bytes(shape, job)
        jobs.append({"name": name, **settings_of(job), "bytes": size, "perplexity": None,
                     "quantising_bytes": quantising_bytes(shape, rows, tokens) if job.method in CALIBRATED else None,
                     "serving_bytes": serving_bytes(size, shape, SERVED), "fits": [fit.to_json() for fit in fit_table(size, shape)]})
    return {"dry_run": True, "warnings": uneven_groups(shape, options.jobs), "unquantised_bytes": full_bytes(shape),
            "serving_context": SERVED,
            "host_bytes": host_bytes(shape, rows, tokens),
            "unquantised_fits": [fit.to_json() for fit in fit_table(full_bytes(shape), shape)], "jobs": jobs}


def uneven_groups(shape: Shape, jobs: Sequence[Job]) -> list[str]:
    """Jobs whose groups do not divide the inputs of a module: such a folder is packed, and not loaded by every engine.

    gptqmodel's int4 kernel for CPUs refuses it ("expect K to be divisible by qGroupSize"); its torch kernel computes it.
    """
    warnings = []
    for job in jobs:
        group = getattr(job, "group_size", None) or -1
        odd = [f"{name} ({inputs})" for name, (inputs, _) in shape.linear.items() if group > 0 and inputs % group]
        if odd:
            warnings.append(f"{job.label}: {group} does not divide the inputs of {', '.join(odd)}: the last group is smaller, which some "
                            "engines refuse to load")
    return warnings


def check_jobs(shape: Shape, jobs: Sequence[Job]) -> None:
    """Refuse what no quantiser can pack.

    Raises:
        ConfigError: every job whose bits or groups do not go with the model's linear modules.
    """
    faults = []
    for number, job in enumerate(jobs):
        group = getattr(job, "group_size", -1) or -1
        odd = [f"{name} ({inputs} x {outputs})" for name, (inputs, outputs) in shape.linear.items() if inputs % 32 or outputs % 32]
        if isinstance(job, GptqJob | NearestJob) and odd:
            faults.append(f"jobs.{number}: {job.label}: {', '.join(odd)}: inputs and outputs must be multiples of 32 to be packed")
        narrowest = min(inputs for inputs, _ in shape.linear.values())
        if group > narrowest:
            faults.append(f"jobs.{number}: {job.label}: a group of {group}, but the model has modules of {narrowest} inputs; take at most "
                          f"{narrowest}, or -1")
    if faults:
        raise ConfigError(faults)
