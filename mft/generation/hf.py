"""Batched generation with transformers."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteriaList

from mft.errors import ConfigError, ModelError
from mft.generation.completion import Completion, complete
from mft.generation.stopping import StopWriting
from mft.modeling.modes import without_dropout
from mft.tokenization.load import TextTokenizer


def generate(model: PreTrainedModel | PeftModel, tokenizer: TextTokenizer, prompts: Sequence[Sequence[int]], *, max_new_tokens: int,
             temperature: float = 0.0, top_p: float = 1.0, seed: int = 0, stop_ids: Collection[int],
             stop_strings: Collection[str] = (), batch_size: int = 8,
             watch: Callable[[list[list[int]]], None] | None = None) -> list[Completion]:
    """Continue each prompt until it stops by itself or has `max_new_tokens` more tokens; results in the order given.

    Temperature 0 is greedy and gives each prompt the same answer in any batch, as far as the arithmetic of the dtype
    allows (in bf16 near-ties may fall the other way). Above 0 the answers depend on `seed`, the prompts and
    `batch_size`. Only these settings count: the `generation_config` that came with the model is not used. Dropout is
    off, and torch's random state is left as it was. `watch` gets the ids that each row of a batch has written, after every token.

    Raises:
        ConfigError: a setting outside its range.
        ModelError: a prompt is empty, or prompt and answer would be longer than the model was made for.
    """
    _check_settings(max_new_tokens, temperature, top_p, batch_size)
    core = model.get_base_model() if isinstance(model, PeftModel) else model
    _check_lengths(core, prompts, max_new_tokens)
    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {"do_sample": False}
    filler = tokenizer.unk_id or 0   # Masked out, so any id will do; eos would read as an answer's end.
    config = GenerationConfig(max_new_tokens=max_new_tokens, num_beams=1, use_cache=True, pad_token_id=filler, **sampling)
    longest_first = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    found: dict[int, Completion] = {}
    device = core.get_input_embeddings().weight.device
    own_random_state = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with _without_own_settings(core), without_dropout(core), own_random_state, torch.no_grad():
        torch.manual_seed(seed)
        for start in range(0, len(prompts), batch_size):
            indices = longest_first[start:start + batch_size]
            batch = [prompts[index] for index in indices]
            stop = StopWriting(batch, tokenizer, stop_ids=stop_ids, stop_strings=stop_strings, watch=watch)
            core.generate(**_left_padded(batch, filler, device), generation_config=config,
                          stopping_criteria=StoppingCriteriaList([stop]))
            for index, prompt, written in zip(indices, batch, stop.written, strict=True):
                found[index] = complete(prompt, written, tokenizer, stop_ids=stop_ids, stop_strings=stop_strings)
    return [found[index] for index in range(len(prompts))]


def _left_padded(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask` and `position_ids`, [B, T], of prompts that end in the same column.

        prompts [[5, 6, 7], [8]]   ->   ids [[5, 6, 7], [0, 0, 8]]   mask [[1, 1, 1], [0, 0, 1]]   positions [[0, 1, 2], [0, 0, 0]]
    """
    width = max(map(len, prompts))
    pads = [width - len(prompt) for prompt in prompts]
    rows = {
        "input_ids": [[pad_id] * pad + list(prompt) for pad, prompt in zip(pads, prompts, strict=True)],
        "attention_mask": [[0] * pad + [1] * (width - pad) for pad in pads],
        "position_ids": [[0] * pad + list(range(width - pad)) for pad in pads],
    }
    return {name: torch.tensor(values, device=device) for name, values in rows.items()}


@contextmanager
def _without_own_settings(model: PreTrainedModel) -> Iterator[None]:
    """Put the model's generation_config aside: `generate` would fill every setting that we leave unset from it."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _check_settings(max_new_tokens: int, temperature: float, top_p: float, batch_size: int) -> None:
    problems = [f"{name} is {value}; expected {allowed}" for name, value, allowed, good in (
        ("max_new_tokens", max_new_tokens, "1 or more", max_new_tokens >= 1),
        ("temperature", temperature, "0 (greedy) or more", 0 <= temperature < float("inf")),
        ("top_p", top_p, "above 0 and at most 1", 0 < top_p <= 1),
        ("batch_size", batch_size, "1 or more", batch_size >= 1)) if not good]
    if problems:
        raise ConfigError(problems)


def context_limit(model: PreTrainedModel | PeftModel) -> int | None:
    """The longest row that the model was made for, in tokens; None where its config does not say."""
    limit: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit


def _check_lengths(model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    limit = context_limit(model)
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise ModelError(f"prompt {index} is empty: there is no token to continue")
        if limit is not None and len(prompt) + max_new_tokens > limit:
            raise ModelError(
                f"prompt {index} has {len(prompt)} tokens and max_new_tokens is {max_new_tokens}: together more than the {limit} "
                "tokens that the model was made for (max_position_embeddings); shorten the prompt or lower max_new_tokens")
