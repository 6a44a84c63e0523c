"""Writes what of the Python package follows from the program's option visitor:
python/pennyweight/commands.py, a function for each command, and the compiled
module's stub, python/pennyweight/_core.pyi. With --check compares them with what
is there, and exits 1 naming what differs. Needs a build with PENNYWEIGHT_PYTHON."""

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python/pennyweight"
BUILD = Path(os.environ.get("PENNYWEIGHT_BUILD_DIR", ROOT / "build/release"))
CORE = BUILD / "python/pennyweight"
# By itself: the package can't be imported while what is written here is amiss.
sys.path.insert(0, str(CORE))

HEAD = '''\
"""The commands as functions. Written by tools/python_api.py from the program's
options; change those, or that script."""

from typing import Literal

from pennyweight.call import run
from pennyweight.data import Data, StrPath
from pennyweight.progress import Progress
from pennyweight.results import (
{imports})

__all__ = [
{names}]
'''
# What a command's report is; a method of the registry is told of by MethodReport.
RESULTS = {
    "quantize": "QuantizeReport", "plan": "PlanReport", "sweep": "SweepReport",
    "convert": "ConvertReport", "dynamic-quant": "DynamicQuantReport",
    "dwq": "DwqReport", "evaluate": "EvaluateReport", "inspect": "InspectReport"}
TYPES = {"bool": "bool", "int": "int", "float": "float", "str": "str",
         "list": "list[str]"}
# What a user may give for an option that takes such a thing.
TAKES = {"MODEL": "StrPath", "RECIPE": "StrPath", "FOLDER": "StrPath",
         "FILE": "StrPath", "DATA": "Data"}
ROWS = ("In memory: a list of texts, of chats (each a list of messages with "
        '"role" and "content"), or of rows as a .jsonl file has them')
PROGRESS = ("True shows a bar, in a notebook a notebook's; a function is called with "
            "each pennyweight.Event, and stops the run by returning False; None is "
            "silent")
RAISES = ("pennyweight.Error: or one of its subclasses, by the kind of error; "
          "KeyboardInterrupt after Ctrl-C, with what was finished kept for the next "
          "run of the same settings")


def keyword(option):
    """Python's name of an option: the output's and the text's are short."""
    if "output" in option["aliases"]:
        return "output"
    if option["takes"] == "DATA":
        return "data"
    return option["name"].replace("-", "_")


def annotation(option):
    kind = TAKES.get(option["takes"], TYPES[option["type"]])
    if option["choices"]:
        kind = "Literal[" + ", ".join(f'"{c}"' for c in option["choices"]) + "]"
    return kind + (" | None" if is_unset(option) else "")


def is_unset(option):
    """Whether None stands for the default."""
    return option["optional"] or option["type"] == "list" or (
        option["takes"] in TAKES and option["default"] in ("", None)
        and not option["required"])


def default(option):
    if option["required"]:
        return ""
    value = None if is_unset(option) else option["default"]
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return f" = {text}"


def in_words(help_text, keywords):
    """A flag's help as one of keywords: --q-bits becomes `q_bits`."""
    def name(match):
        return f"`{keywords.get(match[1], match[1].replace('-', '_'))}`"
    return re.sub(r"--([a-z][a-z-]*[a-z])", name, help_text)


def paragraph(text, first, rest):
    lines = textwrap.wrap(text, 88, initial_indent=first, subsequent_indent=rest,
                          break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def sentence(text):
    return text if text.endswith((".", "!")) else text + "."


def ordered(command):
    """The model, the output, what is for all, what is for those who study it."""
    def place(option):
        return (keyword(option) != "model", keyword(option) != "output",
                option["advanced"])
    return sorted(command["options"], key=place)


def function(command):
    options = ordered(command)
    keywords = {option["name"]: keyword(option) for option in options}
    result = RESULTS.get(command["name"], "MethodReport")
    lines = [f"def {command['name'].replace('-', '_')}("]
    starred = False
    for option in options:
        name = keyword(option)
        if name not in ("model", "output") and not starred:
            lines.append("    *,")
            starred = True
        one = f"    {name}: {annotation(option)}{default(option)},"
        if len(one) > 90 and '= "' in one:
            head, _, value = one[:-1].partition(" = ")
            texts = textwrap.wrap(value.strip('"').replace(",", ", "), 70)
            texts = [text.replace(", ", ",") for text in texts]
            one = f"{head} = (\n" + "\n".join(
                f'        "{text}"' for text in texts) + "),"
        lines.append(one)
    lines.append("    progress: Progress = None,")
    lines.append(f") -> {result}:")
    lines.append(paragraph(f'"""{sentence(command["summary"])}', "    ", "    "))
    lines += ["", "    Args:"]
    for option in options:
        text = in_words(option["help"], keywords)
        if option["takes"] == "DATA":
            text = f"{sentence(text)} {ROWS}"
        lines.append(paragraph(f"{keyword(option)}: {sentence(text)}", " " * 8,
                               " " * 12))
    lines.append(paragraph(f"progress: {sentence(PROGRESS)}", " " * 8, " " * 12))
    lines += ["", "    Raises:", paragraph(sentence(RAISES), " " * 8, " " * 12),
              '    """', f'    return {result}.of(run("{command["name"]}", {{']
    lines += [f'        "{option["name"]}": {keyword(option)},' for option in options]
    lines.append("    }, progress))")
    return "\n".join(lines) + "\n"


def module(commands):
    functions = [one for one in commands if not one["in_package"]]
    results = sorted({RESULTS.get(one["name"], "MethodReport") for one in functions})
    names = sorted(one["name"].replace("-", "_") for one in functions)
    head = HEAD.format(imports="".join(f"    {name},\n" for name in results),
                       names="".join(f'    "{name}",\n' for name in names))
    return "\n\n".join([head, *map(function, functions)])


def stub():
    """Of the compiled module, by nanobind."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "_core.pyi"
        subprocess.run(
            [sys.executable, "-m", "nanobind.stubgen", "-q", "-m", "_core", "-i",
             str(CORE), "-o", str(file)], check=True)
        return file.read_text()


def written():
    """File -> text."""
    import _core
    commands = _core.commands()
    return {PACKAGE / "commands.py": module(commands),
            PACKAGE / "_core.pyi": stub()}


def main():
    stale = [file for file, text in written().items()
             if not file.exists() or file.read_text() != text]
    if sys.argv[1:] != ["--check"]:
        for file, text in written().items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return 0
    for file in stale:
        print(f"{file.relative_to(ROOT)} is not what the options say; run "
              "tools/python_api.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
