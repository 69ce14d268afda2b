"""Logging, evaluation and checkpoints of tools that are built on transformers' Trainer."""

from mft.runs.importing.draft import Draft
from mft.runs.importing.optimization import TRAINING


def map_evaluation(draft: Draft, held_out: float, *, stall_key: str, default_every: int | None) -> None:
    """When validation losses are computed, and what follows from them.

    `default_every`: steps where data is held out and the file does not say when; None: never, as transformers does.
    """
    source, every_key = draft.source, TRAINING + "evaluate_every"
    strategy_key = next((key for key in ("eval_strategy", "evaluation_strategy") if source.has(key)), None)
    strategy = source.text(strategy_key) if strategy_key else None
    steps = source.number("eval_steps")
    every = 0
    if held_out and (strategy == "steps" or (strategy is None and steps)):
        every = int(steps) if steps and steps >= 1 else source.whole("logging_steps") or 50
        if steps is not None and steps >= 1:
            draft.map("eval_steps", every_key, every)
    elif held_out and strategy in ("epoch", "best"):
        every = 50
    elif held_out and strategy is None and default_every:
        every = default_every
    if source.has("eval_steps") and not draft.claimed(("eval_steps",)):
        _leave(draft, "eval_steps", every, "a share of the run")
    if strategy_key:
        if strategy == "epoch" and every:
            draft.drop(strategy_key, f"evaluations count steps here: evaluate_every: {every} is written; `mft train CONFIG --dry-run` says "
                                     "how many an epoch has")
        else:
            draft.map(strategy_key, every_key, every)
    draft.set(every_key, every)
    _best(draft, every, stall_key)


def _leave(draft: Draft, key: str, every: int, what: str) -> None:
    if every:
        draft.drop(key, f"evaluations count steps here, not {what}: evaluate_every: {every} is written")
    else:
        draft.ignore(key, "nothing is held out, or evaluation is off")


def _best(draft: Draft, every: int, stall_key: str) -> None:
    """Early stopping and the best adapter, which need validation losses."""
    source = draft.source
    patience = source.whole(stall_key)
    if patience and every:
        draft.map(stall_key, TRAINING + "early_stopping", {"patience": patience})
    elif patience:
        draft.drop(stall_key, "needs validation losses, which this file does not ask for; set evaluate_every, and the recipe's "
                              "split.validation")
    if source.flag("load_best_model_at_end") and every:
        draft.map("load_best_model_at_end", TRAINING + "keep_best", True)
        draft.note("The best adapter is in adapter-best/, beside the last one.")
    elif source.has("load_best_model_at_end"):
        draft.settle("load_best_model_at_end", "needs validation losses")


def map_checkpoints(draft: Draft, *, default_every: int, default_kept: int | None, why: str) -> None:
    """How often state is saved and how much of it stays; `default_kept` None: all, there. `why`: of `default_every`."""
    source, every_key = draft.source, TRAINING + "checkpoint_every"
    draft.copy("logging_steps", TRAINING + "log_every", "whole", 500 if default_kept is None else 1)
    steps, strategy = source.number("save_steps"), source.text("save_strategy")
    if strategy == "no":
        draft.map("save_strategy", every_key, 0)
        if source.has("save_steps"):
            draft.ignore("save_steps", "save_strategy: no")
    elif steps is not None and steps >= 1:
        draft.map("save_steps", every_key, int(steps))
    elif steps:
        draft.drop("save_steps", f"checkpoints count steps here, not a share of the run: {default_every} is written")
        draft.set(every_key, default_every)
    else:
        draft.assume(every_key, default_every, why if strategy != "epoch" else "checkpoints count steps")
    if strategy is not None and not draft.claimed(("save_strategy",)):
        if strategy == "steps":
            draft.ignore("save_strategy", "steps: as here")
        else:
            draft.drop("save_strategy", f"{strategy}: checkpoints count steps: checkpoint_every; keep_best keeps the best adapter")
    kept = source.whole("save_total_limit")
    if kept:
        draft.map("save_total_limit", TRAINING + "keep_last", kept)
    elif default_kept:
        draft.assume(TRAINING + "keep_last", default_kept, f"default of {draft.tool}")
    else:
        draft.assume(TRAINING + "keep_last", 2, "there all are kept")


def map_reports(draft: Draft) -> None:
    """`report_to`: where a run is followed."""
    names = draft.source.words("report_to")
    if names is None:
        return
    known = [name for name in names if name in ("wandb", "tensorboard")]
    for name in known:
        draft.set(f"tracking.{name}", True)
    if known:
        draft.map("report_to", "tracking", dict.fromkeys(known, True), write=False)
    if others := [name for name in names if name not in ("wandb", "tensorboard", "none")]:
        draft.note(f"report_to {', '.join(others)}: runs are followed by wandb and TensorBoard here.")
        if not known:
            draft.drop("report_to", "wandb and tensorboard are offered here (tracking); metrics.jsonl is always written")
    elif not known:
        draft.ignore("report_to", "none, as here")
