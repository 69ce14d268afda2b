"""The model card says what the run's files say, in the hub's form, and names what they do not."""

import json

import yaml

from mft.release.card import card_text
from mft.release.make import release
from mft.release.records import RunRecords, read_model_records, read_run_records


def parts_of(text):
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_a_card_has_the_hubs_metadata_and_every_table_of_the_run(run_folder, tmp_path):
    release(run_folder, tmp_path / "demo-7b", licence="llama2")
    head, body = parts_of((tmp_path / "demo-7b" / "README.md").read_text())
    assert head == {"license": "llama2", "library_name": "transformers", "pipeline_tag": "text-generation", "base_model": "acme/base-7b",
                    "base_model_relation": "finetune", "tags": ["code", "mft", "codefuse"]}
    for line in ("# demo-7b",
                 "A merged model; base model: acme/base-7b.",
                 "<|role_start|>system<|role_end|>Be brief.<|role_start|>human<|role_end|>2+2?<|role_start|>bot<|role_end|>4</s>"
                 "<|role_start|>human<|role_end|>3+3?<|role_start|>bot<|role_end|>",
                 "- an answer ends at `</s>` (2); `generation_config.json` names them",
                 "| adapter | type lora, rank 16, alpha 32 |", "| training.learning_rate | 0.0002 |", "| training.seed | 1234 |",
                 "| optimizer steps | 120 |", "| text2code | 140,000 | 1.54 |",
                 "| rows read | 12,345 |", "| dropped, by reason | duplicate 691, too_short 212 |", "| text2code | 2,911 | 148 |",
                 "| added to | original weights, written as fp32 |", "| largest difference, tolerance | 0.0125, 0.09 |",
                 "| text2code | 148 | 1.8800 | 1.4900 | 1.4905 (-0.3895 ± 0.0213) |", "| measure | mean negative log-likelihood |"):
        assert line in body.splitlines(), line
    assert "/home/me" not in body


def test_what_no_file_tells_is_said_to_be_unknown(run_folder):
    (run_folder / "merged" / "mft.json").write_text("{}")
    (run_folder / "merged" / "manifest.json").unlink()
    head, body = parts_of(card_text(read_model_records(run_folder / "merged"), name="x", run=RunRecords()))
    assert head["license"] == "unknown"
    assert "base_model" not in head
    for line in ("The prompt format is not recorded: the files that made this model name none.",
                 "- licence: nobody stated one; that of the base model and of the training data applies",
                 "- base model: no file names it", "- training: no record of a run was given",
                 "- training data: no record of it was given",
                 "- quality: no evaluation of this model was recorded when the card was made"):
        assert line in body.splitlines(), line


def test_a_base_that_was_a_folder_here_is_called_by_its_name_alone(run_folder):
    records = read_run_records(run_folder)
    records.config["model"]["base"] = "/home/me/models/base-7b"
    text = card_text(read_model_records(run_folder / "merged"), name="x", run=records, stage="merged")
    assert "/home/me" not in text
    assert "- where the base model `base-7b` can be had: it was a folder of the machine that made this" in text


def test_scores_and_quantised_forms_are_tables_with_their_protocol(run_folder):
    run = json.loads((run_folder / "run.json").read_text())
    run["stages"] += [
        {"name": "he", "kind": "evaluate", "result": {"benchmark": "humaneval", "models": ["merged"], "passed": 121, "total": 164,
                                                      "pass@1": 0.7378, "ci95": [0.665, 0.799], "protocol": {"prompt": "codefuse"}}},
        {"name": "q", "kind": "quantize", "result": {"jobs": [{"name": "gptq-4bit-64g-actorder_True", "bits": 4, "group_size": 64,
                                                               "desc_act": True, "damp": 0.1, "bytes": 18970886144, "perplexity": 4.25}]}}]
    (run_folder / "run.json").write_text(json.dumps(run))
    text = card_text(read_model_records(run_folder / "merged"), name="x", run=read_run_records(run_folder), stage="merged")
    assert "| merged | 0.7378 | 0.665, 0.799 | 121 | 164 |" in text
    assert "| prompt | codefuse |" in text
    assert "| gptq-4bit-64g-actorder_True | 4 | 64 | yes | 0.1 | 18,970,886,144 | 4.25 |" in text
    assert "whether generated code is right" not in text


def test_each_prompt_format_shows_its_own_bytes_and_bos(llama2_tokenizer_folder, codellama70b_tokenizer_folder):
    from mft.release.prompt_example import prompt_section

    text = prompt_section(codellama70b_tokenizer_folder, "codellama70b")
    assert "- 51 tokens; BOS: `<s>` (1) at 0" in text
    assert "the chat template writes BOS itself" in text
    assert "`<step>` (32015), `</s>` (2)" in text
    text = prompt_section(llama2_tokenizer_folder, "ziya")
    assert "'<s><human>: \\nBe brief.\\n2+2?\\n<bot>: \\n4</s><human>: \\n3+3?\\n<bot>: \\n'" in text
    text = prompt_section(llama2_tokenizer_folder, "codefuse")
    assert "BOS: none" in text
    assert "writes BOS" not in text
    assert "nothing is put before the prompt: whoever renders the template" in text


def test_scores_of_a_stage_over_several_models_are_told_with_their_protocol(run_folder):
    run = json.loads((run_folder / "run.json").read_text())
    scores = {name: {"passed": passed, "total": 164, "pass@1": passed / 164, "ci95": [low, high],
                     "protocol": {"name": "codefuse", "sha256": "76a975654e1a"}}
              for name, passed, low, high in (("base", 80, 0.412, 0.564), ("merged", 121, 0.666, 0.799))}
    run["stages"].append({"name": "he", "kind": "evaluate", "result": {"benchmark": "humaneval", "models": ["base", "merged"],
                                                                       "scores": scores}})
    (run_folder / "run.json").write_text(json.dumps(run))
    text = card_text(read_model_records(run_folder / "merged"), name="x", run=read_run_records(run_folder), stage="merged")
    assert "| base | 0.4878 | 0.412, 0.564 | 80 | 164 |" in text
    assert "| merged | 0.7378 | 0.666, 0.799 | 121 | 164 |" in text
    assert "| sha256 | 76a975654e1a |" in text
