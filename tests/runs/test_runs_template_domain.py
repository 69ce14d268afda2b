"""The template `domain` over real code: no planted key arrives anywhere, and held-out files are better known than before."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mft.data import build, load_recipe, read_built
from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.project import Project, run_project
from mft.runs.templates import find_template, stand_in, write_template

LETTERS = "qWeRtYuIoPaSdFgHjKlZxCvBnM" * 3
KEYS = ("AKIA" + "QWERTYUIOPASDFGH", "ghp_" + LETTERS[:36], "s3cr3t" + "pw9zz", LETTERS[3:67])
"""Made up, and joined from parts, so that no scanner takes this file for a leak."""

LEAKS = '''"""Where the backups are kept."""

MODULE_KEY = "{aws}"


def open_store(host):
    """Open the connection to the store of the backups."""
    key = "{aws}"
    region = "eu-west-1"
    session = open_session(host, key, region)
    return session


def fetch_sources(name, folder):
    """Clone the repository of this name, as `git clone https://joe:{password}@host.org/x` does."""
    command = ["git", "clone", name, folder]
    run(command, token="{github}")
    checked = run(["git", "-C", folder, "fsck"])
    return checked


def sign_release(path, digest):
    """Sign the digest of a release with the key of the team that makes it."""
    pem = """-----BEGIN RSA PRIVATE KEY-----
{private}
{private}
-----END RSA PRIVATE KEY-----"""
    signature = sign(pem, digest)
    return write(path, signature)
'''


def plant(folder: Path, count: int) -> None:
    aws, github, password, private = KEYS
    for number in range(count):
        text = LEAKS.format(aws=aws, github=github, password=password, private=private)
        (folder / f"leak{number}.py").write_text(text.replace("(host)", f"(host, zone{number})"))


def files_that_hold(folder: Path, words: tuple[str, ...]) -> list[str]:
    """Files below a folder, Parquet read by its columns, that hold one of these words."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            text = str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_bytes().decode("latin-1")
            found += [path.name for word in words if word in text]
    return found


@pytest.fixture
def tree(tmp_path) -> Path:
    """The package rich, with functions that hold keys on both sides of the split."""
    shutil.copytree(stand_in(), tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    plant(tmp_path / "src", 12)
    return tmp_path / "src"


def test_a_planted_key_is_in_no_row_and_in_no_record_of_the_build(tree, tmp_path):
    write_template(find_template("domain"), tmp_path / "p", tree)
    data = load_project(tmp_path / "p" / "project.yaml").stage("data")
    recipe = load_recipe(tmp_path / "p" / "recipe.yaml", parameters=data.values(tmp_path / "p", tmp_path), must_exist=True)
    facts = build(recipe, tmp_path / "out").facts
    assert facts["dropped"]["secret"] == 12 * 3 * 3   # twelve files, three functions with a key, three tasks
    assert files_that_hold(tmp_path / "out", KEYS) == []
    assert files_that_hold(tree, KEYS[:1]) != []      # the search finds what is there
    assert facts["read"] == facts["kept"] + sum(facts["dropped"].values())


def test_no_file_is_on_both_sides_and_no_task_trains_a_function_of_a_held_out_file(tree, tmp_path):
    write_template(find_template("domain"), tmp_path / "p", tree)
    data = load_project(tmp_path / "p" / "project.yaml").stage("data")
    build(load_recipe(tmp_path / "p" / "recipe.yaml", parameters=data.values(tmp_path / "p", tmp_path)), tmp_path / "out")
    rows = read_built(tmp_path / "out")
    held_out, trained = ({row.split_key for row in rows[part]} for part in ("validation", "train"))
    assert len(held_out) >= 8
    assert not held_out & trained
    code = {part: {line.strip() for row in rows[part] for message in row.messages for line in message.content.splitlines()
                   if line.strip().startswith("def ") and len(line.strip()) > 50} for part in ("validation", "train")}
    assert len(code["validation"]) > 10
    assert not code["validation"] & code["train"]     # long heads of functions are those of one function


@pytest.mark.slow
def test_a_run_over_a_real_package_knows_its_held_out_files_better_and_shows_no_key(tree, tmp_path, tiny_base):
    """Harvest, training, merge, evaluation, report, with fewer steps than the template has."""
    write_template(find_template("domain"), tmp_path / "p", tree)
    path = tmp_path / "p" / "project.yaml"
    overrides = ["stages.train.training.max_steps=12", "stages.loss.generations=2", "stages.loss.max_new_tokens=16"]
    record = run_project(Project(load_project(path, overrides), path, tmp_path / "out", write_report))
    assert record["status"] == "done"
    results = {stage["name"]: stage["result"] for stage in record["stages"]}
    loss = results["loss"]["overall"]["loss"]
    assert loss["train"] < loss["base"] - 0.1
    assert loss["merged"] < loss["base"] - 0.1
    assert set(results["loss"]["tasks"]) == {"text2code", "docstring", "completion"}
    assert results["data"]["dropped"]["secret"] > 0
    assert files_that_hold(tmp_path / "out", KEYS) == []
