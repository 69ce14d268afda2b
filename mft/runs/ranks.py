"""What each of several processes does for a train stage: rank 0 builds the data and keeps the project's records, all of them train."""

from dataclasses import replace
from typing import Any

from mft.errors import MftError
from mft.runs.config import TrainStage
from mft.runs.kinds.train import run_train
from mft.runs.launch import announce_rank
from mft.runs.project import Project, run_project


def join_training(project: Project, name: str, *, again: bool = False) -> dict[str, Any]:
    """What one of several ranks does for a train stage: rank 0 builds the data and keeps the project's records, all of them train.

    `again`: train anew, whatever the stage's folder holds.

    Returns:
        run.json of the project on rank 0, nothing elsewhere.

    Raises:
        ContactLost: another rank is gone.
    """
    from mft.training.ranks import contact_loss_named, is_first_rank, join_ranks, leave_ranks, world_size

    stage = project.config.stage(name)
    assert isinstance(stage, TrainStage)
    announce_rank()
    if world_size() == 1:
        join_ranks(stage.distributed.timeout_minutes)
        return run_project(project, only=name, start=name if again else None)
    with contact_loss_named():
        join_ranks(stage.distributed.timeout_minutes)
        record = _lead(project, name, again) if is_first_rank() else _follow(project, stage)
        leave_ranks()
    return record


def _follow(project: Project, stage: TrainStage) -> dict[str, Any]:
    import torch

    told: list[Any] = [None]
    torch.distributed.broadcast_object_list(told, src=0)
    if isinstance(told[0], MftError):
        raise told[0]
    if told[0]:
        run_train(project.context(stage), stage)
    return {}


def _lead(project: Project, name: str, again: bool) -> dict[str, Any]:
    import torch

    told: list[bool] = []

    def tell(what: "MftError | bool") -> None:
        if not told:
            told.append(True)
            torch.distributed.broadcast_object_list([what], src=0)

    try:
        record = run_project(replace(project, before_training=lambda: tell(True)), only=name, start=name if again else None)
    except MftError as error:
        tell(error)
        raise
    tell(False)   # the stage was found finished
    return record
