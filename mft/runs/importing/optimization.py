"""Names that transformers' Trainer and the tools around it share: learning-rate schedules and optimizers."""

from typing import Final

from mft.runs.importing.draft import TRAIN, Draft

TRAINING: Final = TRAIN + "training."
SCHEDULES: Final = {"cosine": "cosine", "linear": "linear", "constant": "constant", "constant_with_warmup": "constant",
                    "cosine_with_min_lr": "cosine"}
OPTIMIZERS: Final = {
    "adamw": "adamw", "adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adamw_hf": "adamw", "adamw_apex_fused": "adamw",
    "adamw_bnb_8bit": "adamw_8bit", "adamw_8bit": "adamw_8bit", "adamw_torch_8bit": "adamw_8bit",
    "paged_adamw": "paged_adamw", "paged_adamw_32bit": "paged_adamw", "paged_adamw_8bit": "paged_adamw_8bit",
}
"""Names of transformers and axolotl -> ours."""


def map_schedule(draft: Draft, key: str, default: str) -> str:
    """The shape of the learning rate; returns the other tool's name of it."""
    name = draft.source.text(key) or default
    ours = SCHEDULES.get(name.lower())
    if not draft.source.has(key):
        draft.assume(TRAINING + "schedule", ours, f"default of {draft.tool}")
    elif ours:
        draft.map(key, TRAINING + "schedule", ours)
    else:
        draft.drop(key, f"schedules here: cosine, linear, constant; cosine is written in place of {name}")
        draft.set(TRAINING + "schedule", "cosine")
    return name.lower()


def map_warmup(draft: Draft, steps_key: str, ratio_key: str, schedule: str, *, default: float | None) -> None:
    """Warm-up as a number of steps or a share of them; steps count before the share, as in transformers.

    `default`: the share that the other tool takes where the file has neither, or None where ours is set by the caller.
    """
    source = draft.source
    steps, ratio = source.number(steps_key), source.number(ratio_key)
    ours = steps or ratio or 0
    if schedule == "constant" and ours:
        draft.note(f"{draft.tool}'s schedule constant has no warm-up, whatever the file says of one; its constant_with_warmup has.")
        ours = 0
    for key, value in ((steps_key, steps), (ratio_key, ratio)):
        if value is None:
            continue
        if key == ratio_key and steps:
            draft.ignore(key, f"{steps_key} counts before it")
        else:
            draft.map(key, TRAINING + "warmup", _number(ours))
    if steps is None and ratio is None and default is not None:
        draft.assume(TRAINING + "warmup", 0 if schedule == "constant" else default, f"default of {draft.tool}")


def map_floor(draft: Draft, key: str, floor: float, learning_rate: float, schedule: str) -> None:
    """The rate at which the schedule ends, which only a cosine has."""
    if not floor:
        draft.ignore(key, "0, as here")
    elif draft.get(TRAINING + "schedule") != "cosine":
        draft.drop(key, f"min_learning_rate acts with schedule: cosine only; the schedule is {schedule}")
    elif floor > learning_rate:
        draft.drop(key, f"{floor:g} is above the learning rate of {learning_rate:g}, where the schedule begins")
    else:
        draft.map(key, TRAINING + "min_learning_rate", floor)


def map_optimizer(draft: Draft, key: str, default: str) -> None:
    """The optimizer by its name; to be called when the engine is known."""
    name = draft.source.text(key) or default
    ours = OPTIMIZERS.get(name.lower())
    engine = draft.get(TRAIN + "distributed.engine")
    if not draft.source.has(key):
        draft.assume(TRAINING + "optimizer", ours, f"default of {draft.tool}")
        return
    if ours is None:
        draft.drop(key, f"optimizers here: adamw, adamw_8bit, paged_adamw, paged_adamw_8bit; adamw is written in place of {name}")
    elif ours != "adamw" and engine in ("deepspeed", "fsdp"):
        draft.drop(key, f"{engine} cannot shard the state of {ours}; adamw is written, whose state is sharded (or take engine: ddp)")
        ours = "adamw"
    else:
        draft.map(key, TRAINING + "optimizer", ours)
    draft.set(TRAINING + "optimizer", ours or "adamw")


def map_betas(draft: Draft, keys: tuple[str, str], default: tuple[float, float]) -> None:
    """Adam's two betas, which are one key here."""
    given = [draft.source.number(key) for key in keys]
    betas = [default[index] if value is None else value for index, value in enumerate(given)]
    for key, value in zip(keys, given, strict=True):
        if value is not None:
            draft.map(key, TRAINING + "betas", betas)
    if given == [None, None]:
        draft.assume(TRAINING + "betas", betas, f"default of {draft.tool}")


def map_epochs(draft: Draft, key: str, default: float) -> None:
    """Epochs are whole here: a fraction is rounded up, and said."""
    epochs = draft.source.number(key)
    if epochs is None:
        draft.assume(TRAINING + "epochs", int(default), f"default of {draft.tool}")
        return
    whole = max(1, -int(-epochs // 1))
    draft.map(key, TRAINING + "epochs", whole)
    if whole != epochs:
        draft.note(f"Epochs are whole numbers here: {epochs:g} became {whole}; set training.max_steps to stop earlier.")


def map_max_steps(draft: Draft, key: str) -> None:
    """A number of steps that overrides epochs; 0 and -1 mean none."""
    steps = draft.source.whole(key)
    if steps is not None and steps > 0:
        draft.map(key, TRAINING + "max_steps", steps)
    elif steps is not None:
        draft.ignore(key, "no limit of steps")


def map_batch(draft: Draft, micro_key: str, micro_default: int, accumulation_key: str) -> None:
    """Rows at once, times accumulation, times GPUs: the rows of an optimizer step."""
    source = draft.source
    micro, accumulation = source.whole(micro_key), source.whole(accumulation_key)
    for key, value in ((micro_key, micro), (accumulation_key, accumulation)):
        if value is not None and value < 1:
            source.refuse((key,), f"expected at least 1, found {value}")
    rows = (micro or micro_default) * (accumulation or 1) * draft.gpus
    if micro is None:
        draft.assume(TRAINING + "micro_batch_rows", micro_default, f"default of {draft.tool}")
    else:
        draft.map(micro_key, TRAINING + "micro_batch_rows", micro)
    if accumulation is not None:
        draft.map(accumulation_key, TRAINING + "global_batch_rows", rows)
    draft.set(TRAINING + "global_batch_rows", rows)
    how = f"{micro or micro_default} rows x {accumulation or 1} accumulated x {draft.gpus} GPU{'s' if draft.gpus > 1 else ''}"
    draft.comments[TRAINING + "global_batch_rows"] = how
    if not draft.gpus_given:
        draft.assume(TRAINING + "global_batch_rows", rows, f"{how}: for another number of GPUs say --gpus N", write=False)


def note_batch_of_samples(draft: Draft) -> None:
    """Say that a row holds several samples here."""
    draft.note(f"{draft.tool} put one sample into a row, here a row is packed with as many as fit (apart from each other): a step of as "
               "many rows sees more samples, and an epoch has fewer steps. `mft train CONFIG --dry-run` counts both; divide "
               "global_batch_rows by the samples of a row to keep the samples of a step.")


def _number(value: float) -> float:
    return int(value) if float(value).is_integer() else value
