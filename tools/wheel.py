"""Builds a wheel that needs no compiler and, beside the wheels that it depends on,
no library: `wheel.py build` from this tree into dist/, `wheel.py repair WHEEL
FOLDER` the second half alone, as cibuildwheel calls it.

libmlx is left out, since mlx's own wheel brings it: the core looks for it beside
itself in site-packages. The platform's tag is that of mlx's wheel, which
auditwheel grants where no symbol is of a newer system. All licences of what is
in the wheel go into it."""

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINUX = sys.platform == "linux"
# Sources that are compiled in: Debian's package of each, or Homebrew's.
HEADERS = {"nlohmann-json3-dev": "nlohmann-json", "libcli11-dev": "cli11",
           "libxxhash-dev": "xxhash", "libhwy-dev": "highway"}
NAMES = re.compile(r"(?i)(licen[cs]e|copying|copyright|notice)")


def run(*words, **more):
    return subprocess.run([str(word) for word in words], check=True, **more)


def output(*words):
    return subprocess.run([str(word) for word in words], text=True,
                          capture_output=True).stdout.strip()


def mlx_platform():
    """Such as manylinux_2_35_x86_64."""
    tags = re.findall(r"^Tag: \S+?-\S+?-(\S+)$", importlib.metadata.distribution(
        "mlx").read_text("WHEEL") or "", re.M)
    return tags[0]


def build(folder):
    """The wheel as the compiler leaves it."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps",
        "--no-build-isolation", "--disable-pip-version-check", "-w", folder,
        f"-Cbuild-dir={ROOT / 'build/wheel'}",
        "-Ccmake.define.PENNYWEIGHT_CARGO_TARGET_DIR=" + str(ROOT / "build/rust"),
        ROOT)
    return next(Path(folder).glob("pennyweight-*.whl"))


def repair(wheel, folder):
    """With the libraries that it needs."""
    tools = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if LINUX:
        run(sys.executable, "-m", "auditwheel", "repair",
            "--plat", mlx_platform(), "--only-plat", "--exclude",
            "libmlx.so", "-w", folder, wheel, env=os.environ | tools)
    else:
        run("delocate-wheel", "--exclude", "libmlx", "--require-archs", "arm64",
            "-w", folder, wheel, env=os.environ | tools)
    return next(Path(folder).glob("pennyweight-*.whl"))


def package_of(file):
    """Debian's package of a file."""
    for name in (file, file.resolve()):
        if owner := output("dpkg", "-S", name).partition(":")[0]:
            return owner
    # Files of / that dpkg knows from before / and /usr were one.
    return output("dpkg", "-S", str(file.resolve()).removeprefix("/usr")
                  ).partition(":")[0]


def debian_licence(package):
    """Its copyright, and the licences that this only names."""
    text = Path(f"/usr/share/doc/{package}/copyright").read_text()
    for name in sorted(set(re.findall(r"/usr/share/common-licenses/([\w.-]*\w)",
                                      text))):
        common = Path("/usr/share/common-licenses", name)
        if common.is_file():
            text += f"\n\n--- {common.name} ---\n\n{common.read_text()}"
    return text


def system_licences(libraries):
    """Of the libraries in the wheel, and of the headers that it was made with."""
    if not LINUX:
        for formula in [*HEADERS.values(), "onednn", "libomp"]:
            prefix = Path(output("brew", "--prefix", formula) or "/none")
            files = sorted(prefix.iterdir()) if prefix.is_dir() else []
            if found := [f for f in files if NAMES.search(f.name)]:
                yield formula, "\n\n".join(f.read_text() for f in found)
        return
    packages = {package for package in HEADERS
                if Path(f"/usr/share/doc/{package}/copyright").exists()}
    for name in libraries:
        # auditwheel puts a hash in: libgomp-1234abcd.so.1.0.0.
        plain = re.sub(r"-[0-9a-f]{8}(?=\.so)", "", name)
        file = next(Path("/usr/lib").glob(f"*-linux-gnu/{plain}"), None)
        if file is None or not (package := package_of(file)):
            sys.exit(f"wheel: {name} is of no package that is known here")
        packages.add(package)
    for package in sorted(packages):
        yield package, debian_licence(package)


def rust_licences():
    """Of all crates that are linked, each text once."""
    metadata = json.loads(output(
        shutil.which("cargo") or Path.home() / ".cargo/bin/cargo", "metadata",
        "--locked", "--format-version=1", "--manifest-path",
        ROOT / "rust/Cargo.toml"))
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    linked, waiting = set(), [metadata["resolve"]["root"]]
    while waiting:
        if (own := waiting.pop()) not in linked:
            linked.add(own)
            waiting += [dep["pkg"] for dep in nodes[own]["deps"] if any(
                kind["kind"] is None for kind in dep["dep_kinds"])]
    crates_of = {}
    for package in sorted(metadata["packages"], key=lambda own: own["name"]):
        if package["id"] not in linked or package["source"] is None:
            continue
        name = f"{package['name']} {package['version']} ({package['license']})"
        folder = Path(package["manifest_path"]).parent
        files = [f for f in sorted(folder.iterdir())
                 if f.is_file() and NAMES.search(f.name)]
        texts = [f.read_text(errors="replace").strip() for f in files] or [""]
        for text in texts:
            crates_of.setdefault(text, []).append(name)
    parts = []
    for text, crates in crates_of.items():
        said = text or "(comes without a file; the licence named above holds)"
        parts.append("\n".join(crates) + "\n\n" + said)
    return "\n\n==========\n\n".join(parts) + "\n"


def add_licences(wheel):
    """Into the wheel's dist-info/licenses, where its own is."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    libraries = [Path(name).name for name in names
                 if re.search(r"\.(libs|dylibs)/[^/]+$", name)]
    texts = dict(system_licences(libraries))
    texts["rust-crates"] = rust_licences()
    nanobind = importlib.metadata.distribution("nanobind")
    texts["nanobind"] = next(
        file for file in nanobind.files or []
        if NAMES.search(file.name)).read_text()
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "wheel", "unpack", "-d", folder, wheel,
            stdout=subprocess.DEVNULL)
        root = next(Path(folder).iterdir())
        place = next(root.glob("*.dist-info")) / "licenses/third-party"
        place.mkdir(parents=True)
        for name, text in texts.items():
            (place / f"{name}.txt").write_text(text)
        run(sys.executable, "-m", "wheel", "pack", "-d", wheel.parent, root,
            stdout=subprocess.DEVNULL)
    return len(texts)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("build")
    again = commands.add_parser("repair")
    again.add_argument("wheel", type=Path)
    again.add_argument("folder", type=Path)
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        if options.command == "build":
            folder = ROOT / "dist"
            wheel = build(made)
        else:
            folder, wheel = options.folder, options.wheel
        folder.mkdir(exist_ok=True)
        for old in folder.glob("pennyweight-*.whl"):
            if options.command == "build":
                old.unlink()
        with tempfile.TemporaryDirectory() as repaired:
            done = repair(wheel, Path(repaired))
            licences = add_licences(done)
            target = folder / done.name
            shutil.move(done, target)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, {licences} licences of "
          f"others, in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
