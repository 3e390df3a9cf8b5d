"""What a user reads cannot drift: tables come from the code, examples load, pictures can be read."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import unicodedata
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from orchestrator.errors import PromotionRefused, SpecError
from orchestrator.evaluation.leaderboard import COLUMNS
from orchestrator.evaluation.promotion_gate import REFUSALS
from orchestrator.ledger.state import TrialState
from orchestrator.spec.load import load_spec
from orchestrator.spec.sweep import SweepSpec
from orchestrator.sweep.open import ELSEWHERE, EXTENDABLE
from tests.support.places import ROOT
from trainers.backbones import BACKBONES, backbone
from trainers.heads import HEADS, default_scale

DOCS = ROOT / "docs"
FILE_PAGE, CLUSTER_PAGE, README = DOCS / "file.md", DOCS / "cluster.md", ROOT / "README.md"
ENVIRONMENT = {"ORCH_DATA": "/photos", "ORCH_WEIGHTS": "/weights"}
SMALLEST = {
    "name": "smallest",
    "data": {"source": "photos"},
    "search": {"learning_rate": 0.001},
    "budget": {"trials": 1, "epochs": 15},
}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return script("make_file_reference")


@pytest.fixture(scope="module")
def recorder() -> ModuleType:
    return script("make_recording")


def section(title: str) -> str:
    """The text below one heading of docs/file.md, up to the next of its level."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{2}} |\Z)", FILE_PAGE.read_text(), re.M | re.S)
    assert found, f"docs/file.md has no heading {title!r}"
    return found[2]


# The tables


def test_the_tables_are_what_the_code_says(tables: ModuleType) -> None:
    page = FILE_PAGE.read_text()
    assert page == tables.filled(page), "run make docs"


def test_the_check_of_the_tables_notices_a_change(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    copy = tmp_path / "docs" / "make_file_reference.py"
    text = (DOCS / copy.name).read_text()
    copy.write_text(text.replace("sys.path.insert(0, str(ROOT))", f"sys.path.insert(0, {str(ROOT)!r})"))
    page = tmp_path / "docs" / "file.md"
    page.write_text(FILE_PAGE.read_text().replace("| `mobilenet_v2` | 154 |", "| `mobilenet_v2` | 155 |"))
    check = [sys.executable, str(copy), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "docs/file.md differs from the code; run `make docs`.\n")
    subprocess.run(check[:-1], timeout=60, check=True)
    assert page.read_text() == FILE_PAGE.read_text()
    assert subprocess.run(check, timeout=60, check=False).returncode == 0


def test_a_table_that_is_missing_on_the_page_is_noticed(tables: ModuleType) -> None:
    with pytest.raises(ValueError, match="it needs each of parts, data, splits, search"):
        tables.filled(FILE_PAGE.read_text().replace("<!-- table budget -->", ""))


def test_every_field_of_the_file_has_its_row() -> None:
    page, rows = FILE_PAGE.read_text(), 0
    models = {SweepSpec: "parts"} | {
        field.annotation: name
        for name, field in SweepSpec.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    assert list(models.values()) == ["parts", "data", "budget", "final", "resources", "tracking"]
    for model, name in models.items():
        table = page.partition(f"<!-- table {name} -->")[2].partition("<!-- end -->")[0]
        for field in model.model_fields:
            assert f"\n| `{field}` | " in table
            rows += 1
    assert rows >= 35


def test_what_does_not_say_what_is_allowed_is_noticed(tables: ModuleType) -> None:
    class Anything(BaseModel):
        word: Any

    with pytest.raises(ValueError, match=r"Anything\.word takes any value"):
        tables.refusal(Anything, "word")
    with pytest.raises(ValueError, match=r"does not say what is allowed: no\."):
        tables.allowed("no.")


# The examples


def yaml_blocks(page: Path) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```", page.read_text(), flags=re.M | re.S)


def is_whole(block: str) -> bool:
    return re.search(r"^name:", block, flags=re.M) is not None


def load(text: str, folder: Path, overrides: tuple[str, ...] = ()) -> SweepSpec:
    file = folder / "my.yaml"
    file.write_text(text)
    return load_spec(str(file), overrides, ENVIRONMENT, check_machine=False)


def test_every_whole_file_in_the_docs_loads(tmp_path: Path) -> None:
    seen = 0
    for page in (README, FILE_PAGE):
        for block in filter(is_whole, yaml_blocks(page)):
            assert load(block, tmp_path).budget.trials >= 1
            seen += 1
    assert seen >= 3


def test_every_part_of_a_file_in_the_docs_loads(tmp_path: Path) -> None:
    reader, seen = YAML(typ="safe", pure=True), 0
    for block in yaml_blocks(FILE_PAGE):
        if is_whole(block):
            continue
        parts = reader.load(block)
        assert parts.keys() <= SweepSpec.model_fields.keys()
        rest = {name: value for name, value in SMALLEST.items() if name not in parts}
        with (tmp_path / "rest.yaml").open("w") as stream:
            reader.dump(rest, stream)
        load(block + (tmp_path / "rest.yaml").read_text(), tmp_path)
        seen += 1
    assert seen >= 7


def test_every_form_of_a_value_loads(tmp_path: Path) -> None:
    text = section("The forms of a value")
    forms = re.findall(r"^\| `(\w+: .*?)` \| ", text, flags=re.M)
    for form in forms:
        others = "" if form.startswith("head:") else "  head: [softmax, arcface]\n"
        load(f"{yaml_text(name='x')}search:\n  {form}\n{others}", tmp_path)
    assert len(forms) >= 7
    cases = re.findall(r"`(\{(?:value|choice): .*?)`", text)
    for case in cases:
        load(f"{yaml_text(name='x')}search:\n  dropout: {case.replace('...', '{head: softmax}')}\n", tmp_path)
    assert len(cases) == 2


def yaml_text(name: str) -> str:
    return f"name: {name}\ndata: {{source: photos}}\nbudget: {{trials: 1, epochs: 1}}\n"


def test_every_setting_in_the_docs_loads(tmp_path: Path) -> None:
    first = next(filter(is_whole, yaml_blocks(FILE_PAGE)))
    settings = re.findall(r"--set ([^\s`]+)", FILE_PAGE.read_text())
    for setting in settings:
        assert load(first, tmp_path, (setting,)) != load(first, tmp_path)
    assert len(settings) >= 4


def test_the_mistakes_on_the_page_are_what_a_reader_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = next(filter(is_whole, yaml_blocks(FILE_PAGE)))
    wrong = first.replace("backbone: mobilenet_1.0 ", "backbone: [mobilenet_1.0, resnet5]").replace("epochs", "epohcs")
    Path("my.yaml").write_text(wrong)
    with pytest.raises(SpecError) as error:
        load_spec("my.yaml", check_machine=False)
    (shown,) = re.findall(r"^```text\n(my\.yaml:.*?)^```", FILE_PAGE.read_text(), flags=re.M | re.S)
    told = str(error.value).splitlines()
    assert len(told) == len(shown.splitlines()) == 3
    for line, full in zip(shown.splitlines(), told, strict=True):
        assert full.startswith(line.removesuffix("...")), full


# What is written by hand


def test_every_part_has_a_section() -> None:
    page = FILE_PAGE.read_text()
    for name in SweepSpec.model_fields:
        assert name == "name" or f"\n## {name}\n" in page


def test_what_may_change_in_a_sweep_is_named() -> None:
    rows = [line for line in section("Resuming and extending a sweep").splitlines() if "| yes" in line]
    assert re.findall(r"`([\w.]+)`", " ".join(line.partition("| yes")[0] for line in rows)) == [
        *EXTENDABLE,
        *(part for part in ELSEWHERE),
    ]


def test_every_column_of_the_leaderboard_is_explained() -> None:
    cells = re.findall(r"^\| (`.*?) \| ", section("The leaderboard"), flags=re.M)
    assert re.findall(r"`(\w+)`", " ".join(cells)) == list(COLUMNS)


def test_every_refusal_of_the_gate_is_explained() -> None:
    text = section("The gate before promotion")
    assert re.findall(r"^\| `([\w-]+)` \| ", text, flags=re.M) == list(REFUSALS)
    assert f"exit code {PromotionRefused.exit_code}." in text


def test_every_state_and_head_is_explained() -> None:
    for state in TrialState:
        assert str(state) in section("How the winner is chosen")
    for name in HEADS:
        assert f"\n- `{name}`: " in FILE_PAGE.read_text()


@pytest.mark.parametrize("classes", [6, 40])
def test_the_default_scales_on_the_page(classes: int) -> None:
    text = " ".join(FILE_PAGE.read_text().split())
    assert re.search(rf"\b{default_scale(classes):.1f} for {classes}\b", text)


def depths() -> list[tuple[str, int, str]]:
    """Backbone, n and the last frozen layer, from the page's table of good depths."""
    rows, name, found = section("search"), "", []
    for first, n, layer in re.findall(r"^\|(.*?)\| (\d+) \|.*up to `(\w+)`\) \|$", rows, flags=re.M):
        name = first.strip("`* ") or name
        found.append((name, int(n), layer))
    return found


def test_the_depths_on_the_page_are_depths_of_its_backbones() -> None:
    found = depths()
    assert len(found) == 10
    for name, n, _ in found:
        row = BACKBONES.get(name) or backbone(f"{name}1.0")
        assert 0 < n < row.layers


@pytest.mark.slow
def test_the_depths_on_the_page_end_between_two_blocks() -> None:
    from trainers.networks.backbone import build_backbone
    from trainers.networks.prefix import prefix_length

    models: dict[str, Any] = {}
    for name, n, layer in depths():
        known = name if name in BACKBONES else f"{name}1.0"
        model = models.get(known) or models.setdefault(known, build_backbone(known, "none", 32))
        frozen = len(model.layers) - n
        assert model.layers[frozen - 1].name == layer
        assert prefix_length(model, frozen) == frozen


def test_links_inside_the_docs_lead_somewhere() -> None:
    seen = 0
    for page in (README, FILE_PAGE, CLUSTER_PAGE):
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            other = (page.parent / path) if path else page
            assert other.is_file(), f"{page.name} links to {target}"
            if anchor:
                titles = re.findall(r"^#+ (.*)$", other.read_text(), flags=re.M)
                assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, target
            seen += 1
    assert seen >= 20


def test_the_commands_of_compose_are_those_of_its_file() -> None:
    commands = re.findall(r"docker compose [\w-][^`#\n]*", CLUSTER_PAGE.read_text())
    header = (ROOT / "docker-compose.yml").read_text().partition("\nname:")[0]
    for command in commands:
        assert " ".join(command.split()[:3]) in header, command
        assert set(command.split()) <= set(header.split()), command
    assert len(commands) >= 6


# The pictures


def test_the_picture_of_the_pieces_can_be_read() -> None:
    picture = ElementTree.parse(DOCS / "pieces.svg").getroot()
    names = {"svg": "http://www.w3.org/2000/svg"}
    width, height = (float(picture.attrib[side]) for side in ("width", "height"))
    assert width <= 960
    ground = picture.find("svg:rect", names)
    assert ground is not None
    assert (float(ground.attrib["width"]), float(ground.attrib["height"])) == (width, height)
    assert ground.attrib["fill"] == "#ffffff"
    boxes = [text_box(text) for text in picture.findall("svg:text", names)]
    assert len(boxes) >= 30
    for words, left, top, right, bottom in boxes:
        assert left >= 0 and top >= 0 and right <= width and bottom <= height, words  # noqa: PT018
    for (one, *a), (other, *b) in combinations(boxes, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{one!r} and {other!r} overlap"


def text_box(text: ElementTree.Element) -> tuple[str, float, float, float, float]:
    """Words, left, top, right, bottom; a letter is taken for 0.62 of the size wide, more than most fonts need."""
    words, size = str(text.text), float(text.attrib["font-size"])
    x, y = float(text.attrib["x"]), float(text.attrib["y"])
    wide = 0.62 * size * len(words)
    left = {"start": x, "middle": x - wide / 2, "end": x - wide}[text.attrib["text-anchor"]]
    return words, left, y - 0.8 * size, left + wide, y + 0.25 * size


def shown_text(svg: str) -> str:
    texts = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return unicodedata.normalize("NFKC", "".join(text.text or "" for text in texts))


def test_a_recording_shows_the_session_in_its_colours(recorder: ModuleType) -> None:
    raw = (
        "Script started on 2026-11-24 10:00:00+00:00 [TERM=xterm]\r\n\x1b]0;a title\x07$ orch sweep quick\r\n"
        "\x1b[38;2;1;2;3m★ winner\x1b[0m  0.97\x1b[?2004h\r\n   wide\r\n\r\n$ \r\n"
        "Script done on 2026-11-24 10:03:00+00:00 [COMMAND_EXIT_CODE=0]\r\n"
    )
    svg = recorder.recording(raw, "orch sweep quick")
    text = shown_text(svg)
    assert [line.strip() for line in text.strip().splitlines()] == [
        "orch sweep quick$ orch sweep quick",
        "★ winner  0.97",
        "wide",
    ]
    assert "\n   wide" in text
    assert "#010203" in svg
    assert "@font-face" not in svg
    assert recorder.recording(raw, "orch sweep quick") == svg


def test_an_empty_session_is_refused(recorder: ModuleType) -> None:
    with pytest.raises(ValueError, match="the session is empty; capture it with: tmux capture-pane"):
        recorder.recording("\n\n$ \n", "nothing")


def test_a_recording_is_written_where_it_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "session.txt").write_text("$ orch spaces\nquick\n")
    command = [sys.executable, str(DOCS / "make_recording.py"), str(tmp_path / "session.txt"), "a title"]
    subprocess.run([*command, "--output", str(tmp_path / "out.svg")], check=True, timeout=60)
    assert "a title" in shown_text((tmp_path / "out.svg").read_text())


def test_the_recording_of_the_readme_is_of_a_sweep() -> None:
    text = shown_text((DOCS / "sweep.svg").read_text())
    assert "orch sweep " in text
    assert "The winner, chosen on validation" in text
    assert re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text()) == ["docs/sweep.svg", "docs/pieces.svg"]
