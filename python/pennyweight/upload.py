"""`pennyweight upload`: a finished model folder to the hub as one commit."""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path

from pennyweight import _core
from pennyweight.hub import (CODES, REPOSITORY, REVISION, Refused, checked_token,
                             explain, on_stop, patiently, quieten, shown)

INDEX = "model.safetensors.index.json"
EXAMPLES = """Examples:
  pennyweight upload qwen3-4bit --repo me/Qwen3-0.6B-4bit
  pennyweight upload qwen3-4bit --repo me/Qwen3-0.6B-4bit --private --revision next

Other files of the repository stay, but for weights of an earlier upload, which
mlx-lm would load, too. Run again after a cut, what is there is not sent again."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Refused("invalid_argument", f"{message}; see pennyweight upload --help")


def parse(words):
    [command] = [one for one in _core.commands() if one["name"] == "upload"]
    parser = Parser("pennyweight upload", epilog=EXAMPLES, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter,
                    description="Publish a finished model folder on the hub")
    add = parser.add_argument
    for option in command["options"]:
        if option["positional"]:
            either = parser.add_mutually_exclusive_group(required=True)
            either.add_argument(option["name"], nargs="?", help=option["help"])
            either.add_argument(f"--{option['name']}", dest="named",
                                help=argparse.SUPPRESS)
        elif option["type"] == "bool":
            add(f"--{option['name']}", action="store_true", help=option["help"])
        else:
            add(f"--{option['name']}", default=option["default"],
                required=option["required"], help=option["help"])
    add("--json", nargs="?", const="-", metavar="FILE",
        help="Write the result to FILE as JSON; without a FILE, warnings and "
        "result as JSON lines on stdout")
    add("--quiet", action="store_true",
        help="No progress; warnings and errors only")
    add("--force", action="store_true", help="Replace --json's FILE")
    options = parser.parse_args(words)
    options.folder = options.folder or options.named
    if not (REPOSITORY.fullmatch(options.repo)
            and REVISION.fullmatch(options.revision)):
        raise Refused(
            "invalid_argument",
            f"--repo {shown(options.repo, 120)} and --revision "
            f"{shown(options.revision, 120)} must be a hub id such as org/name "
            "and a branch such as main")
    if options.json not in (None, "-"):
        file = Path(options.json)
        if file.is_dir() or not file.absolute().parent.is_dir():
            raise Refused("not_found", f"--json {shown(file)} is no file's name: "
                          "its folder must be there")
        if file.is_file() and not options.force:
            raise Refused("invalid_argument", f"--json {shown(file)} exists; give "
                          "--force to replace it")
    return options


def walk(folder):
    """All files but hidden ones, those in folders included. Links to folders are not
    followed."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from walk(entry.path)
        else:
            yield Path(entry.path)


def checked_name(path, root):
    """The name in the repository of a file that may be published."""
    def refuse(why, what=path):
        raise Refused("invalid_argument", f"{shown(what)} {why}")

    if path.is_symlink():
        target = Path(os.path.realpath(path))
        if not os.path.exists(path) or root not in target.parents:
            refuse("is a link that leads outside the folder; put the file itself "
                   "there")
        if target.is_dir():
            refuse("is a link to a folder; put the files themselves there")
    if not path.is_file():
        refuse("is no regular file; move it away")
    name = path.relative_to(root).as_posix()
    if any(0xD800 <= ord(c) < 0xE000 for c in name):
        refuse("holds a file whose name is not UTF-8; rename it", root)
    if any(c < " " or c in "\x7f\\" for c in name):
        refuse("has a name that the hub can't have; rename it")
    return name


def files_of(folder):
    """The files of a finished model's folder: {name in the repository: path}."""
    root = Path(folder).resolve()
    if not root.is_dir():
        raise Refused("not_found", f"{shown(folder)} is not a folder")
    files = {checked_name(path, root): path for path in walk(root)}

    def lacking(what):
        raise Refused("not_found", f"{shown(folder)} {what}; name the finished "
                      "folder of a model")

    if "config.json" not in files:
        lacking("has no config.json")
    if INDEX not in files:
        if not any(name.endswith(".safetensors") for name in files):
            lacking("has no weights (*.safetensors)")
        return files
    try:
        shards = set(json.loads(files[INDEX].read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused("corrupt", f"{shown(files[INDEX])} has no weight_map; write "
                      "the model anew") from None
    for shard in sorted(shards, key=str):
        if shard not in files:
            lacking(f"lacks {shown(shard, 120)}, which its index names")
    return files


def publish(options, files, warn):
    from huggingface_hub import (CommitOperationAdd, CommitOperationDelete, HfApi,
                                 constants)
    if constants.is_offline_mode():
        raise Refused("invalid_argument", "HF_HUB_OFFLINE is set; unset it to upload")
    if not checked_token():
        raise Refused("io", "there is no token; make one with write access at "
                      f"{constants.ENDPOINT}/settings/tokens and set HF_TOKEN")
    api = HfApi(library_name="pennyweight")
    patiently(lambda: api.create_repo(
        options.repo, private=options.private or None, exist_ok=True))
    if options.private and not patiently(
            lambda: api.repo_info(options.repo)).private:
        raise Refused("invalid_argument", f"{options.repo} exists and is public; "
                      "make it private in its settings, or leave --private out")
    there = patiently(lambda: api.list_repo_files(
        options.repo, revision=options.revision))
    # mlx-lm loads all files that are named so, and would mix them with ours.
    stale = [name for name in there
             if name not in files and "/" not in name and name.startswith("model")
             and name.endswith((".safetensors", ".safetensors.index.json"))]
    if not any(name.endswith(".safetensors") for name in files):
        stale = []
    added = [CommitOperationAdd(name, path) for name, path in files.items()]
    # One commit, so that the repository never shows half a model; upload_folder
    # may make several.
    commit = api.create_commit(
        options.repo, [*map(CommitOperationDelete, stale), *added],
        commit_message=shown(options.commit_message, 500),
        revision=options.revision)
    for name in stale:
        warn(f"{name}, weights of an earlier upload, is deleted")
    for operation in added:
        if operation._should_ignore:  # the library tells it nowhere else
            warn(f"the repository's .gitignore leaves out {operation.path_in_repo}")
    sizes = [path.stat().st_size for path in files.values()]
    return {"url": f"{api.endpoint}/{options.repo}", "commit": commit.oid,
            "files": len(sizes), "bytes": sum(sizes)}


def tell(options, result):
    text = (f"{result['files']} files, {result['bytes'] / 1e6:,.1f} MB\npublished "
            f"at {shown(result['url'])}, commit {shown(result['commit'], 64)}")
    if options.json == "-":
        text = json.dumps({"event": "result", "result": result})
    elif options.json:
        file = Path(options.json).resolve()
        special = file.exists() and not file.is_file()  # a pipe or a device
        draft = file if special else file.with_name(f".{file.name}.draft")
        draft.write_text(json.dumps(result) + "\n")
        if not special:
            draft.replace(file)
    print(text, flush=True)


def upload(words: "list[str]") -> int:
    """Runs the command and gives its exit code, one of the program's."""
    events = False

    def say(kind, text, **more):
        if events:
            print(json.dumps({"event": kind, **more, "message": text}), flush=True)
        if kind == "error" or not events:
            print(f"{kind}: {text}", file=sys.stderr, flush=True)

    def fail(code, text):
        try:
            say("error", f"[upload] {shown(text)}", code=code)
        except OSError:
            pass  # the exit code remains
        return CODES[code]

    def stop():
        os._exit(fail("cancelled", "stopped by the user; run again to go on"))

    on_stop(stop)
    try:
        options = parse(words)
        events = options.json == "-"
        files = files_of(options.folder)
        quieten(bars=not (options.quiet or events))

        def warn(text):
            say("warning", shown(text), stage="upload")

        # What the hub objects to in the card comes as a Python warning.
        warnings.showwarning = lambda message, *_, **__: warn(str(message))
        tell(options, publish(options, files, warn))
        return 0
    except Exception as error:
        return fail(*explain(error))
