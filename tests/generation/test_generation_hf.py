"""Batched generation gives each prompt what it would get alone, by our settings and no others."""

import random

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig

from mft.errors import ConfigError, ModelError
from mft.generation.hf import generate

EOS = 2


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    draw = random.Random(5)
    return [[draw.randrange(3, 512) for _ in range(length)] for length in (3, 17, 1, 40, 8, 8, 25)]


def by_hand(model, prompt: list[int], steps: int) -> tuple[int, ...]:
    """Greedy continuation without a cache, padding or `generate`."""
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            token = int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token == EOS:
            break
        ids.append(token)
    return tuple(ids[len(prompt):])


def test_greedy_batch_equals_each_prompt_alone_step_by_step(model, tokenizer, prompts):
    found = generate(model, tokenizer, prompts, max_new_tokens=20, stop_ids=[EOS], batch_size=4)
    assert [completion.token_ids for completion in found] == [by_hand(model, prompt, 20) for prompt in prompts]


def test_prompts_are_padded_on_the_left_with_a_mask_and_their_own_positions(model, tokenizer):
    seen = []
    hook = model.register_forward_pre_hook(lambda module, args, inputs: seen.append(inputs), with_kwargs=True)
    try:
        generate(model, tokenizer, [[8], [5, 6, 7]], max_new_tokens=2, stop_ids=[])
    finally:
        hook.remove()
    first, second = seen
    assert first["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert first["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert first["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]
    assert second["position_ids"].tolist() == [[3], [1]]


def test_the_models_own_generation_config_does_not_leak(model, tokenizer, prompts):
    plain = generate(model, tokenizer, prompts[:3], max_new_tokens=12, stop_ids=[EOS])
    own = GenerationConfig(do_sample=True, temperature=5.0, top_k=3, repetition_penalty=3.0, no_repeat_ngram_size=1, max_length=5,
                           eos_token_id=[plain[0].token_ids[2]], suppress_tokens=[plain[1].token_ids[0]], num_beams=2)
    before, model.generation_config = model.generation_config, own
    try:
        assert generate(model, tokenizer, prompts[:3], max_new_tokens=12, stop_ids=[EOS]) == plain
        assert model.generation_config is own
    finally:
        model.generation_config = before


def test_a_stop_token_ends_one_row_and_not_the_others(model, tokenizer, prompts):
    plain = generate(model, tokenizer, prompts, max_new_tokens=15, stop_ids=[EOS])
    stop = plain[1].token_ids[4]
    found = generate(model, tokenizer, prompts, max_new_tokens=15, stop_ids=[EOS, stop])
    for before, after in zip(plain, found, strict=True):
        place = before.token_ids.index(stop) if stop in before.token_ids else None
        assert after.token_ids == before.token_ids[:place]
        assert after.finish_reason == ("stop" if place is not None else before.finish_reason)
    assert {completion.finish_reason for completion in found} == {"stop", "length"}


def test_a_stop_string_ends_the_text_before_it(model, tokenizer, prompts):
    plain = generate(model, tokenizer, prompts[1:2], max_new_tokens=30, stop_ids=[EOS])[0]
    stop = plain.text[10:13]
    found = generate(model, tokenizer, prompts[1:2], max_new_tokens=30, stop_ids=[EOS], stop_strings=[stop])[0]
    assert (found.text, found.finish_reason) == (plain.text[:plain.text.index(stop)], "stop")
    assert found.token_ids == plain.token_ids[:len(found.token_ids)]


def test_a_completion_ends_after_max_new_tokens(model, tokenizer, prompts):
    found = generate(model, tokenizer, prompts[:2], max_new_tokens=7, stop_ids=[])
    assert [(len(completion.token_ids), completion.finish_reason) for completion in found] == [(7, "length"), (7, "length")]


def test_sampling_follows_its_seed_and_leaves_torchs_random_state_alone(model, tokenizer, prompts):
    def sample(seed: int, **options):
        return [completion.token_ids for completion in generate(
            model, tokenizer, prompts, max_new_tokens=10, temperature=1.0, seed=seed, stop_ids=[], **options)]

    before = torch.get_rng_state()
    first = sample(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert sample(1) == first
    assert sample(2) != first
    greedy = [completion.token_ids for completion in generate(model, tokenizer, prompts, max_new_tokens=10, stop_ids=[])]
    assert first != greedy
    assert sample(1, top_p=1e-6) == greedy


def test_an_adapter_generates_as_itself_and_dropout_is_off(model, tokenizer, prompts, small_llama):
    from transformers import LlamaForCausalLM

    adapted = get_peft_model(LlamaForCausalLM.from_pretrained(small_llama, dtype=torch.float32), LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_dropout=0.5, target_modules="all-linear"))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.train()
    found = generate(adapted, tokenizer, prompts[:3], max_new_tokens=10, stop_ids=[EOS])
    assert adapted.training
    adapted.eval()
    assert [completion.token_ids for completion in found] == [by_hand(adapted, prompt, 10) for prompt in prompts[:3]]
    assert found != generate(model, tokenizer, prompts[:3], max_new_tokens=10, stop_ids=[EOS])


def test_too_long_or_empty_prompts_are_refused(model, tokenizer):
    with pytest.raises(ModelError, match=r"prompt 1 has 500 tokens and max_new_tokens is 13: together more than the 512"):
        generate(model, tokenizer, [[5], [5] * 500], max_new_tokens=13, stop_ids=[EOS])
    assert len(generate(model, tokenizer, [[5] * 509], max_new_tokens=3, stop_ids=[])[0].token_ids) == 3
    with pytest.raises(ModelError, match="prompt 0 is empty"):
        generate(model, tokenizer, [[]], max_new_tokens=3, stop_ids=[EOS])


def test_settings_outside_their_range_are_all_named(model, tokenizer):
    with pytest.raises(ConfigError) as caught:
        generate(model, tokenizer, [[5]], max_new_tokens=0, temperature=-1.0, top_p=0.0, stop_ids=[EOS])
    assert [problem.split(" is ")[0] for problem in caught.value.problems] == ["max_new_tokens", "temperature", "top_p"]


def test_no_prompts_give_no_completions(model, tokenizer):
    assert generate(model, tokenizer, [], max_new_tokens=3, stop_ids=[EOS]) == []
