"""What `mft serve` starts, and what it refuses before anything is started."""

import json
import shutil
import socket
import subprocess
import sys

import pytest
from served_models import calls, free_port, served

from mft.errors import DependencyError, FormatError, ModelError, TokenizerError
from mft.release.make import release
from mft.serving import engines
from mft.serving.engines import ServeOptions, choose_engine, plan_serving
from mft.serving.folder import look_at
from mft.serving.serve import ServerFailed, refuse_taken_port


@pytest.fixture(scope="module")
def folder(small_llama, tmp_path_factory):
    out = tmp_path_factory.mktemp("serve") / "demo"
    release(small_llama, out, format_name="codefuse")
    return out


@pytest.fixture
def damaged(folder, tmp_path):
    """A copy whose files a test may change."""
    return shutil.copytree(folder, tmp_path / "demo")


@pytest.fixture(scope="module")
def adapter(small_llama, tmp_path_factory):
    """A trained-looking adapter on an NF4 base, as a train stage writes it."""
    import torch

    from mft.modeling.adapters import AdapterFacts, add_adapter, save_trained, write_adapter_facts
    from mft.modeling.config import AdapterConfig, QuantizationConfig
    from mft.modeling.load import load_base

    place = tmp_path_factory.mktemp("adapter")
    model = add_adapter(load_base(small_llama, QuantizationConfig()), AdapterConfig(rank=4), seed=0)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    save_trained(model, {name: value for name, value in model.state_dict().items() if "lora_" in name}, QuantizationConfig(), place / "raw")
    write_adapter_facts(place / "raw", AdapterFacts(str(small_llama), {}, "codefuse", 256, QuantizationConfig()))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(small_llama / name, place / "raw" / name)
    release(place / "raw", place / "adapter")
    facts = json.loads((place / "adapter" / "mft.json").read_text())
    (place / "adapter" / "mft.json").write_text(json.dumps(facts | {"base": str(small_llama)}))
    return place / "adapter"


def test_vllm_is_given_template_end_tokens_dtype_and_tensor_parallel_size(folder, tmp_path):
    options = ServeOptions(port=9000, dtype="bf16", tensor_parallel=4, context=4096, extra=("--enforce-eager",))
    plan = plan_serving(look_at(folder), "vllm", options, tmp_path / "vllm")
    assert plan.command == (
        str(tmp_path / "vllm"), "serve", str(folder), "--host", "127.0.0.1", "--port", "9000", "--dtype", "bfloat16",
        "--tensor-parallel-size", "4", "--generation-config", str(folder), "--chat-template", str(folder / "chat_template.jinja"),
        "--chat-template-content-format", "string", "--max-model-len", "4096", "--served-model-name", "demo", "--enforce-eager")
    assert (plan.url, plan.model) == ("http://127.0.0.1:9000/v1", "demo")


def test_vllm_serves_an_adapter_unmerged_and_says_what_differs(adapter, small_llama, tmp_path):
    plan = plan_serving(look_at(adapter), "vllm", ServeOptions(), tmp_path / "vllm")
    assert plan.command[2] == str(small_llama)
    assert plan.command[-8:] == ("adapter-base", "--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"adapter={adapter}",
                                 "--tokenizer", str(adapter))
    assert "NF4 base" in plan.notes[0]


def test_vllm_refuses_what_it_cannot_serve_unmerged(adapter, tmp_path):
    other = shutil.copytree(adapter, tmp_path / "dora")
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(ModelError, match="sets use_dora, which vLLM does not serve unmerged"):
        plan_serving(look_at(other), "vllm", ServeOptions(), tmp_path / "vllm")
    (other / "adapter_config.json").write_text(json.dumps(config | {"r": 1000}))
    with pytest.raises(ModelError, match="its rank is 1000"):
        plan_serving(look_at(other), "vllm", ServeOptions(), tmp_path / "vllm")


def test_options_that_an_engine_would_ignore_are_refused(folder, adapter):
    for options, message in ((ServeOptions(tensor_parallel=2), "--tensor-parallel is vLLM's"), (ServeOptions(context=64), "--context"),
                             (ServeOptions(name="x"), "--name")):
        with pytest.raises(ModelError, match=message):
            plan_serving(look_at(folder), "transformers", options)
    with pytest.raises(ModelError, match="--dtype does not go with an adapter"):
        plan_serving(look_at(adapter), "transformers", ServeOptions(dtype="bf16"))


def test_the_engine_is_vllm_where_it_is_installed_and_a_missing_one_names_its_extra(monkeypatch, tmp_path):
    installed = {"vllm"}
    monkeypatch.setattr(engines, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr("mft.extras.find_spec", lambda name: name if name in installed else None)
    assert choose_engine("auto", None) == "vllm"
    installed |= {"fastapi", "uvicorn", "openai"}
    installed.remove("vllm")
    assert choose_engine("auto", None) == "transformers"
    with pytest.raises(DependencyError, match=r"pip install 'mft\[serve\]'"):
        choose_engine("vllm", None)
    installed.clear()
    with pytest.raises(DependencyError, match=r"mft\[serve\].*mft\[serve-transformers\].*neither is installed"):
        choose_engine("auto", None)
    with pytest.raises(DependencyError, match="no such file"):
        choose_engine("auto", tmp_path / "vllm")


def test_a_folder_that_a_server_would_read_wrongly_is_refused_with_every_fault(damaged):
    (damaged / "generation_config.json").write_text(json.dumps({"eos_token_id": 13}))
    (damaged / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    config = json.loads((damaged / "tokenizer_config.json").read_text())
    (damaged / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "LlamaTokenizer"}))
    with pytest.raises(ModelError) as caught:
        look_at(damaged)
    message = str(caught.value)
    assert "tokenizer_class is 'LlamaTokenizer'" in message
    assert "chat_template.jinja: its chat template is not that of the format 'codefuse'" in message
    assert "eos_token_id is 13; an answer in this format ends at [2] too" in message
    assert "mft release FOLDER" in message


def test_a_missing_tokenizer_format_folder_or_weights_is_one_message(damaged, tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        look_at(tmp_path / "absent")
    (damaged / "mft.json").unlink()
    with pytest.raises(FormatError, match="give --format: codefuse"):
        look_at(damaged)
    (damaged / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"has no tokenizer.json"):
        look_at(damaged)
    (damaged / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no .safetensors weights"):
        look_at(damaged)


def test_a_port_in_use_is_one_message_before_anything_is_loaded(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run([sys.executable, "-m", "mft", "serve", "--model", str(folder), "--port", str(port)], capture_output=True,
                              text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == f"mft: 127.0.0.1:{port}: a server cannot listen there: Address already in use; give another --port or --host\n"
    refuse_taken_port("127.0.0.1", free_port())
    with pytest.raises(ServerFailed, match="a server cannot listen there"):
        refuse_taken_port("no.such.host.invalid", 80)


def test_a_dry_run_prints_the_command_alone(folder):
    done = subprocess.run([sys.executable, "-m", "mft", "--json", "serve", "--model", str(folder), "--dry-run"], capture_output=True,
                          text=True, timeout=120)
    facts = json.loads(done.stdout)
    assert facts["engine"] == "transformers"
    assert facts["command"][1:5] == ["-m", "transformers.cli.transformers", "serve", str(folder)]


@pytest.mark.slow
def test_a_server_that_ends_by_itself_is_exit_code_2_not_a_hang(damaged):
    (damaged / "model.safetensors").write_bytes(b"\0" * 100)
    done = subprocess.run([sys.executable, "-m", "mft", "serve", "--model", str(damaged), "--port", str(free_port())], capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 2
    assert "mft: the transformers server did not start (exit code 1); its last lines say why" in done.stderr


@pytest.mark.slow
def test_an_adapter_is_served_unmerged_as_it_answers_in_mft(adapter, tmp_path):
    import openai

    from mft.conversation import Message
    from mft.generation.chat import load_chat_model

    wanted = load_chat_model(adapter).answer([Message("user", "2+2?")], max_new_tokens=8)
    log = tmp_path / "ids.jsonl"
    with served(adapter, log) as url:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        client.chat.completions.create(model="adapter", messages=[{"role": "user", "content": "2+2?"}], max_tokens=8, temperature=0)
        [call] = calls(log)
    assert tuple(call["output"][0][len(call["prompt"][0]):][:len(wanted.token_ids)]) == wanted.token_ids
