"""The house stays one that a newcomer finds the way in: small folders, and a
method's name in its own folder alone."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
MOST = 20
REGISTRY = {"method/methods.def", "method/registry.cpp", "method/chain.h",
            "method/chain.cpp"}
METHODS = ["gptq", "awq", "learned", "dwq", "shrunk"]


def sources():
    return [path for path in SOURCE.rglob("*")
            if path.suffix in (".h", ".cpp", ".def")
            and "target" not in path.parts]


def test_folders_are_small():
    units = {}
    for path in sources():
        folder = str(path.parent.relative_to(SOURCE))
        units.setdefault(folder, set()).add(path.stem)
    assert units
    large = {folder: len(names) for folder, names in units.items()
             if len(names) > MOST}
    assert not large, f"split these: {large}"


def test_methods_are_named_in_their_folders_alone():
    literal = re.compile('"(' + "|".join(METHODS) + ')"')
    found = []
    for path in sources():
        name = str(path.relative_to(SOURCE))
        own = name.split("/")[1] if name.startswith("method/") else ""
        for line in path.read_text().splitlines():
            for method in literal.findall(line):
                if name not in REGISTRY and method != own and not (
                        line.lstrip().startswith("//")):
                    found.append(f"{name}: {line.strip()}")
    # A command of its own, which is not a method's of the registry; and what
    # others' files call their packs, which are not our methods.
    allowed = {"commands/dwq.cpp", "checkpoint/packed/formats.cpp",
               "checkpoint/packed/gptq.cpp"}
    assert [f for f in found if f.split(":")[0] not in allowed] == []
