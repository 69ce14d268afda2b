"""`mft init`: each template is a project that loads, is planned and dry-runs as it stands; it appears whole or not at all."""

import json
import re
import shlex
import shutil
import stat
from pathlib import Path

import pytest
import yaml

from mft.cli.main import main
from mft.cli.usage import VERBS
from mft.data import load_recipe
from mft.errors import ConfigError, OutputError
from mft.runs import templates as module
from mft.runs.config import DataStage, TrainStage, load_project
from mft.runs.templates import FOLDER, find_template, project_name, stand_in, templates, write_template

NAMES = ["codefuse", "domain", "ziya"]
STAGES = [("codefuse", "train"), ("domain", "train"), ("ziya", "stage1"), ("ziya", "stage2")]
RECIPES = FOLDER.parents[2] / "data_recipes"


def told(capsys, *arguments, code=0):
    """What `mft` prints as JSON for these arguments."""
    with pytest.raises(SystemExit) as ended:
        main(["-q", "--json", *map(str, arguments)])
    printed = capsys.readouterr()
    assert ended.value.code == code, printed.err
    return json.loads(printed.out)


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def small_tree(tmp_path):
    """A code base of twelve files, two functions each."""
    tree = tmp_path / "src"
    tree.mkdir()
    for n in range(12):
        (tree / f"part{n}.py").write_text("\n\n".join(
            f'def {verb}_{noun}_{n}(values, limit):\n    """{verb.title()} the {noun} numbered {n} of the values up to the limit."""\n'
            f"    found = []\n    for value in values:\n        if value.{noun}{n} < limit:\n"
            f"            found.append(value.{verb}(limit, {n}))\n    return found\n"
            for verb, noun in (("collect", f"size{n * 7}"), ("measure", f"weight{n * 13}"))))
    return tree


def test_these_templates_come_with_mft(capsys):
    assert [template.name for template in templates()] == NAMES
    listed = told(capsys, "init", "--list")["templates"]
    assert [template["name"] for template in listed] == NAMES
    assert [template["takes_source"] for template in listed] == [False, True, False]
    assert all(template["summary"] for template in listed)


@pytest.mark.parametrize(("name", "said"), [
    ("zia", "--template: 'zia' is no template; did you mean 'ziya'?"),
    ("qwen", "--template: 'qwen' is no template; templates: codefuse, domain, ziya"),
    (None, "give a --template; templates: codefuse, domain, ziya"),
])
def test_another_name_is_answered_with_those_that_there_are(name, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        find_template(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_template_is_a_project_called_like_its_folder_whose_recipes_find_their_files(name, tmp_path, capsys):
    result = told(capsys, "init", tmp_path / "my project", "--template", name)
    project = load_project(Path(result["project"]))
    assert project.name == result["name"] == "my-project"
    assert project.model.base == "tiny-code-llama"
    folder = tmp_path / "my project"
    for stage in project.stages:
        if isinstance(stage, DataStage):
            assert load_recipe(folder / stage.recipe, parameters=stage.values(folder, tmp_path), must_exist=True).tasks
    assert names_in(folder) == result["files"] == names_in(FOLDER / name)
    assert "runs/my-project" in (folder / "README.md").read_text()
    assert project.stages[-1].kind == "report"
    assert {stage.kind for stage in project.stages} >= {"data", "train", "merge", "evaluate", "release", "report"}


@pytest.mark.parametrize("name", NAMES)
def test_a_template_goes_down_to_a_release_and_a_page(name, tmp_path):
    write_template(find_template(name), tmp_path / "mine")
    assert [stage.kind for stage in load_project(tmp_path / "mine" / "project.yaml").stages][-2:] == ["release", "report"]


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_each_train_stage_of_a_template_dry_runs_and_is_planned_as_it_stands(name, stage, tmp_path, capsys, tiny_base, small_tree):
    source = ["--source", small_tree] if name == "domain" else []
    config = told(capsys, "init", tmp_path / "p", "--template", name, *source)["project"]
    facts = told(capsys, "train", config, "--stage", stage, "--dry-run", "--out", tmp_path / "out")
    assert facts["samples"] > 5
    assert facts["dropped"] == {}
    assert 4 <= facts["steps"] <= 60
    assert told(capsys, "plan", config, "--gpu", "RTX4090", "--out", tmp_path / "out")["fits"]


@pytest.mark.parametrize("name", NAMES)
def test_the_comments_of_a_template_tell_what_to_change_and_its_commands_exist(name):
    texts = {path.name: path.read_text(encoding="utf-8") for path in [*(FOLDER / name).glob("*.yaml"), FOLDER / name / "README.md"]}
    assert texts["project.yaml"].count("[real run]") >= 8
    commands = [command for text in texts.values() for command in re.findall(r"(?m)^(?:#  | ) +mft (.*?)(?: {2,}.*)?$", text)]
    assert len(commands) >= 5
    for command in commands:
        verb, *arguments = shlex.split(command.replace("[", "").replace("]", ""))
        assert verb in VERBS
        assert all((FOLDER / name / word).is_file() for word in arguments if word.endswith(".yaml"))
    for line in texts["project.yaml"].splitlines():   # what is to be uncommented is a stage
        if re.match(r" +# - \{kind", line):
            yaml.safe_load(line.replace("# ", "", 1))


@pytest.mark.parametrize("name", ["codefuse", "ziya"])
def test_rows_of_a_template_are_all_kept_and_every_task_has_rows_on_both_sides(name, tmp_path, capsys):
    config = Path(told(capsys, "init", tmp_path / "p", "--template", name)["project"])
    for stage in load_project(config).stages:
        if isinstance(stage, DataStage):
            facts = told(capsys, "data", "build", config.parent / stage.recipe, "--out", tmp_path / stage.name)
            assert facts["dropped"] == {}
            assert all(parts["train"] >= 3 and parts["validation"] >= 2 for parts in facts["per_task"].values())


def test_the_stages_of_ziya_go_on_from_the_merged_weights_with_a_lower_rate(tmp_path):
    write_template(find_template("ziya"), tmp_path / "p")
    first, second = (stage for stage in load_project(tmp_path / "p" / "project.yaml").stages if isinstance(stage, TrainStage))
    assert second.init_from == "merged1"
    assert second.training.learning_rate < first.training.learning_rate


def test_the_code_base_of_domain_is_the_one_that_was_given_and_else_a_stand_in(tmp_path, small_tree):
    odd = tmp_path / 'a "b" #c'
    shutil.copytree(small_tree, odd)
    for number, (source, expected) in enumerate([(small_tree, small_tree), (odd, odd), (None, stand_in())]):
        result = write_template(find_template("domain"), tmp_path / str(number), source)
        data = load_project(tmp_path / str(number) / "project.yaml").stage("data")
        assert isinstance(data, DataStage)
        assert data.parameters["tree"].path == result["source"] == str(expected)


def test_the_recipe_of_domain_is_the_shipped_one_but_for_the_share_that_is_held_out():
    ours, shipped = (yaml.safe_load(path.read_text(encoding="utf-8"))
                     for path in (FOLDER / "domain" / "recipe.yaml", RECIPES / "my-repository.yaml"))
    assert {key: ours[key] for key in ("tasks", "steps", "mixture")} == {key: shipped[key] for key in ("tasks", "steps", "mixture")}
    assert (ours["split"], shipped["split"]) == ({"validation": 0.2, "by": "file"}, {"validation": 0.05, "by": "file"})


@pytest.mark.parametrize(("template", "source", "said"), [
    ("ziya", ".", "--source: template 'ziya' reads no code base; templates that do: domain"),
    ("domain", "nowhere", "--source: nowhere: no such folder"),
    ("domain", __file__, "is a file; give the folder that holds the code"),
])
def test_a_source_that_cannot_be_is_refused_before_anything_is_written(template, source, said, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(said)):
        write_template(find_template(template), tmp_path / "p", Path(source))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_refused_and_overwritten_only_when_asked_with_other_files_kept(tmp_path):
    folder, ziya = tmp_path / "p", find_template("ziya")
    write_template(ziya, folder)
    (folder / "project.yaml").write_text("mine")
    (folder / "runs").mkdir()
    (folder / "runs" / "weights").write_text("dear")
    (folder / "script").write_text("#!/bin/sh\n")
    (folder / "script").chmod(0o755)
    (folder / "link").symlink_to("nowhere")
    with pytest.raises(OutputError, match=r"exists and is not empty; give another folder, or --overwrite"):
        write_template(ziya, folder)
    assert (folder / "project.yaml").read_text() == "mine"
    write_template(ziya, folder, overwrite=True)
    assert load_project(folder / "project.yaml").name == "p"
    assert (folder / "runs" / "weights").read_text() == "dear"
    assert (folder / "script").stat().st_mode & stat.S_IXUSR
    assert (folder / "link").readlink() == Path("nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("before", [False, True])
def test_a_template_that_cannot_be_written_to_its_end_leaves_what_was_there(before, tmp_path, monkeypatch):
    folder = tmp_path / "p"
    if before:
        write_template(find_template("ziya"), folder)
        (folder / "project.yaml").write_text("mine")

    def stops(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_check", stops)
    with pytest.raises(KeyboardInterrupt):
        write_template(find_template("codefuse"), folder, overwrite=before)
    assert [path.name for path in tmp_path.iterdir()] == (["p"] if before else [])
    if before:
        assert (folder / "project.yaml").read_text() == "mine"
        assert not (folder / "recipe.yaml").exists()


def test_the_current_folder_and_a_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    for out, said in ((Path("."), "is the current folder"), (Path("file"), "is a file, not a folder")):
        with pytest.raises(OutputError, match=said):
            write_template(find_template("ziya"), out, overwrite=True)


@pytest.mark.parametrize(("folder", "name"), [("p", "p"), ("My project", "My-project"), ("-x.", "x"), ("模型", "project"),
                                              ("a_b.c-1", "a_b.c-1")])
def test_a_project_is_called_like_its_folder_where_a_name_may_be_so(folder, name):
    assert project_name(Path("/tmp") / folder) == name


def test_a_folder_is_needed(capsys):
    assert "give a folder: mft init DIR" in told(capsys, "init", "--template", "ziya", code=2)["error"]
