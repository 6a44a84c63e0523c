"""Calibration data as people have it: rows, chats and files that can't be used
are left out, counted and named, and change nothing in what the others give.
The addresses are public reports of each situation with this or other programs.
Needs the program probe_text of the C++ test build."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
from walks import BIN, DEMO, built_program  # noqa: E402

TEMPLATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0)"
    " and m.role in ['user', 'assistant'] %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if m.role not in ['system', 'user', 'assistant', 'tool'] %}"
    "{{ raise_exception('Unknown role ' + m.role) }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}"
    "{% for call in m.tool_calls %}{% for k, v in call.function.arguments.items()"
    " %}{{ k }}={{ v }};{% endfor %}{% endfor %}{% endfor %}"
)
TEXT = (DEMO / "calibration.txt").read_text()
GOOD = [{"text": TEXT[i * 300:(i + 1) * 300]} for i in range(8)]


def user(text):
    return {"role": "user", "content": text}


def answer(text):
    return {"role": "assistant", "content": text}


CHATS = [{"messages": [user(f"Tell story {i}."), answer(TEXT[i:i + 90])]}
         for i in range(8)]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    program = built_program("probe_text")
    model = tmp_path_factory.mktemp("model")
    shutil.copy(DEMO / "tokenizer.json", model)
    config = json.loads((DEMO / "tokenizer_config.json").read_text())
    config["chat_template"] = TEMPLATE
    (model / "tokenizer_config.json").write_text(json.dumps(config))

    def run(path, fails=False):
        done = subprocess.run([program, "load", model, path, "32", "-1"],
                              capture_output=True, text=True, timeout=120)
        assert bool(done.returncode) == fails, done.stderr
        return done.stderr if fails else json.loads(done.stdout)

    return run


def lines(rows):
    return "".join(
        (row if isinstance(row, str) else json.dumps(row)) + "\n"
        for row in rows)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content)
    return path


@pytest.fixture
def clean(load, tmp_path):
    """What the good rows alone give."""
    return {
        "text": load(write(tmp_path / "clean.jsonl", lines(GOOD))),
        "chat": load(write(tmp_path / "chats.jsonl", lines(CHATS)))}


# A row that can't be used, and words of the reason that it is counted by.
ODD = {
    # https://github.com/ContextualAI/gritlm/issues/48
    "null": ({"text": None, "id": 7}, "null text"),
    # https://github.com/openai/gpt-2-output-dataset/issues/51
    "empty": ({"text": ""}, "empty text"),
    "number": ({"text": 3.5}, "text is no text"),
    # https://github.com/huggingface/datasets/issues/7222: a column that is a
    # list in some rows
    "list": ({"text": ["a", "b"]}, "text is no text"),
    # https://github.com/egesabanci/reap-mlx/issues/125
    "other schema": ({"title": "a", "url": "b"}, "without text"),
    # https://github.com/ml-explore/mlx-examples/pull/458 and
    # https://github.com/huggingface/datasets/pull/2838
    "broken": ('{"text": "cut sho', "not valid JSON"),
    "two objects": ('{"text": "a"} {"text": "b"}', "not valid JSON"),
    "bare word": ("\\N", "not valid JSON"),
    "number row": ("3", "neither an object nor text"),
    "no messages": ({"messages": []}, "without messages"),
    "null messages": ({"messages": None}, "null messages"),
    "messages as words": ({"messages": "hello"}, "no list"),
    # https://github.com/NVIDIA-NeMo/Automodel/pull/1694
    "no role": ({"messages": [{"content": "a"}]}, "without a role"),
    "null role": ({"messages": [{"role": None, "content": "a"}]},
                  "without a role"),
    "content number": ({"messages": [{"role": "user", "content": 4}]},
                       "neither text nor a list"),
    "message no object": ({"messages": ["hello there"]}, "no object"),
    # https://github.com/vllm-project/speculators/pull/801 and
    # https://github.com/unslothai/unsloth/issues/334
    "role order": ({"messages": [user("a"), user("b")]}, "chat template"),
    # https://github.com/hiyouga/LlamaFactory/issues/6878
    "unknown role": ({"conversations": [{"from": "narrator", "value": "a"}]},
                     "chat template"),
}


@pytest.mark.parametrize("where", ["text", "chat"])
@pytest.mark.parametrize("name", ODD)
def test_one_odd_row_is_left_out_and_named(
        name, where, load, clean, tmp_path):
    odd, reason = ODD[name]
    good = GOOD if where == "text" else CHATS
    data = load(write(
        tmp_path / "rows.jsonl", lines(good[:3] + [odd] + good[3:])))
    assert data["sequences"] == clean[where]["sequences"]
    assert data["sources"] == clean[where]["sources"]
    assert data["use"]["rows"]["used"] == len(good)
    [(counted, count)] = data["use"]["rows"]["left_out"].items()
    assert reason in counted and count == 1
    [said] = data["warnings"]
    assert f"left out 1 of {len(good) + 1} rows" in said
    assert "rows.jsonl, line 4" in said and reason in said


def test_odd_rows_of_all_kinds_at_once(load, clean, tmp_path):
    """Each is counted by its reason; the first few are named."""
    odd = [{"text": None}] * 5 + ["{", "["]
    data = load(write(tmp_path / "rows.jsonl", lines(odd + GOOD)))
    assert data["sequences"] == clean["text"]["sequences"]
    assert data["use"]["rows"] == {
        "used": 8, "left_out": {"with null text": 5, "that is not valid JSON": 2}}
    [said] = data["warnings"]
    assert "7 of 15 rows" in said and "line 3; and more)" in said
    assert "line 4" not in said and "line 6" in said


def test_less_than_half_left_is_an_error(load, tmp_path):
    for odd in [{"text": None}, "{broken", {"a": 1}]:
        half = lines(GOOD[:4] + [odd] * 4)
        assert load(write(tmp_path / "half.jsonl", half))["use"]["rows"][
            "used"] == 4
        error = load(write(tmp_path / "more.jsonl", half + lines([odd])), True)
        assert "less than half of the rows" in error
        assert "5 of 9" in error and "more.jsonl, line 5" in error
        error = load(write(tmp_path / "all.jsonl", lines([odd] * 3)), True)
        assert "3 of 3" in error
    # The whole path counts, not each file.
    write(tmp_path / "d/a.jsonl", lines(GOOD))
    write(tmp_path / "d/b.jsonl", lines(GOOD[:1] + ["{"] * 5))
    assert load(tmp_path / "d")["use"]["rows"]["used"] == 9


def test_empty_text_does_not_speak_against_the_rest(load, clean, tmp_path):
    """Data sets of single lines have one for each empty line."""
    data = load(write(
        tmp_path / "rows.jsonl",
        lines(row for good in GOOD for row in [good, {"text": ""},
                                               {"text": ""}])))
    assert data["sequences"] == clean["text"]["sequences"]
    assert data["use"]["rows"]["left_out"] == {"with empty text": 16}
    error = load(write(tmp_path / "none.jsonl", lines([{"text": ""}] * 3)), True)
    assert "holds no text that can be used" in error and "3 of 3" in error


# A row that is read, and a plain one that says the same.
PAIR = [user("Hi you."), answer("Hello. What is it?")]
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"function": {"name": "weather", "arguments": '{"city": "Paris"}'}}]}
SAME = {
    # https://github.com/Tencent/AngelSlim/issues/7
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi you."},
                                   {"from": "gpt", "value": PAIR[1]["content"]}]},
    # https://github.com/axolotl-ai-cloud/axolotl/issues/752
    "sharegpt roles": {"conversations": [
        {"from": "user", "value": "Hi you."},
        {"from": "chatgpt", "value": PAIR[1]["content"]}]},
    # https://github.com/NVIDIA-NeMo/Automodel/pull/2375
    "roles under conversations": {"conversations": PAIR},
    # Lists kept as JSON in a string, as tables without lists have them.
    "string": {"messages": json.dumps(PAIR)},
    "conversations string": {"conversations": json.dumps(PAIR)},
    # https://github.com/unslothai/unsloth/issues/337
    "bare list": PAIR,
    # https://github.com/NVIDIA-NeMo/DataDesigner/pull/283
    "parts": {"messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "Hi "}, {"type": "image", "image": None},
            {"type": "image_url", "image_url": {"url": "x"}},
            {"type": "text", "text": "you."}]}, PAIR[1]]},
    "empty messages beside text": None,
    # https://github.com/huggingface/datasets/issues/6162
    "more columns": {"messages": PAIR, "score": [1.5, None], "meta": {"a": {}}},
    "null text beside": {"text": None, "messages": PAIR},
    # https://github.com/huggingface/dataset-viewer/issues/2586
    "viewer": {"row_idx": 3, "row": {"messages": PAIR}, "truncated_cells": []},
    "null part": {"messages": [{"role": "user", "content": [
        None, "Hi you."]}, PAIR[1]]},
}


@pytest.mark.parametrize("name", SAME)
def test_other_spellings_of_a_row(name, load, tmp_path):
    row, plain = SAME[name], {"messages": PAIR}
    if row is None:
        row, plain = {"messages": [], **GOOD[0]}, GOOD[0]
    expected = load(write(tmp_path / "plain.jsonl", lines([plain])))
    data = load(write(tmp_path / "row.jsonl", lines([row])))
    assert data["sequences"] == expected["sequences"]
    assert data["warnings"] == []


def test_system_column(load, tmp_path):
    """https://github.com/Tencent/AngelSlim/pull/345"""
    system = {"role": "system", "content": "Be brief."}
    only = [{"role": "tool", "content": "It rains."}]
    expected = load(write(
        tmp_path / "plain.jsonl", lines([{"messages": [system] + only}])))
    for row in [{"system": "Be brief.", "messages": only},
                {"system": "Be brief.",
                 "conversations": [{"from": "observation",
                                    "value": "It rains."}]},
                {"system": "Not this.", "messages": [system] + only}]:
        data = load(write(tmp_path / "row.jsonl", lines([row])))
        assert data["sequences"] == expected["sequences"]


@pytest.mark.parametrize("arguments", ['{"city": "Paris"}', {"city": "Paris"}])
def test_tool_calls_without_content(arguments, load, tmp_path):
    """https://github.com/Blaizzy/mlx-vlm/pull/1864 (content null) and
    https://github.com/QwenLM/Qwen3/issues/1894 (arguments as a string)."""
    call = {"function": {"name": "weather", "arguments": arguments}}
    chat = [user("Rain?"), {"role": "assistant", "content": None,
                            "tool_calls": [call]}]
    expected = load(write(tmp_path / "plain.jsonl", lines(
        [{"messages": [user("Rain?"), answer("city=Paris;")]}])))
    data = load(write(tmp_path / "row.jsonl", lines([{"messages": chat}])))
    assert data["sequences"] == expected["sequences"]
    broken = {"function": {"name": "weather", "arguments": "{city"}}
    chat[1]["tool_calls"] = [broken]
    data = load(write(
        tmp_path / "row.jsonl", lines(CHATS + [{"messages": chat}])))
    assert data["use"]["rows"]["left_out"] == {"refused by the chat template": 1}


def test_files_of_rows_by_other_layouts(load, clean, tmp_path):
    bom = b"\xef\xbb\xbf"
    layouts = {
        "list.json": json.dumps(GOOD, indent=1),
        # https://github.com/capitalone/DataProfiler/issues/105
        "data.json": json.dumps({"version": "1", "data": GOOD}),
        "train.json": json.dumps({"train": GOOD, "test": GOOD[:1]}),
        "viewer.json": json.dumps({
            "features": [{"feature_idx": 0, "name": "text", "type": {}}],
            "rows": [{"row_idx": i, "row": row, "truncated_cells": []}
                     for i, row in enumerate(GOOD)]}),
        "other.json": json.dumps({"authors": ["a"], "examples": GOOD}),
        "columns.json": json.dumps({"id": list(range(8)),
                                    "text": [row["text"] for row in GOOD]}),
        # https://github.com/lil-lab/nlvr/issues/1
        "lines.json": lines(GOOD),
        # https://github.com/nianeyna/ao3downloader/issues/166 and others: a
        # list by the name of lines
        "list.jsonl": json.dumps(GOOD),
        # https://github.com/huggingface/datasets/issues/8241
        "bom.jsonl": bom + lines(GOOD).encode(),
        "bom.json": bom + json.dumps(GOOD).encode(),
        # https://github.com/ml-explore/mlx-lm/issues/57,
        # https://github.com/microsoft/graphrag/issues/2424
        "blank.jsonl": "\n" + lines(GOOD).replace("\n", "\r\n\r\n  \n"),
        "no end.ndjson": lines(GOOD).strip(),
    }
    for name, content in layouts.items():
        data = load(write(tmp_path / name, content))
        assert data["sequences"] == clean["text"]["sequences"], name
        assert data["warnings"] == [], name
        assert data["use"]["rows"] == {"used": 8, "left_out": {}}, name


def test_json_that_python_takes(load, clean, tmp_path):
    """NaN literals, https://github.com/aqlaboratory/openfold-3/issues/167, and
    repeated keys, https://github.com/duckdb/duckdb/issues/11152."""
    rows = [json.dumps(row)[:-1] + ', "a": NaN, "b": [Infinity, -Infinity]}'
            for row in GOOD[:4]]
    rows += ['{"text": "not this", ' + json.dumps(row)[1:] for row in GOOD[4:]]
    assert [json.loads(row)["text"] for row in rows] == [
        row["text"] for row in GOOD]
    for name, content in [("rows.jsonl", lines(rows)),
                          ("rows.json", "[" + ",".join(rows) + "]")]:
        data = load(write(tmp_path / name, content))
        assert data["sequences"] == clean["text"]["sequences"]


# Files of a folder that hold no text, and how they are counted. UTF-16 and
# others: https://github.com/jingyaogong/minimind/issues/551.
UNUSABLE = {
    "logo.png": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not text", "PNG"),
    "paper.pdf": (b"%PDF-1.4\n1 0 obj\n", "not text", "PDF"),
    "model.bin": (bytes(range(256)) * 9, "not text", "binary"),
    # https://github.com/huggingface/datasets/issues/6851
    "rows.jsonl.gz": (gzip.compress(lines(GOOD).encode()), "compressed",
                      "gzip"),
    # https://github.com/huggingface/datasets/issues/2572
    "rows.jsonl.zst": (b"\x28\xb5\x2f\xfd\x24\x05\x29\x00", "compressed",
                       "zstd"),
    "named.jsonl": (gzip.compress(lines(GOOD).encode()), "compressed", "gzip"),
    # https://github.com/run-llama/llama_index/issues/88
    ".DS_Store": (b"\x00\x00\x00\x01Bud1\x80", "hidden", "hidden"),
    "README.md": (b"# About these texts\n", "that describe the data", "README"),
    "LICENSE": (b"All rights reserved.\n", "that describe the data", "LICENSE"),
    "latin.txt": ("caf\u00e9 ".encode("latin-1") * 9, "not UTF-8",
                  "not valid UTF-8 at byte 3"),
    "wide.txt": ("some text".encode("utf-16"), "not UTF-8", "UTF-16"),
    "wide2.txt": (("some text" * 9).encode("utf-16-le"), "not UTF-8", "UTF-16"),
    # https://github.com/InertExpert2911/Mutual_Fund_Data/issues/1 and
    # https://github.com/policy-gradient/GRPO-Zero/issues/1
    "rows.parquet": (b"version https://git-lfs.github.com/spec/v1\n"
                     b"oid sha256:66\nsize 146946961\n", "Git LFS pointers",
                     "git lfs pull"),
    "empty.jsonl": (b"", "empty", "empty"),
    "cut.parquet": (b"PAR1 and no more", "without rows", "cut.parquet"),
    "cut.json": (json.dumps(GOOD)[:-40].encode(), "without rows",
                 "not valid JSON"),
    "package.json": (b'{"name": "site", "private": true}', "without rows",
                     "without text"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_file_that_holds_no_text(name, load, clean, tmp_path):
    content, reason, words = UNUSABLE[name]
    write(tmp_path / "d" / name, content)
    write(tmp_path / "d/sub/good.jsonl", lines(GOOD))
    data = load(tmp_path / "d")
    assert data["sequences"] == clean["text"]["sequences"]
    assert data["use"]["files"]["used"] == 1
    [(counted, count)] = data["use"]["files"]["left_out"].items()
    assert counted.startswith(reason) and count == 1
    [said] = data["warnings"]
    assert "left out 1 of 2 files" in said and name in said and words in said
    # Where nothing else is there, the same is an error.
    error = load(write(tmp_path / "alone" / name, content).parent, True)
    assert "holds no text that can be used" in error and name in error
    if reason not in ("hidden", "that describe the data"):
        error = load(tmp_path / "alone" / name, True)
        assert words in error and error.count("\n") == 1


def test_links_and_folders_that_lead_nowhere(load, clean, tmp_path):
    write(tmp_path / "d/good.jsonl", lines(GOOD))
    (tmp_path / "d/gone.txt").symlink_to(tmp_path / "not there")
    (tmp_path / "d/loop").symlink_to(tmp_path / "d")
    os.mkfifo(tmp_path / "d/pipe.txt")
    data = load(tmp_path / "d")
    assert data["sequences"] == clean["text"]["sequences"]
    [said] = data["warnings"]
    for name in ["gone.txt", "loop", "pipe.txt"]:
        assert name in said


def test_one_bad_byte_in_lines_costs_that_line(load, clean, tmp_path):
    content = lines(GOOD).encode() + '{"text": "caf\u00e9"}\n'.encode("latin-1")
    data = load(write(tmp_path / "rows.jsonl", content))
    assert data["sequences"] == clean["text"]["sequences"]
    assert "line 9: at byte 13" in data["warnings"][0]
    assert "UTF-8" in data["warnings"][0]


CLONES = {
    # https://github.com/OpenRLHF/OpenRLHF/pull/367
    "card": {"README.md": "---\nlicense: mit\nconfigs:\n- config_name: default\n"
             "  data_files:\n  - split: train\n    path: data/train-*\n---\n# X",
             "data/train-00000-of-00001.jsonl": lines(GOOD),
             "data/test-00000-of-00001.jsonl": lines(CHATS)},
    "plain": {"README.md": "# card\n", ".gitattributes": "*.parquet filter=lfs",
              ".git/HEAD": "ref: refs/heads/main\n", ".git/index": b"DIRC\x00",
              "train.jsonl": lines(GOOD), "validation.jsonl": lines(CHATS),
              "dataset_infos.json": json.dumps({"default": {"x": "y"}})},
    "git": {".git/HEAD": "ref: refs/heads/main\n", "LICENSE": "Mine.\n",
            "data/train.json": json.dumps(GOOD), "data/dev.json": "[]"},
    # https://github.com/huggingface/datasets/pull/3221
    "one split": {"README.md": "---\ntask_categories:\n- x\n---\n",
                  "anything.jsonl": lines(GOOD)},
}


@pytest.mark.parametrize("name", CLONES)
def test_a_clone_is_read_as_its_data_set(name, load, clean, tmp_path):
    for file, content in CLONES[name].items():
        write(tmp_path / "d" / file, content)
    data = load(f"{tmp_path}/d/")
    assert data["sequences"] == clean["text"]["sequences"]
    assert data["use"]["files"] == {"used": 1, "left_out": {}}
    assert len(data["warnings"]) == (name != "one split")
    if data["warnings"]:
        assert "training split" in data["warnings"][0]


def test_a_clone_without_its_large_files(load, tmp_path):
    pointer = UNUSABLE["rows.parquet"][0]
    write(tmp_path / "d/README.md", CLONES["card"]["README.md"])
    write(tmp_path / "d/data/train-00000-of-00001.parquet", pointer)
    error = load(tmp_path / "d", True)
    assert "git lfs pull" in error and "train-00000-of-00001.parquet" in error


def test_a_folder_of_code_is_no_data_set(load, tmp_path):
    """Its few files of JSON are not all there is of text."""
    files = {"README.md": "# tool\n", ".git/HEAD": "ref", "a.py": TEXT[:900],
             "b.py": TEXT[900:1800], "c.py": TEXT[:500],
             "package.json": '{"name": "x"}',
             "tests/test_rows.json": json.dumps([{"name": "y"}])}
    for file, content in files.items():
        write(tmp_path / "d" / file, content)
    data = load(tmp_path / "d")
    assert data["use"]["files"]["used"] == 4
    assert data["sources"] == 3


def test_parquet_with_nulls_and_lists(load, clean, tmp_path):
    """https://github.com/verl-project/verl/pull/5743 and
    https://github.com/huggingface/datasets/issues/7222"""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    texts = [None] * 2 + [row["text"] for row in GOOD] + [None, ""]
    pq.write_table(pa.table({"text": texts}), tmp_path / "text.parquet")
    data = load(tmp_path / "text.parquet")
    assert data["sequences"] == clean["text"]["sequences"]
    assert data["use"]["rows"]["left_out"] == {
        "with null text": 3, "with empty text": 1}
    assert "text.parquet, row 1" in data["warnings"][0]
    chats = [None, []] + [row["messages"] for row in CHATS]
    pq.write_table(pa.table({"messages": chats}), tmp_path / "chat.parquet")
    data = load(tmp_path / "chat.parquet")
    assert data["sequences"] == clean["chat"]["sequences"]
    pq.write_table(pa.table({"text": [["a", "b"], ["c"]]}),
                   tmp_path / "lists.parquet")
    assert "2 of 2 rows" in load(tmp_path / "lists.parquet", True)


def result(command, data, tmp_path, *flags, code=0):
    report = tmp_path / "report.json"
    report.unlink(missing_ok=True)
    done = subprocess.run(
        [BIN, *map(str, command), "--data-path", data, "--json", report,
         *map(str, flags)], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return json.loads(report.read_text()) if code == 0 else done.stderr


def test_commands_report_the_counts(tmp_path):
    write(tmp_path / "d/rows.jsonl", lines(GOOD * 3 + [{"text": None}]))
    write(tmp_path / "d/logo.png", UNUSABLE["logo.png"][0])
    expected = {
        "rows": {"used": 24, "left_out": {"with null text": 1}},
        "files": {"used": 1, "left_out": {"not text": 1}}}
    short = ["--sequence-length", 32]
    report = result(["evaluate", DEMO], tmp_path / "d", tmp_path, *short)
    assert report["data_use"] == expected
    assert any("rows.jsonl, line 25" in note for note in report["notes"])
    assert any("logo.png" in note for note in report["notes"])
    report = result(
        ["gptq", "--model", DEMO, "--mlx-path", tmp_path / "out"],
        tmp_path / "d", tmp_path, *short, "--num-samples", 8)
    assert report["data_use"] == expected
    # Each file of a folder is a domain here; those of no text are none.
    report = result(
        ["quantize", DEMO, "-o", tmp_path / "out2", "--bits", 4, "--effort",
         "fast"], tmp_path / "d", tmp_path, *short, "--gptq-samples", 16)
    mix = report["page"]["data"]
    assert [domain["name"] for domain in mix["domains"]] == ["rows"]
    assert mix["use"] == expected


def test_domains_are_weighed_together(tmp_path):
    """quantize reads each file by itself and judges all of their rows."""
    for name in "ab":
        write(tmp_path / f"d/{name}.jsonl", lines(GOOD * 2))
    write(tmp_path / "d/c.jsonl", lines(["{"] * 9))
    write(tmp_path / "d/latin.txt", UNUSABLE["latin.txt"][0])
    command = ["quantize", DEMO, "-o", tmp_path / "out", "--bits", 4,
               "--effort", "fast"]
    flags = ["--sequence-length", 32, "--gptq-samples", 16]
    report = result(command, tmp_path / "d", tmp_path, *flags)
    mix = report["page"]["data"]
    assert [domain["name"] for domain in mix["domains"]] == ["a", "b"]
    assert mix["use"]["rows"] == {
        "used": 32, "left_out": {"that is not valid JSON": 9}}
    for words in ["c.jsonl, line 1", "latin.txt is not valid UTF-8"]:
        assert any(words in note for note in report["notes"]), words
    write(tmp_path / "d/c.jsonl", lines(["{"] * 33))
    error = result(command, tmp_path / "d", tmp_path, *flags, "--force", code=4)
    assert "less than half of the rows" in error and "33 of 65" in error


def test_exit_codes(tmp_path):
    """Corrupt, and not supported."""
    for name, content, code, words in [
            ("broken.jsonl", "{\n" * 4, 4, "less than half"),
            ("rows.jsonl.gz", UNUSABLE["rows.jsonl.gz"][0], 6, "unpack it"),
            ("latin.txt", UNUSABLE["latin.txt"][0], 4, "UTF-8 at byte 3"),
            ("rows.parquet", UNUSABLE["rows.parquet"][0], 4, "git lfs pull"),
            ("empty.txt", b"", 2, "empty")]:
        error = result(["evaluate", DEMO], write(tmp_path / name, content),
                       tmp_path, code=code)
        assert words in error
