"""How MFTCoder weighs its tasks: `weighted_loss_mode`, and the settings of the modes that measure."""

from typing import Final

from mft.runs.importing.draft import TRAIN, Draft

BALANCES: Final = {"case1": "token_mean", "case2": "sample_mean", "case3": "task_token_mean", "case4": "task_sample_mean", "coba": "coba",
                   "selfpaced": "self_paced"}


def map_balance(draft: Draft, tasks: list[str]) -> None:
    """The balance, and the tasks' weights. `tasks`: their names, in the order of data_paths."""
    source, tasks_key = draft.source, TRAIN + "tasks."
    mode = source.text("weighted_loss_mode")
    ours = BALANCES.get(mode or "case3")
    if mode is None:
        draft.assume(tasks_key + "balance", "task_token_mean", f"default of {draft.tool}: case3")
    elif ours is None:
        source.refuse(("weighted_loss_mode",), f"expected one of {', '.join(BALANCES)}, found '{mode}'")
    else:
        draft.map("weighted_loss_mode", tasks_key + "balance", ours)
    if ours in ("task_token_mean", "task_sample_mean", "coba", "self_paced"):
        draft.note("There the tasks of each micro-batch on each process were balanced among themselves (hardly at all at 1 or 2 rows); "
                   "here those of the whole optimizer step are: rare tasks weigh more than they did.")
    _weights(draft, tasks, ours or "")
    prefix = {"coba": "coba", "self_paced": "selfpaced"}.get(ours or "")
    for name in ("coba", "selfpaced"):
        if name == prefix:
            _probes(draft, name, len(tasks))
        else:
            for key in [key for key in source.document.data if key.startswith(f"{name}_") and source.has(key)]:
                draft.ignore(key, f"only with weighted_loss_mode: {name}")


def _weights(draft: Draft, tasks: list[str], balance: str) -> None:
    if not draft.source.has("task_weights"):
        return
    words = draft.source.words("task_weights") or []
    try:
        weights = [float(word) for word in words]
    except ValueError:
        weights = []
    if balance not in ("task_token_mean", "task_sample_mean"):
        draft.ignore("task_weights", f"weights act in case3 and case4, not with {balance}")
    elif len(weights) != len(tasks) or min(weights, default=0) <= 0:
        draft.drop("task_weights", f"{len(weights)} numbers above 0 for {len(tasks)} data paths; set tasks.weights by name")
    else:
        draft.map("task_weights", TRAIN + "tasks.weights", dict(zip(tasks, weights, strict=True)))


def _probes(draft: Draft, name: str, tasks: int) -> None:
    """CoBa's settings, and those of the self-paced weights before it."""
    block = f"{TRAIN}tasks.{'coba' if name == 'coba' else 'self_paced'}."
    draft.copy(f"{name}_{'update_interval' if name == 'coba' else 'interval'}", block + "every", "whole", 1)
    draft.copy(f"{name}_history_length", block + "history_probes", "whole", 200 if name == "coba" else 100)
    if name == "coba":
        draft.copy("coba_warmup_steps", block + "warmup_probes", "whole", 100)
        draft.copy("coba_tau", block + "tau", "number", 5)
    else:
        draft.copy("selfpaced_scale_factor", block + "scale", "number", 50)
    batches = draft.source.whole(f"{name}_sample_valid_num") or 1
    rows = batches * (draft.source.whole("per_device_eval_batch_size") or 8) * draft.gpus
    of_each = max(1, -(-rows // tasks))
    if draft.source.has(f"{name}_sample_valid_num"):
        draft.map(f"{name}_sample_valid_num", block + "validation_rows", of_each)
        draft.map("per_device_eval_batch_size", block + "validation_rows", of_each)
    else:
        draft.assume(block + "validation_rows", of_each, "1 batch")
    draft.note(f"A probe of {name} there takes {rows} validation rows of all tasks as they come; here {of_each} of each task.")
