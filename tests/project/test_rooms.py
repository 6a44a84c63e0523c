"""The room checker itself: it must see a breach."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import check_rooms

TABLE = """
| room | holds | may include |
| --- | --- | --- |
| `low/` | things | the standard library |
| `mid/` | things | low |
| `top/` | things | mid |
"""


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_finds_a_breach_and_allows_what_is_indirect(tmp_path):
    rooms = check_rooms.read_table(TABLE)
    write(tmp_path, "low/a.h", '#include "mid/b.h"\n')
    write(tmp_path, "mid/b.h", '#include "low/a.h"\n#include <vector>\n')
    write(tmp_path, "top/c.h", '#include "low/a.h"\n')
    found = list(check_rooms.breaches(tmp_path, rooms))
    assert len(found) == 1
    assert "low/ may not include mid/" in found[0]


def test_names_an_unknown_room_and_an_include_without_one(tmp_path):
    rooms = check_rooms.read_table(TABLE)
    write(tmp_path, "attic/a.h", "")
    write(tmp_path, "low/a.h", '#include "b.h"\n')
    found = list(check_rooms.breaches(tmp_path, rooms))
    assert len(found) == 2


def test_the_tree_is_clean():
    assert check_rooms.main() == 0
