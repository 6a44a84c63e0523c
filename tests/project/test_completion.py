"""`pennyweight completion SHELL`, in the shells themselves, against --help."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))


def output(*words, **more):
    return subprocess.run([*map(str, words)], check=True, text=True, timeout=60,
                          capture_output=True, **more).stdout


def script(shell):
    return output(BIN, "completion", shell)


def flags_of(command):
    """All that --help lists."""
    text = output(BIN, command, "--help").split("Examples:")[0]
    lines = re.findall(r"^  (-[\w,-]+)", text, re.M)
    return {flag for line in lines for flag in line.split(",")}


def commands():
    return re.findall(r"^  ([a-z][a-z-]+) +[A-Z]", output(BIN, "--help"), re.M)


def in_bash(tmp_path, *words):
    """What stands for the last word."""
    code = (f"{script('bash')}\nCOMP_WORDS=(\"$@\")\nCOMP_CWORD=$(($# - 1))\n"
            "_pennyweight\nprintf '%s\\n' \"${COMPREPLY[@]}\"")
    return set(output("bash", "-c", code, "bash", "pennyweight", *words,
                      cwd=tmp_path).split())


def in_fish(tmp_path, *words):
    if not shutil.which("fish"):
        pytest.skip("no fish on this system")
    (tmp_path / "script").write_text(script("fish"))
    told = output("fish", "--no-config", "-c", "source script\ncomplete -C "
                  f"'pennyweight {' '.join(words)}'", cwd=tmp_path,
                  env=os.environ | {"HOME": str(tmp_path)})
    return {line.split("\t")[0] for line in told.splitlines()} - {"script"}


@pytest.mark.parametrize("complete", [in_bash, in_fish])
def test_commands_flags_and_choices(tmp_path, complete):
    assert set(commands()) <= complete(tmp_path, "")
    assert complete(tmp_path, "dyn") == {"dynamic-quant"}
    assert complete(tmp_path, "quantize", "--eff") == {"--effort"}
    assert complete(tmp_path, "quantize", "--effort", "") == {
        "fast", "balanced", "best"}
    assert complete(tmp_path, "convert", "--q-mode", "mx") == {"mxfp4", "mxfp8"}
    assert complete(tmp_path, "completion", "") == {"bash", "zsh", "fish"}
    for command in commands():
        found = complete(tmp_path, command, "--") | complete(tmp_path, command, "-")
        assert flags_of(command) <= found, command


@pytest.mark.parametrize("complete", [in_bash, in_fish])
def test_paths_and_numbers(tmp_path, complete):
    (tmp_path / "models").mkdir()
    assert complete(tmp_path, "inspect", "mod") & {"models", "models/"}
    assert complete(tmp_path, "gptq", "--data-path", "mod") & {"models", "models/"}
    assert complete(tmp_path, "gptq", "--num-samples", "") == set()


def test_zsh(tmp_path):
    if not shutil.which("zsh"):
        pytest.skip("no zsh on this system")
    file = tmp_path / "_pennyweight"
    file.write_text(script("zsh"))
    load = ("autoload -Uz compinit && compinit -D && {}\n"
            "print -r -- $_comps[pennyweight] $functions[_pennyweight]")
    for how in ("source ./_pennyweight",  # and as a file of $fpath
                "true"):
        told = output("zsh", "-fc", f"fpath=($PWD $fpath)\n{load.format(how)}",
                      cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)})
        assert told.startswith("_pennyweight")
    text = file.read_text()
    for command in commands():
        part = text.split(f"\n    {command})\n")[1].split(";;")[0]
        for flag in flags_of(command):
            assert f"){flag}[" in part, (command, flag)
    assert "--effort[How much time to take]:choice:(fast balanced best)" in text


def test_another_shell_is_refused():
    done = subprocess.run([BIN, "completion", "tcsh"], text=True, capture_output=True)
    assert done.returncode == 2 and "bash,zsh,fish" in done.stderr
