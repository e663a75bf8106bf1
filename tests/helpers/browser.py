"""A page in a real browser, headless, at the widths of a phone and of a desk."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--enable-logging=stderr",
]  # fmt: skip
WIDTHS = (390, 1280)


def both_widths(page: Path, script: str) -> Path:
    """The page, with a script in it, as on a phone and on a desk; it writes down what they report."""
    inner = page.with_name("inner.html")
    inner.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    frames = "".join(f'<iframe src="inner.html" style="border:0;width:{w}px;height:844px"></iframe>' for w in WIDTHS)
    outer = page.with_name("outer.html")
    collect = "const all = []; onmessage = (e) => { all.push(e.data); out.textContent = JSON.stringify(all); };"
    style = '<body style="margin:0;display:flex">'
    outer.write_text(f'<!doctype html>{style}{frames}<pre id="out" hidden></pre><script>{collect}</script>')
    return outer


def browse(page: Path, *flags: str) -> tuple[str, str]:
    assert BROWSER is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        window = f"--window-size={sum(WIDTHS)},844"
        argv = [BROWSER, *FLAGS, f"--user-data-dir={profile}", window, "--virtual-time-budget=8000", *flags]
        done = subprocess.run([*argv, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr
