"""The whole page: what it shows, what it must never do."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import report_example

from mft.errors import DataError
from mft.report.page import write_report

HEADINGS = ["Before and after", "Generations", "Training", "Lengths and fill", "What is trained", "Data", "Drops by reason",
            "Merge check", "The run"]
URL_ATTRIBUTES = {"src", "srcset", "href", "xlink:href", "action", "formaction", "data", "poster", "background", "ping", "cite"}
CHILDLESS = {"meta"}


@pytest.fixture
def example_run(tmp_path: Path) -> Path:
    """A complete run folder."""
    return report_example.write_run(tmp_path / "quickstart")


class Page(HTMLParser):
    """The page as a browser's parser sees it: elements, the text of headings, cells, samples."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.rows: list[list[tuple[str, dict[str, str | None]]]] = []
        self.samples: list[list[tuple[str, bool]]] = []
        self.in_sample = False
        self.text = ""
        self.feed(text)
        assert self.open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in CHILDLESS:
            self.open.append(tag)
        if tag == "h2":
            self.headings.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(("", attributes))
        if tag == "pre" and attributes.get("class") == "sample":
            self.samples.append([])
            self.in_sample = True
        elif self.in_sample:
            self.samples[-1].append(("", tag == "mark" and attributes.get("class") == "trained"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"
        if tag == "pre":
            self.in_sample = False

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.text += data
        if "h2" in self.open:
            self.headings[-1] += data
        if self.rows and {"td", "th"} & set(self.open):
            cell, attributes = self.rows[-1].pop()
            self.rows[-1].append((cell + data, attributes))
        if self.in_sample:
            span, trained = self.samples[-1].pop()
            self.samples[-1].append((span + data, trained))


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def row_of(page: Page, first: str, after: str) -> list[tuple[str, dict[str, str | None]]]:
    """The first row with that header below the header row that has the cell `after`."""
    start = next(index for index, row in enumerate(page.rows) if any(cell == after for cell, _ in row))
    return next(row for row in page.rows[start:] if row and row[0][0] == first)


def test_a_full_run_has_every_section_in_order(example_run: Path) -> None:
    page = page_of(example_run)
    assert page.headings == HEADINGS
    assert "Not in this run" not in page.text
    titles = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg" and "aria-label" in attributes]
    assert titles == ["Held-out loss of base and merged", "Loss per task over optimizer steps", "Use of the packed rows, train",
                      "Sample lengths, train", "Use of the packed rows, validation", "Sample lengths, validation"]


def test_the_page_is_written_beside_the_run_or_where_asked(example_run: Path, tmp_path: Path) -> None:
    assert write_report(example_run) == example_run / "report.html"
    out = tmp_path / "elsewhere" / "page.html"
    assert write_report(example_run, out) == out
    assert out.read_text(encoding="utf-8") == (example_run / "report.html").read_text(encoding="utf-8")
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_nothing_is_fetched_and_nothing_runs(example_run: Path) -> None:
    text = write_report(example_run).read_text(encoding="utf-8")
    page = Page(text)
    links = [(tag, key, value) for tag, attributes in page.elements for key, value in attributes.items() if key in URL_ATTRIBUTES]
    assert links
    assert all(tag == "a" and key == "href" and value is not None and value.startswith("#") for tag, key, value in links)
    loaders = {"script", "link", "img", "image", "iframe", "object", "embed", "use", "base", "form"}
    assert not loaders & {tag for tag, _ in page.elements}
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style
    assert not re.search(r"url\(|@import|@font-face|https?:", style[1])
    # The sample's own link is the only one, and it is text.
    assert re.findall(r"https?://[^&\s]+", text) == ["https://example.org/x"]
    policy = {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"}
    assert ("meta", policy) in page.elements


def test_every_link_of_the_navigation_has_its_section(example_run: Path) -> None:
    page = page_of(example_run)
    anchors = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert [attributes["href"] for tag, attributes in page.elements if tag == "a"] == [f"#{anchor}" for anchor in anchors]
    assert len(set(anchors)) == len(anchors) == len(HEADINGS)


@pytest.mark.parametrize(("file", "key"), [
    ("run.json", "name"), ("config.yaml", ""), ("loss/result.json", "generations"), ("train/run.json", "tasks"),
    ("data/manifest.json", "dropped"), ("merged/merge.json", "reference")])
def test_markup_in_the_data_is_shown_as_text(example_run: Path, file: str, key: str) -> None:
    evil = "</pre></style><script>alert(1)</script><img src=x onerror=\"alert('2')\">&amp;"
    path = example_run / file
    if not key:
        path.write_text(evil, encoding="utf-8")
    else:
        value = {"generations": [{"task": evil, "id": evil, "prompt": evil, "completion": evil, "model": evil, "reference": evil}],
                 "tasks": {evil: {"loss": 1.0, "tokens": 5}}, "dropped": {evil: 2804}}.get(key, evil)
        change(path, **{key: value})
    page = page_of(example_run)
    assert "script" not in {tag for tag, _ in page.elements}
    assert "img" not in {tag for tag, _ in page.elements}
    assert evil in page.text


def test_trained_spans_are_coloured_exactly_as_given(example_run: Path) -> None:
    page = page_of(example_run)
    expected = [[(span["text"].replace("\x00", "␀"), span["trained"]) for span in sample["spans"]]
                for sample in report_example.SAMPLES]
    assert page.samples == expected
    assert "".join(text for text, trained in page.samples[2] if trained) == "One.</s>Two.</s>"


def test_a_newline_at_the_start_of_a_block_survives_the_html_parser(example_run: Path) -> None:
    text = write_report(example_run).read_text(encoding="utf-8")
    assert not re.search(r"<pre[^>]*>\n", text)
    assert '<pre class="sample" tabindex="0"><span>\n&lt;s&gt;human' in text
    assert "def escape(s):&#13;\n" in text


def test_the_before_and_after_table_has_the_numbers_of_the_file(example_run: Path) -> None:
    page = page_of(example_run)
    table = {**report_example.EVALUATION["tasks"], "all tasks": report_example.EVALUATION["overall"]}
    for task, held in table.items():
        cells = row_of(page, task, "change from base")
        assert len(cells) == 10
        assert [cell for cell, _ in cells[1:3]] == [f"{held['rows']:,}", f"{held['tokens']:,}"]
        for (cell, attributes), model in zip(cells[3:6], ("base", "train", "merged"), strict=True):
            assert float(attributes["title"] or "") == held["loss"][model]
            assert cell == f"{held['loss'][model]:.3f}"
        for (cell, attributes), model in zip(cells[6:8], ("train", "merged"), strict=True):
            difference = held["difference"][model]
            assert attributes["title"] == f"{difference['mean']!r} ± {difference['se']!r}"
            shown = re.fullmatch(r"([↓↑≈])\u00a0([−+])([\d.]+) ± ([\d.]+)", cell)
            assert shown
            assert float(shown[3]) == pytest.approx(abs(difference["mean"]), abs=0.0006)
            assert shown[2] == ("−" if difference["mean"] < 0 else "+")
    assert [cell for cell, _ in row_of(page, "all tasks", "change from base")] == [
        "all tasks", "457", "21,000", "2.046", "1.632", "1.633",
        "↓\u00a0−0.4135 ± 0.0062", "↓\u00a0−0.4131 ± 0.0062", "7.73", "5.12"]


@pytest.mark.parametrize(("mean", "se", "shown", "class_"), [
    (-0.5, 0.02, "↓\u00a0−0.500 ± 0.020", "number fall"), (0.057, 0.02, "↑\u00a0+0.057 ± 0.020", "number rise"),
    (0.011, 0.02, "≈\u00a0+0.011 ± 0.020", "number same"), (-0.5, None, "−0.5000", "number same")])
def test_falls_and_rises_are_told_by_sign_and_not_by_colour_alone(example_run: Path, mean: float, se: float | None, shown: str,
                                                                  class_: str) -> None:
    tasks = json.loads(json.dumps(report_example.EVALUATION["tasks"]))
    tasks["usage"]["difference"]["merged"] = {"mean": mean, "se": se}
    change(example_run / "loss" / "result.json", tasks=tasks)
    cell, attributes = row_of(page_of(example_run), "usage", "change from base")[7]
    assert (cell, attributes["class"]) == (shown, class_)


def test_a_failed_verdict_names_each_fault(example_run: Path) -> None:
    change(example_run / "loss" / "result.json", verdict={"ok": False, "faults": ["task 'usage' rose by 2.3 standard errors"]})
    page = page_of(example_run)
    assert "Check failed.task 'usage' rose by 2.3 standard errors" in page.text
    assert "Check passed" not in page.text


def test_a_verdict_over_one_model_claims_no_fall(example_run: Path) -> None:
    path = example_run / "loss" / "result.json"
    tasks = {"usage": {"rows": 3, "tokens": 40, "loss": {"base": 1.5}, "difference": {}}}
    change(path, models=["base"], tasks=tasks, overall=tasks["usage"], verdict={"ok": True, "faults": [], "notes": ["one model"]})
    page = page_of(example_run)
    assert "One model, nothing to compare." in page.text
    assert "Check passed" not in page.text


def test_generations_of_one_prompt_share_a_card(example_run: Path) -> None:
    text = write_report(example_run).read_text(encoding="utf-8")
    cards = re.findall(r'<article class="card">.*?</article>', text, re.DOTALL)
    assert re.findall(r"<h4>(.*?)</h4>", cards[2]) == [
        "prompt", "reference", "base, cut at the token limit", "merged, cut at the token limit"]
    assert re.findall(r"<h4>(.*?)</h4>", cards[0]) == ["prompt", "reference", "base", "merged"]
    assert "<span>def f(x):\n    return x  # merged\n</span>" in cards[0]


def test_losses_that_no_chart_can_show_are_reported(example_run: Path) -> None:
    with (example_run / "train" / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"step": 121, "loss": NaN}\n{"step": 122, "lo')
    text = page_of(example_run).text
    assert "Logged losses that are not finite: 1." in text
    assert "The last line of the metrics file is cut off" in text


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_samples_is_shown_without_a_chart(example_run: Path, split: str) -> None:
    tokens = json.loads(json.dumps(report_example.TRAIN["tokens"]))
    tokens[split] = {"samples": 0, "tokens": 0, "trained_tokens": 0, "rows": 0, "fill": 0.0, "context": 1024, "read": 0, "kept": 0,
                     "dropped": {}, "per_task": {}, "lengths": {"edges": [], "counts": []}}
    change(example_run / "train" / "run.json", tokens=tokens)
    labels = [attributes.get("aria-label") for tag, attributes in page_of(example_run).elements if tag == "svg"]
    assert f"Sample lengths, {split}" not in labels


@pytest.mark.parametrize(("file", "heading", "reason"), [
    ("data/manifest.json", "Data", "data ledger (data/manifest.json is not there)"),
    ("train/run.json", "Training", "training (train/run.json is not there)"),
    ("merged/merge.json", "Merge check", "merge check (merged/merge.json is not there)"),
    ("loss/result.json", "Before and after", "before and after (loss/result.json is not there)"),
])
def test_a_section_without_its_file_is_left_out_and_named(example_run: Path, file: str, heading: str, reason: str) -> None:
    (example_run / file).unlink()
    page = page_of(example_run)
    assert heading not in page.headings
    assert f"Not in this run: {reason}" in page.text


def test_parts_that_a_file_lacks_are_named(example_run: Path) -> None:
    (example_run / "train" / "metrics.jsonl").unlink()
    (example_run / "config.yaml").unlink()
    change(example_run / "train" / "run.json", samples=[], tokens={})
    change(example_run / "loss" / "result.json", generations=[])
    page = page_of(example_run)
    assert page.headings == ["Before and after", "Training", "Data", "Drops by reason", "Merge check", "The run"]
    assert ("Not in this run: loss over steps (train: metrics.jsonl is not there); "
            "lengths and fill (train: no 'tokens' in run.json); trained samples (train: no 'samples' in run.json); "
            "generations (loss: none in result.json); "
            "config (config.yaml is not there).") in page.text


def test_the_folder_of_one_train_run_has_a_page_of_its_own(example_run: Path) -> None:
    page = page_of(example_run / "train")
    assert page.headings == ["Training", "Lengths and fill", "What is trained", "Drops by reason", "The run"]
    assert ("Not in this run: data ledger (no data stage); merge check (no merge stage); "
            "before and after (no evaluate stage)") in page.text


def test_two_train_stages_each_have_their_sections(example_run: Path) -> None:
    (example_run / "second").mkdir()
    for name in ("run.json", "metrics.jsonl"):
        (example_run / "second" / name).write_text((example_run / "train" / name).read_text(encoding="utf-8"), encoding="utf-8")
    change(example_run / "run.json", stages=[*report_example.RUN["stages"], {"name": "second", "kind": "train", "seconds": 1.0}])
    headings = page_of(example_run).headings
    assert [heading for heading in headings if heading.startswith("Training")] == ["Training: train", "Training: second"]


def test_a_folder_without_run_json_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: has no run.json")):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("file", "text", "message"), [
    ("run.json", "{", "run.json: is not JSON"),
    ("run.json", "{}", "run.json: has neither 'stages'"),
    ("run.json", '{"stages": [{"kind": "data"}]}', "run.json: stages.0.name: Field required"),
    ("merged/merge.json", '{"tensors": 3, "merged": "many"}', "merge.json: merged: Input should be a valid integer"),
    ("train/run.json", '{"tokens": {"train": {"samples": 1, "tokens": 1, "trained_tokens": 1, '
                       '"lengths": {"edges": [0, 1], "counts": [1, 2]}}}}',
     "run.json: tokens.train.lengths: 2 edges and 2 counts"),
    ("train/metrics.jsonl", '{"step": 1, "loss": 1.0}\noops\n{"step": 2, "loss": 1.0}\n', "metrics.jsonl:2: is not JSON"),
])
def test_a_broken_file_is_one_message_with_its_name(example_run: Path, file: str, text: str, message: str) -> None:
    (example_run / file).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        write_report(example_run)
    assert message in str(caught.value)
    assert not (example_run / "report.html").exists()


def test_a_ledger_that_does_not_add_up_is_shouted(example_run: Path) -> None:
    assert "does not add up" not in page_of(example_run).text
    change(example_run / "data" / "manifest.json", kept=9540)
    train = json.loads(json.dumps(report_example.TRAIN))
    train["tokens"]["train"]["dropped"]["over_context"] = 19
    change(example_run / "train" / "run.json", **train)
    text = page_of(example_run).text
    assert "Ledger of stage data does not add up: 12,345 read, but 9,540 kept + 2,804 dropped = 12,344." in text
    assert "Ledger of encoding train does not add up: 9,082 read, but 9,060 kept + 21 dropped = 9,081." in text


def test_drops_of_data_steps_and_of_encoding_are_shown_by_reason(example_run: Path) -> None:
    text = write_report(example_run).read_text(encoding="utf-8")
    bars = re.findall(r'<span class="name">(.*?)</span>.*?width="([\d.]+)%" class="bar".*?<span class="value">(.*?)</span>', text)
    assert bars == [("no_docstring", "100", "1,800"), ("duplicate", "38.389", "691"), ("too_short", "11.778", "212"),
                    ("too_long", "5.444", "98"), ("over_context (encoding, train)", "1.111", "20"), ("unparsable", "0.167", "3"),
                    ("control_text (encoding, train)", "0.111", "2"), ("over_context (encoding, validation)", "0.111", "2")]


@pytest.mark.parametrize(("values", "title"), [
    ({"max_abs_diff": 0.01, "tolerance": 0.004}, "Merge check failed."),
    ({"max_abs_diff": 0.003, "tolerance": 0.004}, "The merged model agrees with base + adapter."),
    ({"max_abs_diff": float("nan"), "tolerance": 0.004}, "Merge check failed."),
    ({"max_abs_diff": None, "tolerance": None, "verify": "none"}, "Not checked."),
])
def test_the_merge_check_compares_difference_and_tolerance(example_run: Path, values: dict[str, object], title: str) -> None:
    change(example_run / "merged" / "merge.json", **values)
    titles = {"Merge check failed.", "The merged model agrees with base + adapter.", "Not checked."}
    text = page_of(example_run).text
    assert {each for each in titles if each in text} == {title}


def test_a_path_of_the_machine_is_not_published(example_run: Path) -> None:
    text = write_report(example_run).read_text(encoding="utf-8")
    assert "/home/someone" not in text
    assert "train/adapter" in text


def test_the_page_of_a_running_report_stage_does_not_say_running(example_run: Path) -> None:
    pill = '<span class="pill">running</span>'
    change(example_run / "run.json", status="running")
    assert pill not in write_report(example_run).read_text(encoding="utf-8")
    change(example_run / "run.json", stages=[{"name": "data", "kind": "data", "seconds": None}])
    assert pill in write_report(example_run).read_text(encoding="utf-8")


def test_the_report_needs_no_torch() -> None:
    code = "import sys, mft.report.page; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
