"""The checks for platforms that are not at hand: they must see a source that is
left out, and a warning."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import check_macos


def test_macos_takes_the_mlx_that_a_mac_builds_with():
    pins = (ROOT / "tools/requirements-build.txt").read_text()
    assert f"mlx=={check_macos.pinned_mlx()}; sys_platform" in pins
    # One version for all platforms: an output must mean the same on each.
    assert len(set(re.findall(r"^mlx\S*==([\w.]+)", pins, re.M))) == 1


def test_macos_counts_what_a_batch_joins(tmp_path):
    batch = tmp_path / "Unity/unity_0_cxx.cxx"
    batch.parent.mkdir()
    batch.write_text('/* CMake */\n#include "/a/one.cpp"\n\n'
                     '#include "/a/two.cpp"\n')
    assert check_macos.sources_of(str(batch)) == ["/a/one.cpp", "/a/two.cpp"]
    assert check_macos.sources_of("/a/one.cpp") == ["/a/one.cpp"]


def test_macos_sees_a_source_that_no_target_has(tmp_path):
    for name in ("a.cpp", "b/c.cpp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    found = check_macos.left_out(tmp_path, [str(tmp_path / "a.cpp")])
    assert found == [str(tmp_path / "b/c.cpp")]


@pytest.fixture
def said_of(tmp_path, monkeypatch):
    """What the check says of a source, given its lines."""
    pytest.importorskip("ziglang", reason="`tools/setup.sh macos` brings zig")
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(tmp_path / "zig"))
    source = tmp_path / "a.cpp"

    def said(code=None):
        if code is not None:
            source.write_text(code)
        return check_macos.check_one({
            "directory": str(tmp_path), "file": str(source),
            "command": f"{check_macos.zig()} c++ -target "
                       f"{check_macos.TARGET} -O3 -Wall -Werror -nostdinc "
                       f"-I. -o a.o -c {source}"}, tmp_path)

    return said


def test_macos_sees_a_warning_and_what_only_linux_has(said_of):
    assert said_of("#ifndef __APPLE__\n#error\n#endif\nint f() { return 1; }") \
        == ""
    assert "unused variable" in said_of("void f() { int unused; }")
    assert "sys/prctl.h" in said_of("#include <sys/prctl.h>\n")


def test_macos_reads_again_what_has_changed(said_of, tmp_path):
    header = tmp_path / "a b.h"
    header.write_text("")
    assert said_of('#include "a b.h"\n') == ""
    [record] = tmp_path.glob("*.json")
    before = record.stat().st_mtime_ns
    assert said_of() == "" and record.stat().st_mtime_ns == before
    header.write_text("#error it has changed\n")
    assert "it has changed" in said_of()
    assert "it has changed" in said_of()
