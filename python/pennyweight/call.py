"""Runs a command in this process: hub ids are fetched first, its events and
warnings are handed to Python, and its report becomes a dict."""

import json
import os
import warnings
from collections.abc import Mapping
from typing import Any

from pennyweight import _core
from pennyweight.data import in_folder
from pennyweight.errors import Warning
from pennyweight.progress import Bar, Progress, listener_of

NO_TEXT = "PENNYWEIGHT_NO_TEXT"
# The stack level at which warnings are shown: the caller of commands.py.
TO_CALLER = 4


def _warn(stage: str, message: str) -> None:
    warnings.warn(message if stage in message else f"{stage}: {message}", Warning,
                  stacklevel=TO_CALLER)


def run(command: str, options: Mapping[str, Any], progress: Progress = None
        ) -> dict[str, Any]:
    """Runs a command and gives its report. `options` are named as in the program
    ("q-bits"); None leaves one as it is. Only the functions that users call may
    call this one, since TO_CALLER counts the calls between."""
    given: dict[str, Any] = {}
    for name, value in options.items():
        if value is not None:
            given[name] = value if not hasattr(value, "__fspath__") else os.fspath(value)
    listener = listener_of(progress)
    text_before = os.environ.get(NO_TEXT)
    with in_folder(given.get("data-path", "")) as (name, folder):
        if name:
            given["data-path"] = name
        folders: dict[str, dict[str, Any]] = {"model": {}, "dataset": {}}
        if folder:
            folders["dataset"][name] = {"folder": folder}
        names = json.loads(_core.hub_names(command, given))
        names["dataset"] = [own for own in names["dataset"] if own != name or not folder]
        streams, finished = None, False
        try:
            if names["model"] or names["dataset"] or names["text"]:
                from pennyweight.fetch import fetch_here
                streams = fetch_here(names, folders, shows=progress is True)
            report = _core.run(command, given, json.dumps(folders), listener, _warn)
            finished = True
        finally:
            if streams:
                streams.close(finished)
            if isinstance(listener, Bar):
                listener.close()
            if text_before is None:
                os.environ.pop(NO_TEXT, None)
    return json.loads(report)
