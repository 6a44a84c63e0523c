"""Makes a data set in a folder of text that a caller has in memory."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, cast

from pennyweight.errors import InvalidArgument

StrPath = Union[str, "os.PathLike[str]"]
#: {"role": "user", "content": "..."}
Message = Mapping[str, Any]
#: A text; a chat, as a list of its messages; or a row as files have them, such as
#: {"messages": [...], "tools": [...]} or {"prompt": ..., "completion": ...}.
Row = Union[str, Sequence[Message], Mapping[str, Any]]
#: A file, folder, hub data set or "self" by its name, or rows in memory.
Data = Union[StrPath, Sequence[Row]]


def _row(row: Any, index: int) -> Mapping[str, Any]:
    if isinstance(row, str):
        return {"text": row}
    if isinstance(row, Mapping):
        own = cast("Mapping[str, Any]", row)
        if "role" in own:
            raise InvalidArgument(
                f"[data] row {index} is a message; a chat is a list of messages, "
                "and data is a list of chats: [[message, ...], ...]")
        return own
    if row and issubclass(type(row), (list, tuple)):
        return {"messages": list(row)}
    raise InvalidArgument(
        f"[data] row {index} is of type {type(row).__name__}; give a str, a list of chat "
        "messages, or a dict as a row of a .jsonl file")


@contextlib.contextmanager
def in_folder(data: Data) -> Generator[tuple[str, str], None, None]:
    """Gives (name, folder). For rows in memory the name is made of a hash of them,
    so that a stopped run knows them again, and the folder has them as rows.jsonl
    while this lasts. For a path it is (path, "")."""
    if isinstance(data, (str, os.PathLike)):
        yield os.fspath(data), ""
        return
    if not data:
        raise InvalidArgument("[data] there are no rows; leave data out to use "
                              "mlx-lm's calibration text")
    try:
        lines = [json.dumps(_row(row, index)) for index, row in enumerate(data)]
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"[data] a row can't be written as JSON: {error}"
                              ) from error
    text = "\n".join(lines) + "\n"
    name = f"in-memory/{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    with tempfile.TemporaryDirectory(prefix="pennyweight-") as folder:
        (Path(folder) / "rows.jsonl").write_text(text, encoding="ascii")
        yield name, folder
