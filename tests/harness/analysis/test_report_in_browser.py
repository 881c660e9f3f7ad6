"""The report as a reader's browser shows it: on a phone and on a desk, without a network, without an error."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.analysis.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (390, 1280)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")


def in_browser(page: Path, *words: str, width: int, profile: Path) -> subprocess.CompletedProcess:
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += [f"--user-data-dir={profile}", "--enable-logging=stderr", "--virtual-time-budget=5000"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={width},2400", *words, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def framed(report: Path, folder: Path, width: int) -> Path:
    """A page that holds the report in a frame of that width, since a window may not be made so narrow.

    Its title becomes a JSON of the widths of frame and content, and of what went wrong in it.
    """
    watch = (
        "<script>window.wrong=[];addEventListener('error',e=>wrong.push(e.message||e.target.outerHTML),true);"
        "for(const k of ['error','warn']){console[k]=(...a)=>wrong.push(a.join(' '))}</script>"
    )
    text = re.sub(r"<head>", "<head>" + watch, report.read_text(encoding="utf-8"), count=1)
    assert watch in text
    tell = (
        "<script>const f=document.getElementById('f');f.onload=()=>{const d=f.contentDocument.documentElement;"
        "document.title=JSON.stringify({frame:f.clientWidth,content:d.scrollWidth,wrong:f.contentWindow.wrong})}</script>"
    )
    style = f"display:block;border:0;width:{width}px;height:2400px"
    frame = f'<iframe id="f" style="{style}" srcdoc="{html.escape(text)}"></iframe>'
    page = folder / f"framed-{width}.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><body style='margin:0'>{frame}{tell}", encoding="utf-8")
    return page


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["run_dir", "action_dir"])
def test_the_report_fits_and_nothing_goes_wrong(kind, width, tmp_path, request):
    """``HARNESS_ARTEFACTS`` names a folder in which the screenshots stay."""
    run = tmp_path / "run"
    shutil.copytree(request.getfixturevalue(kind), run)
    write_report(run)
    page = framed(run / "report.html", tmp_path, width)
    dumped = in_browser(page, "--dump-dom", width=width, profile=tmp_path / "profile").stdout
    seen = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dumped).group(1)))
    assert seen["wrong"] == []
    assert seen["frame"] == width
    assert seen["content"] <= width, "the page is wider than the window"

    kept = Path(os.environ.get("HARNESS_ARTEFACTS") or tmp_path)
    kept.mkdir(parents=True, exist_ok=True)
    picture = kept / f"report-{kind.removesuffix('_dir')}-{width}.png"
    shown = in_browser(page, f"--screenshot={picture}", width=width, profile=tmp_path / "profile")
    assert "CONSOLE" not in shown.stderr
    assert picture.stat().st_size > 10_000
