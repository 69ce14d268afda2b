"""A mistake in a config is one line that says where, what is allowed and what was meant; all mistakes come at once."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationInfo, field_validator, model_validator

from mft.config.load import load_config, parse_config
from mft.config.model import StrictModel
from mft.errors import ConfigError


class Lora(StrictModel):
    type: Literal["lora", "qlora"] = "lora"
    rank: int = Field(16, ge=1)
    targets: Literal["all-linear"] | list[str] = "all-linear"


class Full(StrictModel):
    type: Literal["full"]
    freeze: tuple[str, ...] = Field((), max_length=1)


class Data(StrictModel):
    kind: Literal["data"]
    name: str
    recipe: Path


class Train(StrictModel):
    kind: Literal["train"]
    name: str
    data: str = "data"
    epochs: int = 1
    seed: int = 1
    rate: float = Field(1e-3, gt=0, lt=10)
    recompute: bool | Literal["auto"] = "auto"
    weights: dict[str, float] = Field(default_factory=dict)
    adapter: Annotated[Lora | Full, Field(discriminator="type")] = Lora()

    @model_validator(mode="after")
    def _fits(self) -> "Train":
        if self.epochs > 1 and self.recompute is True:
            raise ValueError("recompute and several epochs do not go together")
        return self


class Project(StrictModel):
    name: str = Field(min_length=1)
    track: bool = False
    steps: int | None = None
    stages: list[Annotated[Data | Train, Field(discriminator="kind")]] = Field(default_factory=list)
    extra: dict[str, str] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _free(cls, name: str, info: ValidationInfo) -> str:
        if name in (info.context or {}).get("taken", ()):
            raise ValueError(f"'{name}' is taken")
        return name


GOOD = """\
name: demo
stages:
  - kind: data
    name: clean
    recipe: a.yaml
  - kind: train
    name: tune
    epochs: 2
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(Project, text, "p.yaml")
    return caught.value.problems


@pytest.fixture
def good_file(tmp_path: Path) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text(GOOD)
    return path


def train_with(line: str) -> str:
    return f"{GOOD}    {line}\n"


def test_a_good_file_loads():
    project = parse_config(Project, GOOD)
    assert project == Project(name="demo", stages=[Data(kind="data", name="clean", recipe=Path("a.yaml")),
                                                   Train(kind="train", name="tune", epochs=2)])


@pytest.mark.parametrize(("written", "expected"), [("no", False), ("off", False), ("false", False), ("on", True), ("Yes", True)])
def test_the_field_decides_that_no_is_false(written: str, expected: bool):
    assert parse_config(Project, f"name: x\ntrack: {written}").track is expected


@pytest.mark.parametrize("written", ["no", "off", "2024-01-31", "0755", "1.10", "3e-4", "1_000", "true"])
def test_a_field_for_text_keeps_what_was_written(written: str):
    project = parse_config(Project, f"name: {written}\nextra: {{{written}: {written}}}")
    assert project.name == written
    assert project.extra == {written: written}


@pytest.mark.parametrize(("written", "expected"), [("1_000", 1000), ("0755", 755), ("1e3", 1000), ("'7'", 7), ("~", None)])
def test_a_field_for_whole_numbers_takes_them_as_people_write_them(written: str, expected: int | None):
    steps = parse_config(Project, f"name: x\nsteps: {written}").steps
    assert steps == expected
    assert type(steps) in (int, type(None))


@pytest.mark.parametrize(("written", "expected"), [("3e-4", 0.0003), ("1e-3", 0.001), ("1", 1.0)])
def test_a_field_for_numbers_takes_exponents(written: str, expected: float):
    rate = parse_config(Project, train_with(f"rate: {written}")).stages[1].rate
    assert rate == expected
    assert type(rate) is float


def test_all_mistakes_come_at_once_in_the_order_of_the_file():
    text = """\
nam: demo
track: maybe
stages:
  - kind: data
    name: clean
  - kind: train
    name: tune
    epoch: two
    rate: fast
    adapter: {type: lora, rank: 0, target: [a]}
steps: 1.5
"""
    assert problems_of(text) == [
        "p.yaml:1: name: is required and not given",
        "p.yaml:1: nam: not a known key; did you mean 'name'?",
        "p.yaml:2: track: expected true or false, found 'maybe'",
        "p.yaml:4: stages.clean.recipe: is required and not given",
        "p.yaml:8: stages.tune.epoch: not a known key; did you mean 'epochs'?",
        "p.yaml:9: stages.tune.rate: expected a number, found 'fast'",
        "p.yaml:10: stages.tune.adapter.rank: expected at least 1, found 0",
        "p.yaml:10: stages.tune.adapter.target: not a known key; did you mean 'targets'?",
        "p.yaml:11: steps: expected a whole number, found 1.5",
    ]


@pytest.mark.parametrize(("line", "problem"), [
    ("rate: 0", "rate: expected more than 0, found 0"),
    ("rate: 10", "rate: expected less than 10, found 10"),
    ("rate: .inf", "rate: expected a finite number, found .inf"),
    ("seed: foo", "seed: expected a whole number, found 'foo'"),
    ("seed: [1]", "seed: expected a whole number, found a list"),
    ("seed:", "seed: expected a whole number, found nothing"),
    ("recompute: some", "recompute: expected true or false or 'auto', found 'some'"),
    ("recompute: atuo", "recompute: expected true or false or 'auto', found 'atuo'; did you mean 'auto'?"),
    ("data: {a: b}", "data: expected text, found keys and values"),
    ("weights: 3", "weights: expected keys and values, found 3"),
    ("weights: {a: 1, b: x}", "weights.b: expected a number, found 'x'"),
    ("adapter: lora", "adapter: expected keys and values, found 'lora'"),
    ("adapter: {rank: 4}", "adapter.type: is required and not given"),
    ("adapter: {type: lorra}", "adapter.type: expected 'lora' or 'qlora' or 'full', found 'lorra'; did you mean 'lora'?"),
    ("adapter: {type: full, freeze: [a, b]}", "adapter.freeze: expected 1 or fewer entries, found a list"),
    ("adapter: {type: full, rank: 3}", "adapter.rank: not a known key; allowed: freeze, type"),
    ("adapter: {type: lora, targets: [q, {a: b}]}", "adapter.targets.1: expected text, found keys and values"),
    ("adapter: {type: lora, targets: linear}",
     "adapter.targets: expected 'all-linear' or a list, found 'linear'; did you mean 'all-linear'?"),
    ("train: 1", "train: not a known key; allowed: adapter, data, epochs, kind, name, rate, recompute, seed, weights"),
])
def test_a_mistake_in_a_branch_of_a_union_reads_as_a_person_would_write_it(line: str, problem: str):
    assert problems_of(train_with(line)) == [f"p.yaml:9: stages.tune.{problem}"]


def test_a_mistake_of_two_keys_together_has_the_line_of_their_block():
    assert problems_of(train_with("recompute: on")) == ["p.yaml:6: stages.tune: recompute and several epochs do not go together"]


def test_a_wrong_kind_of_stage_is_one_message_at_its_own_line():
    assert problems_of(GOOD.replace("kind: train", "kind: trian")) == [
        "p.yaml:6: stages.tune.kind: expected 'data' or 'train', found 'trian'; did you mean 'train'?"]
    assert problems_of("name: x\nstages:\n  - name: a\n") == ["p.yaml:3: stages.a.kind: is required and not given"]


def test_a_key_that_is_called_like_the_kind_of_its_stage_is_still_a_key():
    assert problems_of(GOOD.replace("recipe: a.yaml", "data: x")) == [
        "p.yaml:3: stages.clean.recipe: is required and not given",
        "p.yaml:5: stages.clean.data: not a known key; allowed: kind, name, recipe",
    ]


def test_an_item_without_a_name_is_called_by_its_index():
    assert problems_of("name: x\nstages:\n  - kind: data\n    recipe: 3.yaml\n") == ["p.yaml:3: stages.0.name: is required and not given"]


def test_a_long_value_is_not_repeated_in_full():
    [problem] = problems_of(f"name: x\nsteps: {'long ' * 100}")
    assert problem.startswith("p.yaml:2: steps: expected a whole number, found 'long long")
    assert len(problem) < 150


@pytest.mark.parametrize(("text", "problem"), [
    ("", "p.yaml:1: the file is empty"),
    ("# nothing but a comment\n", "p.yaml:1: the file is empty"),
    ("- a\n- b\n", "p.yaml:1: expected keys and values, found a list"),
    ("just text", "p.yaml:1: expected keys and values, found 'just text'"),
    ("name: ''", "p.yaml:1: name: expected text of length 1 or more, found ''"),
    ("name:\nstages: {}\n", "p.yaml:1: name: expected text, found nothing\np.yaml:2: stages: expected a list, found nothing"),
])
def test_a_file_of_the_wrong_shape_is_said_to_be_so(text: str, problem: str):
    assert problems_of(text) == problem.split("\n")


def test_a_validator_sees_the_context_and_speaks_for_itself(good_file: Path):
    with pytest.raises(ConfigError) as caught:
        load_config(Project, good_file, context={"taken": ["demo"]})
    assert caught.value.problems == [f"{good_file}:1: name: 'demo' is taken"]


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_config(Project, tmp_path / "nowhere.yaml", ["name=x"])


def test_overrides_replace_and_add_values_by_name_index_and_key(good_file: Path):
    project = load_config(Project, good_file, [
        "name=other", "track=yes", "stages.tune.epochs=3", "stages.1.rate=3e-4", "stages.tune.weights.chat=2",
        "stages.tune.adapter={type: full, freeze: [a]}", "stages.0.recipe=b=c.yaml", "extra={a: 010}", "steps="])
    assert project == Project(
        name="other", track=True, extra={"a": "010"},
        stages=[Data(kind="data", name="clean", recipe=Path("b=c.yaml")),
                Train(kind="train", name="tune", epochs=3, rate=0.0003, weights={"chat": 2.0}, adapter=Full(type="full", freeze=("a",)))])


def test_an_override_can_replace_a_whole_list_item(good_file: Path):
    project = load_config(Project, good_file, ["stages.clean={kind: train, name: first}"])
    assert [stage.name for stage in project.stages] == ["first", "tune"]


@pytest.mark.parametrize(("override", "problem"), [
    ("name", "override 'name': expected key.sub=value"),
    ("=3", "override '=3': expected key.sub=value"),
    ("stages..epochs=1", "override 'stages..epochs=1': expected key.sub=value"),
    ("steps=[1", "override 'steps=[1': not valid YAML: expected ',' or ']', but got '<stream end>'"),
    ("stages.tuna.epochs=1", "override 'stages.tuna.epochs=1': stages has no item 'tuna'; did you mean 'tune'?"),
    ("stages.7.epochs=1", "override 'stages.7.epochs=1': stages has no item '7'; allowed: clean, tune"),
    ("name.first=x", "override 'name.first=x': name is 'demo' and has no key 'first'"),
    ("stages.tune.epochs=two", "override 'stages.tune.epochs=two': stages.tune.epochs: expected a whole number, found 'two'"),
    ("stages.tune.epoch=2", "override 'stages.tune.epoch=2': stages.tune.epoch: not a known key; did you mean 'epochs'?"),
    ("extra={a: [1]}", "override 'extra={a: [1]}': extra.a: expected text, found a list"),
])
def test_a_mistake_in_an_override_names_the_override(good_file: Path, override: str, problem: str):
    with pytest.raises(ConfigError) as caught:
        load_config(Project, good_file, [override])
    assert caught.value.problems == [problem]


def test_mistakes_in_overrides_and_in_the_file_come_together(good_file: Path):
    good_file.write_text(GOOD.replace("epochs", "epoch"))
    with pytest.raises(ConfigError) as caught:
        load_config(Project, good_file, ["stages.tuna.rate=1", "name"])
    assert caught.value.problems == [
        "override 'stages.tuna.rate=1': stages has no item 'tuna'; did you mean 'tune'?",
        "override 'name': expected key.sub=value",
        f"{good_file}:8: stages.tune.epoch: not a known key; did you mean 'epochs'?",
    ]
    assert str(caught.value) == "\n".join(caught.value.problems)


def test_an_override_of_an_empty_file_does_not_hide_that_it_is_empty(good_file: Path):
    good_file.write_text("")
    with pytest.raises(ConfigError, match="the file is empty"):
        load_config(Project, good_file, ["name=x"])
