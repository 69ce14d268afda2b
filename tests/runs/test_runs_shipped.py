"""The shipped configs: each loads, is shown and dry-runs with stand-ins for base and data, and its header tells the truth."""

import json
import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from mft.cli.main import main
from mft.cli.usage import VERBS
from mft.data.config import load_recipe
from mft.errors import ConfigError
from mft.modeling.base import BUILT_IN
from mft.runs.config import DataStage, TrainStage, load_project
from mft.runs.shipped import shipped_config, shipped_configs

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "configs").glob("*.yaml"))
NAMES = [path.name for path in SHIPPED]
BASE_CONTEXT = 1024
"""Tokens of a row that the built-in base takes, where a config asks for more."""

CONTROL = {"chatml": ["<|im_start|>", "<|im_end|>"], "codellama70b": ["<step>"]}
"""Control tokens of a format that the real base has, and the built-in one lacks."""

TRAIN_STAGES = [(path.name, stage.name) for path in SHIPPED for stage in load_project(path).stages if isinstance(stage, TrainStage)]


def told(capsys, *arguments):
    """What `mft` prints as JSON for these arguments; the exit code must be 0."""
    with pytest.raises(SystemExit) as ended:
        main(["-q", "--json", *map(str, arguments)])
    printed = capsys.readouterr()
    assert ended.value.code == 0, printed.err
    return json.loads(printed.out)


def header(path):
    """The comment that opens a config, without its signs."""
    lines = path.read_text(encoding="utf-8").split("\nname:")[0].splitlines()
    assert all(line.startswith("#") or not line for line in lines), path.name
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """Recipe file -> a small recipe with the same tasks, in files of 40 rows each."""
    folder, made = tmp_path_factory.mktemp("recipes"), {}

    def recipe_like(path):
        if path.name in made:
            return made[path.name]
        real = load_recipe(path)
        for task in real.tasks:
            rows = [{"id": f"{task}-{n}", "chat_rounds": [{"role": "human", "content": f"{task}: write function {n}"},
                                                         {"role": "bot", "content": f"def f_{n}(a):\n    return a + {n}"}]}
                    for n in range(40)]
            (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        tasks = {task: {"sources": [{"type": "jsonl", "path": f"{task}.jsonl", "converter": "chat_rounds"}]} for task in real.tasks}
        small = {"name": real.name, "seed": real.seed, "tasks": tasks, "split": {"validation": 0.2, "by": "id"}}
        made[path.name] = folder / path.name
        made[path.name].write_text(yaml.safe_dump(small))
        return made[path.name]

    return recipe_like


def what_this_machine_lacks(path, recipe_like):
    """Overrides that put in place of the base the built-in one, of each recipe a small one, and nothing else."""
    config = load_project(path)
    overrides = [f"stages.{stage.name}.recipe={recipe_like(path.parent / stage.recipe)}"
                 for stage in config.stages if isinstance(stage, DataStage)]
    overrides += [f"stages.{stage.name}.parameters={{}}" for stage in config.stages if isinstance(stage, DataStage) and stage.parameters]
    if config.model.base not in BUILT_IN:
        overrides.append("model.base=tiny-code-llama")
        if tokens := CONTROL.get(config.model.format):
            overrides.append(f"model.add_tokens={json.dumps(tokens)}")
    if config.model.context > BASE_CONTEXT:
        overrides.append(f"model.context={BASE_CONTEXT}")
    return overrides


def test_these_configs_are_shipped_and_found_by_name():
    assert set(NAMES) == {
        "quickstart.yaml", "codefuse-codellama-34b-4k.yaml", "codefuse-codellama-34b-mftcoder-v05.yaml", "codefuse-codellama-34b-16k.yaml",
        "ziya-coding-34b.yaml", "codellama-70b-instruct-domain.yaml", "deepseek-coder-33b.yaml", "qwen2.5-coder-7b-1gpu.yaml",
        "my-repository.yaml", "my-repository-taught.yaml", "codellama-70b-gptq-matrix.yaml", "codefuse-codellama-34b-4bits.yaml"}
    assert [path.name for path in shipped_configs()] == NAMES
    assert shipped_config("quickstart.yaml") == ROOT / "configs" / "quickstart.yaml"


def test_a_config_that_is_not_shipped_is_answered_with_the_likely_one():
    with pytest.raises(ConfigError, match=r"ziya-coding.yaml: no config of that name comes with mft; did you mean 'ziya-coding-34b.yaml'"):
        shipped_config("ziya-coding.yaml")
    with pytest.raises(ConfigError, match=r"no config of that name comes with mft; shipped: codefuse-codellama-34b-16k.yaml, "):
        shipped_config("a.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_each_is_shown_with_every_default_filled_in_and_loads_again_as_it_is_shown(path, capsys, tmp_path):
    shown = told(capsys, "config", "show", path)
    assert shown["name"] == path.stem
    for stage in shown["stages"]:
        if stage["kind"] == "data":
            stage["recipe"] = str(path.parent / stage["recipe"])
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(shown))
    assert told(capsys, "config", "show", tmp_path / "again.yaml") == shown


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_each_writes_out_every_knob_of_training(path):
    """What a user would copy says all that a run depends on, so that a later default changes none of it."""
    optional = {"max_steps", "lora_plus_ratio", "neftune_alpha", "early_stopping", "health", "betas", "keep_best", "kernels"}
    for stage in yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]:
        if stage["kind"] == "train":
            knobs = load_project(path).stage(stage["name"]).training.model_dump().keys()
            assert knobs - optional <= stage["training"].keys()
            assert {"quantization", "adapter", "tasks", "training", "distributed"} <= stage.keys()


@pytest.mark.parametrize(("name", "stage"), TRAIN_STAGES, ids=[f"{name}-{stage}" for name, stage in TRAIN_STAGES])
def test_each_train_stage_dry_runs_with_the_ranks_that_it_asks_for(name, stage, capsys, tmp_path, stand_in, tiny_base):
    path = ROOT / "configs" / name
    overrides = what_this_machine_lacks(path, stand_in)
    facts = told(capsys, "train", path, "--stage", stage, "--dry-run", "--out", tmp_path / "out", *overrides)
    asked = load_project(path, overrides).stage(stage)
    expected = 1 if asked.distributed.engine == "none" else asked.distributed.processes
    assert facts["ranks"] == expected
    assert facts["accumulation"] * expected * asked.training.micro_batch_rows == asked.training.global_batch_rows
    assert facts["samples"] > 0
    assert facts["dropped"] == {}
    assert not (tmp_path / "out" / stage).exists()   # data and token ids alone


LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
         "tie_word_embeddings": False}
SHAPES = {
    "codellama/CodeLlama-34b-Python-hf": ("llama2_tokenizer_folder", {
        "num_hidden_layers": 48, "hidden_size": 8192, "intermediate_size": 22016, "num_attention_heads": 64, "vocab_size": 32000,
        "max_position_embeddings": 16384}),
    "codellama/CodeLlama-70b-Instruct-hf": ("codellama70b_tokenizer_folder", {
        "num_hidden_layers": 80, "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "vocab_size": 32016,
        "max_position_embeddings": 4096}),
    "deepseek-ai/deepseek-coder-33b-base": ("deepseek_tokenizer_folder", {
        "num_hidden_layers": 62, "hidden_size": 7168, "intermediate_size": 19200, "num_attention_heads": 56, "vocab_size": 32256,
        "max_position_embeddings": 16384}),
}
"""Hub id -> a real tokenizer of its kind and the shape of its layers; no weights, which a dry run does not read."""

OF_KNOWN_SHAPE = [(name, stage) for name, stage in TRAIN_STAGES if load_project(ROOT / "configs" / name).model.base in SHAPES]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stage"), OF_KNOWN_SHAPE, ids=[f"{name}-{stage}" for name, stage in OF_KNOWN_SHAPE])
def test_with_the_real_shape_and_vocabulary_nothing_but_base_and_data_is_replaced(name, stage, capsys, tmp_path, stand_in, request):
    path = ROOT / "configs" / name
    config = load_project(path)
    tokenizer, shape = SHAPES[config.model.base]
    shutil.copytree(request.getfixturevalue(tokenizer), tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text(json.dumps(LLAMA | shape))
    overrides = [override for override in what_this_machine_lacks(path, stand_in) if ".recipe=" in override or ".parameters=" in override]
    command = ["train", path, "--stage", stage, "--dry-run", f"model.base={tmp_path / 'base'}", *overrides]
    facts = told(capsys, *command, "--out", tmp_path / "out")
    assert facts["dropped"] == {}
    assert facts["tokens_per_step"] == config.stage(stage).training.global_batch_rows * config.model.context
    with pytest.raises(SystemExit) as ended:
        main(["-q", *map(str, command), "--out", str(tmp_path / "longer"), f"model.context={shape['max_position_embeddings'] + 1}"])
    assert ended.value.code == 2
    assert "max_position_embeddings" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "broken", "said"), [
    ("codefuse-codellama-34b-4k.yaml", "stages.train.distributed.processes=3", "global_batch_rows is 16, which 3 ranks"),
    ("deepseek-coder-33b.yaml", "tracking.generations=1", r"tracking\.generations is 1"),
    ("deepseek-coder-33b.yaml", "stages.train.training.optimizer=adamw_8bit", "whose state deepspeed cannot shard"),
    ("codefuse-codellama-34b-16k.yaml", "stages.train.tasks.weights={sql: 2}", r"tasks\.weights: sql: not a task of the data"),
])
def test_a_contradiction_put_into_a_config_is_found_by_the_same_dry_run(name, broken, said, capsys, tmp_path, stand_in, tiny_base):
    path = ROOT / "configs" / name
    with pytest.raises(SystemExit) as ended:
        main(["-q", "train", str(path), "--dry-run", "--out", str(tmp_path / "out"), *what_this_machine_lacks(path, stand_in), broken])
    assert ended.value.code == 2
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_each_opens_with_command_hardware_plan_and_whether_it_was_run(path):
    text = header(path)
    marks = [f"mft run configs/{path.name}", "\nHardware: ", "\nplan: ", "\nRun: "]
    places = [text.find(mark) for mark in marks]
    assert min(places) > 0, [mark for mark, place in zip(marks, places, strict=True) if place < 0]
    assert places == sorted(places)
    if load_project(path).model.base in BUILT_IN:
        return
    ranks = max(((stage.distributed.processes or 1) for stage in load_project(path).stages if isinstance(stage, TrainStage)), default=1)
    assert re.search(r"\nHardware: (\d+) GPUs?\b", text)[1] == str(ranks)
    base = load_project(path).model.base
    llama = "Llama 2 Community License"
    licence = {"codellama": llama, "codefuse-ai": llama, "deepseek-ai": "DeepSeek License Agreement", "Qwen": "Apache-2.0"}
    assert f"base: {base}" in path.read_text(encoding="utf-8")
    assert licence[base.split("/")[0]] in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_commands_files_stages_and_settings_that_a_header_names_exist(path):
    text, config = header(path), load_project(path)
    commands = re.findall(r"(?m)^ +mft (.*?)(?: {2,}.*)?$", text)
    assert commands
    for command in commands:
        verb, *arguments = shlex.split(command)
        assert verb in VERBS
        assert all((ROOT / word).is_file() for word in arguments if word.endswith(".yaml"))
        for option, name in pairwise(arguments):
            if option in ("--stage", "--until", "--from"):
                assert name in [stage.name for stage in config.stages]
        overrides = [word for word in arguments if re.match(r"[a-z_]+\.[\w.]+=", word)]
        if arguments[:1] == ["build"]:
            load_recipe(ROOT / arguments[1], overrides)
        else:
            load_project(path, overrides)
    for override in re.findall(r"`([a-z_]+\.[^`\s]+=[^`]+)`", text):
        load_project(path, [override])
    for word in re.findall(r"`([\w/.-]+\.yaml)`", text):
        assert (path.parent / word).is_file() or (ROOT / word).is_file()


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_the_comments_on_a_config_that_tell_of_arithmetic_are_right(path):
    """`65,536 tokens` beside global_batch_rows, and `four times a step` beside micro_batch_rows."""
    words = {"four": 4, "eight": 8, "sixteen": 16}
    text, context = path.read_text(encoding="utf-8"), load_project(path).model.context
    for rows, tokens in re.findall(r"global_batch_rows: (\d+) .*?([\d,]+) tokens", text):
        assert int(rows) * context == int(tokens.replace(",", ""))
    told = re.findall(r"global_batch_rows: (\d+).*\n *micro_batch_rows: (\d+) .*?(\w+) times a step(?: on (\d+) GPUs)?", text)
    for rows, micro, times, ranks in told:
        assert int(rows) == int(micro) * words[times] * int(ranks or 1)
