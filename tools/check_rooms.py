"""Compares the #include lines under src/ with the table of rooms in
docs/architecture.md. Exits 1 and names each breach."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def read_table(text):
    """room -> rooms it may include directly, from the Markdown table."""
    rooms = {}
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        match = re.fullmatch(r"`(\w+)/`", cells[0])
        if match and len(cells) == 3:
            rooms[match.group(1)] = set(re.findall(r"\w+", cells[2]))
    known = set(rooms)
    return {room: may & known for room, may in rooms.items()}


def closure(rooms):
    """A room may include what its own rooms may include."""
    full = {}

    def visit(room):
        if room not in full:
            full[room] = {room}
            for other in rooms[room]:
                full[room] |= visit(other)
        return full[room]

    for room in rooms:
        visit(room)
    return full


def breaches(source, rooms):
    allowed = closure(rooms)
    for path in sorted(source.rglob("*")):
        if path.suffix not in (".h", ".cpp") or "target" in path.parts:
            continue
        room = path.relative_to(source).parts[0]
        if room not in allowed:
            yield f"{path}: {room}/ is not in the table of rooms"
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+"([^"/]+)/', line)
            if not match:
                if re.match(r'\s*#\s*include\s+"', line):
                    yield f"{path}:{number}: include by room, not by {line}"
                continue
            other = match.group(1)
            if other not in allowed[room]:
                yield f"{path}:{number}: {room}/ may not include {other}/"


def main():
    table = read_table((ROOT / "docs/architecture.md").read_text())
    if len(table) < 10:
        sys.exit("docs/architecture.md has no table of rooms")
    found = list(breaches(ROOT / "src", table))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
