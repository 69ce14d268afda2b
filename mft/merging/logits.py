"""Whether a merged model says what base + adapter say: logits of whole models on random token sequences.

Both are computed in fp32, so that what differs is the rounding of the merged weights. Each matrix product of V = W + sBA + E
then has a relative error of about u / sqrt(3) (u: unit roundoff of the output dtype), 7 products a layer add up like
independent errors, and a logit's error is compared in units of the logits' own spread:

    tolerance = 8 (u + 16 v sqrt(hidden size)) sqrt(7 layers) std(logits)

where the second term, with v = 2^-24, is for the fp32 sums of the two models themselves, and only matters for fp32 output
(16: activations of trained models have outliers; with 2 the tiny base missed its tolerance by a factor of 3).
That is an estimate, not a bound, and a small adapter hides below it. So the merged model must also be nearer to base +
adapter than the base alone is: its KL divergence must be the smaller one.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from mft.errors import CheckFailed
from mft.merging.result import Verdict

NUM_SEQUENCES = 4
SEQUENCE_TOKENS = 32
SEED = 20240
DEVIATIONS = 8.0
PRODUCTS_PER_LAYER = 7
SUMS = 16
REFERENCE = f"logits of base + adapter (PEFT, unmerged, fp32) on {NUM_SEQUENCES} random sequences of {SEQUENCE_TOKENS} tokens"
ROUNDOFF = {"bf16": 2.0**-8, "fp16": 2.0**-11, "fp32": 2.0**-24}


def tolerance_of(dtype: str, layers: int, hidden_size: int, spread: float) -> float:
    """Largest difference of logits that rounding may account for; `spread` is their standard deviation."""
    roundoff = ROUNDOFF[dtype] + SUMS * ROUNDOFF["fp32"] * math.sqrt(hidden_size)
    return DEVIATIONS * roundoff * math.sqrt(PRODUCTS_PER_LAYER * layers) * spread


@dataclass(frozen=True, slots=True)
class LogitDistance:
    """How far logits are from reference logits: largest difference, mean KL(reference || other) in nats, equal first choices."""

    max_abs_diff: float
    kl: float
    top1_agreement: float


def distance(reference: torch.Tensor, other: torch.Tensor) -> LogitDistance:
    """Compare logits [tokens, vocabulary]."""
    log_p, log_q = reference.double().log_softmax(-1), other.double().log_softmax(-1)
    return LogitDistance(max_abs_diff=float((reference - other).abs().max()), kl=float((log_p.exp() * (log_p - log_q)).sum(-1).mean()),
                         top1_agreement=float((reference.argmax(-1) == other.argmax(-1)).double().mean()))


def verify_logits(base: Path, adapter: Path, merged: Path, dtype: str) -> Verdict:
    """Compare a merged folder with base + adapter. One model at a time is in memory, in fp32.

    Raises:
        CheckFailed: the logits differ by more than the tolerance, or are no nearer than the base's.
    """
    model = _load(base)
    shape, vocabulary = model.config.get_text_config(), model.get_input_embeddings().num_embeddings
    ids = torch.randint(vocabulary, (NUM_SEQUENCES, SEQUENCE_TOKENS), generator=torch.Generator().manual_seed(SEED))
    adapted = PeftModel.from_pretrained(model, str(adapter)).eval()
    _put_in(ids, getattr(adapted.active_peft_config, "trainable_token_indices", None))
    reference = _logits(adapted, ids)
    with adapted.disable_adapter():
        without = distance(reference, _logits(adapted, ids))
    del model, adapted
    found = distance(reference, _logits(_load(merged), ids))
    tolerance = tolerance_of(dtype, shape.num_hidden_layers, shape.hidden_size, float(reference.std()))
    if not found.max_abs_diff <= tolerance:
        raise CheckFailed(f"the merged model's logits differ from base + adapter by up to {found.max_abs_diff:.3g}, where "
                          f"{tolerance:.3g} is allowed (KL {found.kl:.3g} nats, same first choice {found.top1_agreement:.1%})")
    if not found.kl < without.kl:
        raise CheckFailed(f"the merged model is no nearer to base + adapter (KL {found.kl:.3g} nats) than the base is ({without.kl:.3g}): "
                          "the adapter's part is lost in rounding")
    return Verdict(found.max_abs_diff, tolerance, REFERENCE, found.kl, found.top1_agreement)


def _put_in(ids: torch.Tensor, trained: dict[str, list[int]] | list[int] | None) -> None:
    """Let every sequence begin with tokens whose rows were trained: by chance hardly one of them would be drawn."""
    rows = [index for ids_of in trained.values() for index in ids_of] if isinstance(trained, dict) else trained or []
    for place, index in enumerate(dict.fromkeys(rows)):
        ids[place % NUM_SEQUENCES, place // NUM_SEQUENCES % (SEQUENCE_TOKENS // 2)] = index


def _load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, local_files_only=True,
                                                trust_remote_code=False).eval()


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Logits [all tokens, vocabulary]."""
    return torch.cat([model(input_ids=row[None]).logits[0].float() for row in ids])
