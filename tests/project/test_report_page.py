"""report.html in a browser: every section draws, nothing is logged or loaded,
nothing is wider than the window, and hostile text stays text."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import chromium
from report_data import report_data

BUILD = Path(os.environ.get("PENNYWEIGHT_BUILD_DIR", ROOT / "build/release"))
SECTIONS = ["figures", "frontier", "stages", "map", "pins", "blocks", "dwq", "samples",
            "data", "settings", "notes"]
HOSTILE = [
    "</script><script>window.hacked = 1</script>", "</script ", "</script/",
    "<img src=x onerror='window.hacked = 1'>", "<!--<script>", "&lt;b&gt;",
    "\" onload=\"window.hacked = 1", "\u2028\u2029\u202e\x00\x1f",
    "javascript:window.hacked=1", "__proto__", "url(https://example.org/x)",
    "\U0001f600" * 3, "unbroken" * 80]

pytestmark = pytest.mark.skipif(
    chromium.find() is None, reason="no Chromium or Google Chrome is installed")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = chromium.Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def show(browser, tmp_path):
    """Opens the page of some data; it must load alone and say nothing."""
    def show(data, width=1280, scheme="light"):
        source, page = tmp_path / "data.json", tmp_path / "report.html"
        source.write_text(json.dumps(data))
        subprocess.run([BUILD / "tests/probe_report", source, page], check=True)
        browser.open(page, width, scheme=scheme)
        assert browser.problems == []
        assert browser.requests == [page.as_uri()]
        get = browser.evaluate
        assert get("document.documentElement.dataset.drawn") == "yes"
        assert get("document.documentElement.scrollWidth <= innerWidth")
        assert not get("document.querySelector('main').textContent.includes('could not be drawn')")
        return get
    return show


def sections(get):
    return get("[...document.querySelectorAll('section')].map(s => s.id)")


def number(get, selector):
    return get(f"document.querySelectorAll({json.dumps(selector)}).length")


def text(get, selector):
    return get(f"document.querySelector({json.dumps(selector)}).textContent")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("blocks, kind", [(1, "dense"), (30, "dense"), (96, "moe")])
def test_every_section_draws(show, blocks, kind, width, scheme):
    data = report_data(blocks, kind)
    get = show(data, width, scheme)
    assert sections(get) == SECTIONS
    inside = [m for m in data["modules"] if m["block"] >= 0]
    assert number(get, "#map .cell") == len(inside)
    assert number(get, "#map .tiles li") == len(data["modules"]) - len(inside)
    assert number(get, "#map .names div") == len({m["name"] for m in inside})
    assert number(get, "#frontier .dot.s1") == 3 + 1  # and in the legend
    assert number(get, "#frontier circle.dot") == 22
    assert number(get, "#frontier .chart .ours") == 1
    assert number(get, "#stages li") == 4
    assert number(get, "#stages .dropped") == 1
    assert number(get, "#blocks .chart .line") == 3
    assert number(get, "#dwq .chart") == 2
    assert number(get, "#samples article") == 3
    assert number(get, "#samples mark") == 4
    assert number(get, "#data .split") == 4
    # Each point of the lines is at a place.
    assert not get("document.querySelector('main').innerHTML.includes('NaN')")
    ground = get("getComputedStyle(document.documentElement).backgroundColor")
    assert ground == {"light": "rgb(246, 247, 248)",
                      "dark": "rgb(15, 18, 22)"}[scheme]


def test_experts_by_number_are_one_cell(show):
    modules = [
        {"path": f"model.layers.{b}.mlp.experts.{e}.up_proj", "block": b,
         "name": f"mlp.experts.{e}.up_proj", "bits": bits, "group_size": 32,
         "parameters": 1000 * (e + 1)}
        for b in range(3) for e, bits in enumerate((8, 2, None))]
    get = show({"modules": modules})
    assert text(get, "#map .names") == "mlp.experts.*.up_proj"
    assert number(get, "#map .cell") == 3
    said = get("document.querySelector('.cell').getAttribute('aria-label')")
    assert "modules 3" in said and "4 bits on average" in said


def test_figures_are_for_people(show):
    get = show(report_data())
    assert text(get, "title") == (
        "HuggingFaceTB/SmolLM2-135M-Instruct · pennyweight report")
    figures = text(get, "#figures")
    for figure in ("76.3 MB", "from 269 MB, 3.5 times smaller", "4.49",
                   "0.0271", "± 0.00042", "17.84", "+2.6 %", "91.2 %"):
        assert figure in figures
    assert "135 M parameters" in text(get, ".hero")
    assert "took 2 h 14 min" in text(get, ".hero")
    assert [get(f"{call}") for call in (
        "sig(0)", "sig(0.0000321)", "sig(-2)", "sig(NaN)", "bytes(999)",
        "bytes(999950)", "count(8.03e9)", "time(59.7)", "time(3599)",
        "time(7199.9)", "change(2, 1)", "percent(0.5)")] == [
        "0", "3.21×10⁻⁵", "−2.00", "–", "999 B", "1.00 MB", "8.03 B",
        "1 min 0 s", "1 h 0 min", "2 h 0 min", "−50 %", "50.0 %"]


def test_where_texts_part(show):
    get = show(report_data())
    marks = get("[...document.querySelectorAll('mark')].map(m => m.textContent)")
    assert marks[0].startswith("walked down")
    assert marks[1].startswith("went out")
    part = "parting({}, {})".format
    assert get(part("'one two'", "'one two'")) == 7
    assert get(part("'one two'", "'one too'")) == 4
    assert get(part("'one'", "'one two'")) == 3
    assert get(part("'one two'", "'one twofold'")) == 4
    # Half of a character is none: the two differ in their last 16 bits.
    assert get(part("'\\u{1f600}'", "'\\u{1f601}'")) == 0


def test_hostile_text(show):
    data = report_data(4)
    for i, words in enumerate(HOSTILE):
        data["settings"][words] = words
        data["notes"].append(words)
        data["samples"].append(
            {"prompt": words, "reference": words, "quantized": words[::-1]})
        data["modules"][i % 20].update(path=words, reason=words)
        data["modules"].append(
            {**data["modules"][3], "name": words, "block": i % 4})
        data["modules"][i % 20]["pinned"] = words
        data["pins"].append({"flag": words, "pattern": words, "width": words,
                             "modules": 1, "parameters": 1})
        data["frontier"][-1 - i % 3]["label"] = words
        data["stages"][i % 4].update(title=words, note=words)
        data["data"]["domains"].append(
            {"name": words, "weight": 0.1, "fit": 4, "gate": 1, "report": 1})
        data["blocks"][i % 4]["errors"][words] = 0.01
    for key in ("model", "output", "version", "effort", "machine"):
        data[key] = HOSTILE[0]
    for width in (1280, 390):
        get = show(data, width)
        get("document.querySelectorAll('details').forEach(d => d.open = true)")
        get("document.querySelectorAll('.cell').forEach(c => c.focus())")
        assert get("window.hacked ?? 0") == 0
        assert number(get, "img, iframe, body script:not([src]):not([type])") == 5
        assert get("document.documentElement.scrollWidth <= innerWidth")
        notes = get("[...document.querySelectorAll('#notes li')]"
                    ".map(li => li.textContent)")
        # An HTML page has no U+0000, but text made by a script has.
        assert notes[2:] == HOSTILE


@pytest.mark.parametrize("gone", sorted(report_data(1)))
def test_any_part_may_be_absent_or_null(show, gone):
    full = report_data(2)
    of = {"fidelity": None, "modules": "map"}
    for value in ("absent", None):
        data = copy.deepcopy(full)
        if value is None:
            data[gone] = None
        else:
            del data[gone]
        left = [s for s in SECTIONS if s != of.get(gone, gone)]
        assert sections(show(data)) == (left if gone in SECTIONS + [
            "modules"] else SECTIONS)


def nothing(value):
    """The same with null for every number and text."""
    if isinstance(value, dict):
        return {key: nothing(part) for key, part in value.items()}
    if isinstance(value, list):
        return [nothing(part) for part in value]
    return None


@pytest.mark.parametrize("data", [
    {}, None, [], "text", nothing(report_data(2)),
    {key: "text" for key in report_data(1)}, {key: 7 for key in report_data(1)},
    {key: [None, 1, "x", []] for key in report_data(1)},
    {key: {"x": [{}]} for key in report_data(1)}])
def test_data_that_is_hardly_any(show, data):
    get = show(data, 390)
    assert number(get, "h1") == 1
    assert not get("document.querySelector('main').innerHTML.includes('NaN')")


def test_numbers_at_their_ends(show):
    data = report_data(3)
    data["fidelity"].update(kl_mean=0, kl_stderr=0, perplexity=1e300)
    data["bytes_out"], data["bytes_in"] = 10**15, 1
    for stage in data["stages"]:
        stage["kl"] = 0
    for block in data["blocks"]:
        block["errors"] = {"nearest": 0}
    for module in data["modules"]:
        module.update(loss=0, parameters=0)
    data["dwq"]["curve"] = [{"step": 5, "loss": 1e-9, "held_out_kl": -1e-9}]
    for point in data["frontier"]:
        point["kl"] = 1e-7
    get = show(data)
    assert not get("document.querySelector('main').innerHTML.includes('NaN')")


def test_pointer_keys_and_theme(show, browser):
    get = show(report_data())
    tip = "document.getElementById('tip').textContent"
    get("document.querySelector('.cell').focus()")
    assert "model.layers.0.self_attn.q_proj" in get(tip)

    def key(name):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key=name)
    key("ArrowRight")
    assert "model.layers.1.self_attn.q_proj" in get(tip)
    key("ArrowDown")
    assert "model.layers.1.self_attn.k_proj" in get(tip)
    assert "group size" in get(tip)
    assert number(get, ".cell[tabindex='0']") == 1
    key("Escape")
    assert get("document.getElementById('tip').hidden")
    get("document.querySelector('#blocks .cover').focus({focusVisible: true})")
    key("End")
    assert "Block 29" in get(tip) and "GPTQ" in get(tip)
    get("document.querySelectorAll('.choice button')[1].click()")
    assert number(get, "#map .cell") == 210
    assert "least loss" in text(get, "#map")
    get("document.querySelector('#map details').open = true")
    get("new Promise(done => setTimeout(done, 50))")
    assert number(get, "#map tbody tr") == 212
    get("document.getElementById('theme').click()")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    assert get(ground) == "rgb(15, 18, 22)"
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert get(ground) == "rgb(255, 255, 255)"
    browser.call("Emulation.setEmulatedMedia", media="")


def test_charts_follow_the_window(show, browser):
    get = show(report_data(96, "moe"))
    wide = "document.querySelector('#blocks .chart').clientWidth"
    assert get(wide) > 1000
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800,
                 deviceScaleFactor=1, mobile=True)
    get("new Promise(done => requestAnimationFrame(() => "
        "requestAnimationFrame(() => setTimeout(done, 50))))")
    assert get(wide) < 390
    assert get("document.documentElement.scrollWidth <= innerWidth")
    # The map of 96 blocks scrolls in its own box.
    assert get("(box => box.scrollWidth > box.clientWidth)"
               "(document.querySelector('#map .plot'))")
    assert browser.problems == []
