"""Text of any length is read in bounded memory, and gives the tokens that the
whole of it gives. With PENNYWEIGHT_SLOW=1 up to a gigabyte, as a user would
have it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
from walks import BIN, DEMO, built_program  # noqa: E402

SLOW = os.environ.get("PENNYWEIGHT_SLOW", "0") not in ("", "0")
MEGABYTES = (10, 100, 1000) if SLOW else (2, 12)
TEXT = (DEMO / "calibration.txt").read_text()


def peak_mb(arguments):
    """Exit code, text, and the most memory that any of its processes held."""
    done = subprocess.run(
        [sys.executable, "-c",
         "import resource, subprocess, sys\n"
         "r = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL,"
         " stderr=subprocess.PIPE, text=True)\n"
         "sys.stderr.write(r.stderr)\n"
         "print(r.returncode,"
         " resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)",
         *map(str, arguments)], capture_output=True, text=True, timeout=3600)
    code, peak = done.stdout.split()
    return int(code), done.stderr, int(peak)


def write_text(path, megabytes):
    with open(path, "w") as out:
        size = 0
        number = 0
        while size < megabytes * 1_000_000:
            number += 1
            size += out.write(f"Part {number}.\n{TEXT}\n")


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_memory_does_not_grow_with_the_text(tmp_path, kind):
    peaks = []
    for megabytes in MEGABYTES:
        text = tmp_path / f"text.{kind}"
        write_text(text, megabytes)
        if kind == "jsonl":  # all of it as one row
            row = json.dumps({"text": text.read_text()})
            text.write_text(row + "\n")
            del row
        code, said, peak = peak_mb(
            [BIN, "gptq", "--model", DEMO, "--mlx-path", tmp_path / "out",
             "--force", "--num-samples", "8", "--sequence-length", "64",
             "--memory-limit", "600MB", "--data-path", text])
        assert code == 0, said
        peaks.append(peak)
        text.unlink()
    print(kind, dict(zip(MEGABYTES, peaks)))
    assert max(peaks) <= 1.1 * min(peaks), dict(zip(MEGABYTES, peaks))


def test_windows_give_the_tokens_of_the_whole(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    text = tmp_path / "text.txt"
    write_text(text, 1)
    done = subprocess.run(
        [built_program("probe_text"), "load", DEMO, text, "128", "-1"],
        capture_output=True, text=True, check=True)
    got = sorted(map(tuple, json.loads(done.stdout)["sequences"]))
    ids = tokenizers.Tokenizer.from_file(str(DEMO / "tokenizer.json")).encode(
        text.read_text()).ids
    whole = sorted(
        tuple(ids[i:i + 128]) for i in range(0, len(ids) - 127, 128))
    assert got == whole


def test_parquet_that_expands_a_thousandfold(tmp_path):
    """Pages are read one by one; what is too large for that is refused."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    words = TEXT.split()
    line = " ".join(words[i * 7 % len(words)] for i in range(16000))
    many = tmp_path / "many.parquet"
    pq.write_table(pa.table({"text": [line] * 60}), many, compression="zstd",
                   use_dictionary=False, row_group_size=30)
    assert 60 * len(line) > 20 * many.stat().st_size
    arguments = [BIN, "evaluate", DEMO, "--num-samples", "2",
                 "--sequence-length", "64", "--data-path"]
    code, said, peak = peak_mb([*arguments, many])
    assert code == 0 and peak < 500, (said, peak)
    one = tmp_path / "one.parquet"
    pq.write_table(pa.table({"text": ["x" * 400_000_000]}), one,
                   compression="zstd", use_dictionary=False)
    code, said, peak = peak_mb([*arguments, one])
    assert code == 4 and peak < 1000, (said, peak)
    error = [line for line in said.splitlines() if line.startswith("error")]
    assert len(error) == 1 and "one.parquet" in error[0], said
    assert "MiB of memory" in error[0]


def test_parquet_of_nothing_ends_soon(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rows = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": pa.nulls(10_000_000, pa.string())}), rows)
    bomb = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"text": ["x" * 100_000] * 1000}), bomb)
    for path, words in (
            (rows, "none of the first 100000 rows"),
            (bomb, "expands to more than 1000 times its size")):
        assert path.stat().st_size < 1_000_000
        code, said, peak = peak_mb(
            [BIN, "evaluate", DEMO, "--num-samples", "2",
             "--sequence-length", "64", "--data-path", path])
        assert code == 4 and words in said, said
        assert peak < 500
