"""What a config asks of the machine, as values: the doctor knows nothing of stages."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mft.modeling.config import AdapterConfig, ModelConfig, QuantizationConfig
from mft.training.config import DistributedConfig, TrainingConfig


@dataclass(frozen=True, slots=True)
class TrainNeeds:
    """The settings of one train stage that a machine may not be able to follow."""

    name: str
    quantization: QuantizationConfig
    adapter: AdapterConfig
    training: TrainingConfig
    distributed: DistributedConfig


@dataclass(frozen=True, slots=True)
class RecipeNeeds:
    """A recipe, and the values that the config gives to its parameters. `complete`: none of them is the output of another stage."""

    path: Path
    parameters: Mapping[str, str]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Subject:
    """A config that is to run here.

    `beside`: the config's folder, where relative names start. `out`: where its outputs go. `merges`: merge stages, each of which
    writes a whole model. `runs_code`: programs that a model wrote are executed.
    """

    name: str
    model: ModelConfig
    beside: Path
    out: Path
    recipes: tuple[RecipeNeeds, ...]
    trains: tuple[TrainNeeds, ...]
    merges: int
    wandb: bool
    tensorboard: bool
    runs_code: bool

    @property
    def trains_in_4_bit(self) -> bool:
        """Some stage holds its base in NF4."""
        return any(train.quantization.type == "nf4" for train in self.trains)

    @property
    def trains_on_several_ranks(self) -> bool:
        """Some stage is spread over processes."""
        return any(train.distributed.engine != "none" for train in self.trains)

    def gpu_reasons(self) -> list[str]:
        """Settings that nothing but a CUDA device can follow."""
        reasons = [f"stage '{train.name}': training.optimizer is {train.training.optimizer}" for train in self.trains
                   if train.training.optimizer.startswith("paged_")]
        if self.model.attention.startswith("flash_attention"):
            reasons.append(f"model.attention is {self.model.attention}")
        return reasons
