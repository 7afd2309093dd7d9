"""The page of a run: complete, offline, honest about what is missing."""
import hashlib
import html.parser
import json
import re

import pytest
import sample_run

SECTIONS = ["loss", "speed", "timeline", "prediction", "memory", "experts", "failures", "text", "card"]


class Page(html.parser.HTMLParser):
    """Text of every section, and every reference that would leave the page."""

    def __init__(self, text):
        super().__init__()
        self.sections, self.current, self.references, self.open, self.scripts = {}, None, [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "section":
            self.current = attributes.get("id", "rest")
            self.sections[self.current] = ""
        self.references += [v for k, v in attributes.items() if k in ("src", "href") and not v.startswith("#")]
        if tag != "meta":
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.current:
            self.sections[self.current] += data


def render(run_tessera, folder):
    result = run_tessera("report", folder)
    assert result.returncode == 0, result.stderr
    return (folder / "report.html").read_text()


@pytest.fixture
def run_dir(tmp_path):
    sample_run.write(tmp_path / "run")
    return tmp_path / "run"


def test_page_has_every_section_and_leaves_for_nothing(run_tessera, run_dir):
    page = Page(render(run_tessera, run_dir))
    assert not page.open, "every element is closed"
    assert [name for name in page.sections] == SECTIONS
    assert page.references == []
    for name in SECTIONS:
        assert "Not shown" not in page.sections[name], page.sections[name]


def test_figures_are_those_of_the_run(run_tessera, run_dir):
    page = Page(render(run_tessera, run_dir))
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    valid = [line["valid_loss"] for line in lines if "valid_loss" in line][-1]
    assert f"{valid:.3f}" in page.sections["loss"]
    assert "killed by signal 9" in page.sections["failures"]
    assert "200 ms" in page.sections["failures"]
    # The layout that ran is second in the plan: 0.94 s predicted; rank 2 is on the second stage.
    assert "940 ms" in page.sections["prediction"]
    second_stage = 0.066 * 2**30 / 70e6 - 1
    assert f"{second_stage * 100:+.1f} %" in page.sections["prediction"]
    charts = [json.loads(s) for s in page.scripts if s.startswith("{")]
    training = charts[0]["columns"][1]
    kept = {line["step"]: line["loss"] for line in lines}  # of a step done twice the last counts
    assert charts[0]["columns"][0] == sorted(kept)
    assert training == pytest.approx([kept[step] for step in sorted(kept)])


def test_another_seed_changes_the_measured_figures(run_tessera, tmp_path):
    pages = []
    for seed in (1, 2):
        sample_run.write(tmp_path / str(seed), seed)
        pages.append(Page(render(run_tessera, tmp_path / str(seed))))
    for name in ("loss", "speed", "timeline", "prediction", "experts"):
        assert pages[0].sections[name] + str(pages[0].scripts) != pages[1].sections[name] + str(pages[1].scripts)
    assert pages[0].sections["memory"] == pages[1].sections["memory"]


def test_text_of_the_model_cannot_leave_its_element(run_tessera, tmp_path):
    sample_run.write(tmp_path / "run", text="<script>alert(1)</script>")
    text = render(run_tessera, tmp_path / "run")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not Page(text).open


@pytest.mark.parametrize("file, sections", [
    ("metrics.jsonl", ["loss", "speed", "experts"]), ("plan.json", ["prediction"]), ("timeline.json", ["timeline"]),
    ("events.jsonl", ["failures"]), ("samples.json", ["text"]), ("run.json", ["card"]), ("calibration.toml", ["card"]),
])
def test_missing_file_is_named_in_its_section(run_tessera, run_dir, file, sections):
    (run_dir / file).unlink()
    page = Page(render(run_tessera, run_dir))
    for section in sections:
        assert "Not shown" in page.sections[section] and file in page.sections[section], page.sections[section]
    assert file in page.sections["rest"]


def test_half_a_last_line_of_a_run_that_died_is_dropped(run_tessera, run_dir):
    with open(run_dir / "metrics.jsonl", "a") as file:
        file.write('{"step": 120, "lo')
    page = Page(render(run_tessera, run_dir))
    assert "rest" not in page.sections
    assert "119" in page.sections["loss"]


def test_malformed_file_is_named_and_the_page_still_comes(run_tessera, run_dir):
    (run_dir / "plan.json").write_text('{"results": [')
    page = Page(render(run_tessera, run_dir))
    assert "plan.json is not JSON" in page.sections["prediction"]


@pytest.mark.parametrize("content", ["[]", "3", "null", '{"results": 3}', '{"results": [3]}', '{"results": [{"layout": 1}]}',
                                     '{"ranks": [1]}', '{"ranks": 2}', '{"ranks": [{"classes": 3}]}', '{"traceEvents": [3]}', '[{"ph": "X"}]'])
def test_json_of_another_shape_never_stops_the_page(run_tessera, run_dir, content):
    for file in ("run.json", "plan.json", "memory.json", "timeline.json", "samples.json"):
        (run_dir / file).write_text(content)
    for file in ("metrics.jsonl", "events.jsonl"):
        (run_dir / file).write_text(content + "\n")
    assert not Page(render(run_tessera, run_dir)).open


def test_folder_without_a_run_is_one_readable_error(run_tessera, tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        result = run_tessera("report", folder)
        assert result.returncode == 1
        assert result.stderr.startswith("error: run directory ") and result.stderr.count("\n") == 1


def test_third_party_files_are_those_of_the_list(root):
    text = (root / "third_party/README.md").read_text()
    listed = dict(re.findall(r"`([\w.]+)` ([0-9a-f]{64})", text))
    assert listed
    for name, digest in listed.items():
        content = next((root / "third_party").glob("*/" + name)).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
