"""How a command runs in this process: what it names of the hub is fetched before,
what it says becomes events and warnings, and its report a dict."""

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
# From a warning of the program to the caller of a function of commands.py.
TO_CALLER = 4


def _warn(stage: str, message: str) -> None:
    warnings.warn(message if stage in message else f"{stage}: {message}", Warning,
                  stacklevel=TO_CALLER)


def run(command: str, options: Mapping[str, Any], progress: Progress = None
        ) -> dict[str, Any]:
    """The report of a command. `options` are named as in the program ("q-bits");
    None leaves one as it is. To be called by what users call, nothing between."""
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
