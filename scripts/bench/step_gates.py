"""What must hold before a speed is printed: the gates of scripts/bench/step.py."""

import hashlib
from collections.abc import Mapping

import torch
from step_contestants import Seen
from step_work import StepWork

LOSS, COSINE, NORM = 1e-3, 0.999, 0.05
"""Largest relative difference of the first loss; least cosine of a tensor's gradient; largest relative difference of its norm."""

SHOWN = 2


def faults_of(work: StepWork, reference: Seen, wanted: Mapping[str, torch.Tensor], seen: Seen,
              found: Mapping[str, torch.Tensor]) -> list[str]:
    """The gates that a contestant's proof does not hold, each with what was found; none where it does the reference's work.

    `wanted`, `found`: the gradients of the first step by tensor of the adapter.
    """
    return [*_same_tokens(work, seen), *_loss_faults(reference.losses[0], seen.losses), *_gradient_faults(wanted, found)]


def timing_faults(proof: Seen, seen: Seen) -> list[str]:
    """What a timed process did otherwise than the proof: other ids, or another loss in a step that both made."""
    faults = []
    if set(seen.ids) != set(proof.ids):
        faults.append("the timed steps had other ids than the proof's")
    pairs = [(one, two) for one, two in zip(proof.losses, seen.losses, strict=False) if not abs(one - two) <= LOSS * abs(one)]
    if pairs:
        faults.append(f"a timed step had the loss {pairs[0][1]:.6f}, and {pairs[0][0]:.6f} in the proof")
    return faults


def _same_tokens(work: StepWork, seen: Seen) -> list[str]:
    ids = torch.tensor(sorted(token for sample, _ in work.samples for token in sample))
    wanted = hashlib.sha256(ids.numpy().tobytes()).hexdigest()
    if wrong := [number for number in seen.tokens if number != work.tokens]:
        return [f"{wrong[0]:,} tokens in a step, and {work.tokens:,} are given"]
    return [] if seen.ids and set(seen.ids) == {wanted} else ["other ids than those that are given"]


def _loss_faults(reference: float, losses: list[float]) -> list[str]:
    faults = []
    if not losses or not abs(losses[0] - reference) <= LOSS * abs(reference):
        faults.append(f"the first loss is {losses[0] if losses else float('nan'):.6f}, and {reference:.6f} in the reference")
    if not losses or not losses[-1] < losses[0]:
        faults.append(f"the loss does not fall in {len(losses)} steps")
    return faults


def _gradient_faults(wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> list[str]:
    if wanted.keys() != found.keys():
        return [f"{len(found)} tensors have a gradient, and {len(wanted)} in the reference"]
    zero, turned, scaled = [], [], []
    for name, gradient in wanted.items():
        own = found[name].float()
        norm, reference = own.norm().item(), gradient.norm().item()
        if not norm > 0:
            zero.append(name)
            continue
        cosine = (own.flatten().double() @ gradient.flatten().double()).item() / (norm * reference)
        if not cosine >= COSINE:
            turned.append(f"{name} {cosine:.5f}")
        elif not abs(norm - reference) <= NORM * reference:
            scaled.append(f"{name} {norm / reference:.3f} times")
    return [f"{what}: {len(names)} of {len(wanted)} tensors, such as {', '.join(names[:SHOWN])}"
            for what, names in (("gradient 0", zero), ("cosine with the reference's gradient below 0.999", turned),
                                ("gradient of another length than the reference's", scaled)) if names]
