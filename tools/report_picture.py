#!/usr/bin/env python3
"""Makes docs/report.png: the top of the report of a run of `quantize`.

    tools/report_picture.py MODEL TEXT [--target-bpw 4.5 ...]

runs `quantize` on the model with this text and the flags that follow, and takes
the picture in headless Chromium, 1280 pixels wide.
"""

import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.chromium import Chromium  # noqa: E402

WIDTH, HEIGHT = 1280, 900


def main():
    model, text, *flags = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out"
        subprocess.run(
            [ROOT / "build/release/src/pennyweight", "quantize", model, "-o", out,
             "--data-path", text, *flags], check=True)
        browser = Chromium(pathlib.Path(folder) / "profile")
        try:
            browser.open(out / "report.html", WIDTH, HEIGHT)
            browser.screenshot(ROOT / "docs/report.png", full=False)
        finally:
            browser.close()


main()
