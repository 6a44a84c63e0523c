"""Has a compiler read every source of src/ for macOS on Apple silicon, on a
machine that is none: zig's clang and libc++, with the headers of MLX's macOS
wheel and warnings as errors. Sources, flags and batches are what CMake selects
for that platform. No code is made of them, and nothing is linked.

    .venv/bin/python tools/check_macos.py [folder for what it makes]
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = "aarch64-macos"
# MLX's own lowest macOS, by which pip knows its wheels.
MACOS = "14.0"
# Libraries that are headers to us, as CMake knows them: package, target, header.
HEADERS = [("hwy", "hwy::hwy", "hwy"),
           ("nlohmann_json", "nlohmann_json::nlohmann_json", "nlohmann"),
           ("CLI11", "CLI11::CLI11", "CLI")]
SYSTEM_FOLDERS = [Path("/usr/include"), Path("/usr/local/include")]


def run(command, **options):
    """Ends with what the command said where it fails."""
    done = subprocess.run([str(word) for word in command], text=True,
                          capture_output=True, **options)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\ncheck-macos: failed: "
                 f"{shlex.join(str(word) for word in command)}")


def pinned_mlx():
    """The version that a Mac builds with."""
    text = (ROOT / "tools/requirements-build.txt").read_text()
    return re.search(r'^mlx==(\S+); sys_platform == "darwin"$', text, re.M)[1]


def mlx_package(folder):
    """CMake's folder in MLX's macOS wheel, which is fetched once."""
    site = folder / f"mlx-{pinned_mlx()}"
    package = site / "mlx/share/cmake/MLX"
    if not package.exists():
        run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
             "--disable-pip-version-check", "--only-binary=:all:",
             "--platform", f"macosx_{MACOS.replace('.', '_')}_arm64",
             "--dest", folder, f"mlx-metal=={pinned_mlx()}"])
        [wheel] = folder.glob(f"mlx_metal-{pinned_mlx()}-*.whl")
        zipfile.ZipFile(wheel).extractall(site)
        wheel.unlink()
    return package


def linked_headers(folder):
    """A folder with those libraries alone: in the system's own, its libc's
    headers stand beside them."""
    folder.mkdir(exist_ok=True)
    for name in [header for _, _, header in HEADERS] + ["xxhash.h"]:
        own = [place / name for place in SYSTEM_FOLDERS
               if (place / name).exists()]
        if not own:
            sys.exit(f"check-macos: {name} is in none of "
                     f"{', '.join(map(str, SYSTEM_FOLDERS))}; run `make setup`")
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(own[0])
    return folder


def write_modules(folder, headers):
    """What find_package() finds for the libraries that are headers."""
    folder.mkdir(exist_ok=True)
    for package, target, _ in HEADERS:
        (folder / f"Find{package}.cmake").write_text(
            f"add_library({target} INTERFACE IMPORTED)\n"
            f"target_include_directories({target} SYSTEM INTERFACE "
            f'"{headers}")\nset({package}_FOUND TRUE)\n')
    return folder


def zig():
    try:
        import ziglang
    except ImportError:
        sys.exit("check-macos: ziglang is missing; run `tools/setup.sh macos`")
    return Path(ziglang.__file__).parent / "zig"


def with_mac_tools(folder):
    """An environment in which CMake finds what tells it macOS's version."""
    folder.mkdir(exist_ok=True)
    tool = folder / "sw_vers"
    tool.write_text(f"#!/bin/sh\necho {MACOS}\n")
    tool.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def configure(folder):
    """CMake's build tree for a Mac; its compile commands."""
    tree = folder / "tree"
    headers = linked_headers(folder / "headers")
    # Without -c CMake would link a program to know the compiler by, for which
    # zig makes a libc++ first.
    compiler = f"{zig()};%s;-target;{TARGET};-c"
    run(["cmake", "--fresh", "-G", "Ninja", "-S", ROOT, "-B", tree,
         "-DCMAKE_SYSTEM_NAME=Darwin", "-DCMAKE_SYSTEM_PROCESSOR=arm64",
         f"-DCMAKE_C_COMPILER={compiler % 'cc'}",
         f"-DCMAKE_CXX_COMPILER={compiler % 'c++'}",
         # Nothing is linked, of which CMake would know too little here.
         "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY",
         f"-DCMAKE_MODULE_PATH={write_modules(folder / 'modules', headers)}",
         f"-DXXHASH_INCLUDE_DIR={headers}",
         f"-DPENNYWEIGHT_MLX_CMAKE_DIR={mlx_package(folder)}",
         f"-DPython_EXECUTABLE={sys.executable}",
         # This machine's headers, which differ by nothing that is used.
         f"-DPython_INCLUDE_DIR={sysconfig.get_path('include')}",
         "-DPENNYWEIGHT_PYTHON=ON",
         "-DCMAKE_BUILD_TYPE=Release", "-DPENNYWEIGHT_WERROR=ON",
         # Most of the time goes into headers, which a batch reads once.
         "-DPENNYWEIGHT_BATCH=64",
         "-DPENNYWEIGHT_BUILD_TESTS=OFF"], env=with_mac_tools(folder / "bin"))
    # Made by a script in CMake's language, which runs anywhere. As a target it
    # would have all rooms below built first.
    made = subprocess.run(
        ["ninja", "-C", tree, "-t", "commands", "-s", "src/report_template.cpp"],
        text=True, capture_output=True, check=True)
    run(["sh", "-c", made.stdout], cwd=tree)
    return json.loads((tree / "compile_commands.json").read_text())


def sources_of(file):
    """The sources that a batch of CMake's joins, or the file itself."""
    if "/Unity/" not in file:
        return [file]
    return re.findall(r'^#include "(.+)"$', Path(file).read_text(), re.M)


def left_out(folder, sources):
    """Sources below a folder that are not among these."""
    known = {str(Path(source).resolve()) for source in sources}
    return sorted(str(path) for path in folder.rglob("*.cpp")
                  if str(path.resolve()) not in known)


def front_end(entry):
    """The command by which zig's compiler reads a batch and makes no code of
    it. Zig can't be told so itself: it wants the object."""
    said = subprocess.run(
        [*shlex.split(entry["command"]), "-###"], cwd=entry["directory"],
        text=True, capture_output=True).stderr
    [words] = [shlex.split(line) for line in said.splitlines()
               if ' "-cc1" ' in line]
    words[words.index("-emit-obj")] = "-fsyntax-only"
    return words


def read_before(words, record):
    """Whether that command found nothing in the same files."""
    if not record.exists():
        return False
    known = json.loads(record.read_text())
    time = record.stat().st_mtime
    return known["command"] == words and all(
        os.path.exists(name) and os.stat(name).st_mtime < time
        for name in known["files"])


def check_one(entry, records):
    """What the compiler says of a batch; nothing where all is well."""
    words = front_end(entry)
    name = hashlib.sha256(entry["file"].encode()).hexdigest()[:16]
    record, reads = records / f"{name}.json", records / f"{name}.d"
    if read_before(words, record):
        return ""
    begun = time.time()
    done = subprocess.run(
        [*words, "-dependency-file", reads, "-MT", "it", "-sys-header-deps"],
        cwd=entry["directory"], capture_output=True, text=True)
    if done.returncode:
        record.unlink(missing_ok=True)
        return done.stderr
    files = shlex.split(reads.read_text().replace("\\\n", " "))[1:]
    record.write_text(json.dumps({"command": words, "files": [
        os.path.join(entry["directory"], file) for file in files]}))
    # A file may have been written to meanwhile.
    os.utime(record, (begun, begun))
    return ""


def main():
    if sys.platform == "darwin":
        print("check-macos: the build is that check here")
        return
    folder = Path(sys.argv[1] if len(sys.argv) > 1
                  else ROOT / "build/check-macos").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["ZIG_GLOBAL_CACHE_DIR"] = str(folder / "zig")
    # nanobind's own are in its target, too.
    commands = [entry for entry in configure(folder)
                if "site-packages" not in entry["file"]]
    sources = [source for entry in commands
               for source in sources_of(entry["file"])]
    missing = left_out(ROOT / "src", sources)
    records = folder / "read"
    records.mkdir(exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = [text for text in pool.map(
            lambda entry: check_one(entry, records), commands) if text]
    if failed or missing:
        sys.exit("".join(failed) + "".join(
            f"check-macos: {path} is in no target\n"
            for path in missing) +
            f"check-macos: {len(failed)} of {len(commands)} batches of "
            f"sources don't compile for {TARGET}")
    print(f"check-macos: {len(sources)} sources compile for {TARGET}, with "
          f"the headers of MLX {pinned_mlx()}")


if __name__ == "__main__":
    main()
