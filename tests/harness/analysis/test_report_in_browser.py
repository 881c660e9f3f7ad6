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

DARK = ["--blink-settings=preferredColorScheme=0"]
TRY = """
  const table=d.querySelector('#table-main table'), rows=() => [...table.tBodies[0].rows], place=3;
  const column=() => rows().map(row => Number(row.cells[place].dataset.value));
  said.before=column();
  const heading=table.querySelectorAll('tr.heads th')[place];
  heading.querySelector('button').click(); said.up=column();
  heading.querySelector('button').click(); said.down=column();
  said.sorted=heading.getAttribute('aria-sort');
  heading.querySelector('button').click(); said.again=column();
  const field=[...d.querySelectorAll('input[type=search]')][0];
  if (field) {
    field.value='no such variant'; field.dispatchEvent(new Event('input'));
    const lines=[...field.parentElement.querySelectorAll('tbody tr:not(.block)')];
    said.hidden=lines.every(row => row.hidden);
    field.value=''; field.dispatchEvent(new Event('input'));
    said.shown=lines.every(row => !row.hidden);
  }
  const figure=d.getElementById('figure-differences'), plot=figure.querySelector('.plot');
  const point=JSON.parse(figure.dataset.points).points[0], box=plot.getBoundingClientRect();
  const at={clientX:box.left+point[0]*box.width, clientY:box.top+point[1]*box.height};
  plot.dispatchEvent(new PointerEvent('pointermove', at));
  said.tip=figure.querySelector('.tip').textContent; said.expected=point;
  said.paper=f.contentWindow.getComputedStyle(d.body).backgroundColor;
"""
"""What is tried in the page: sorting a column, filtering, pointing at the first point of a figure."""

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
    tell = f"""<script>const f=document.getElementById('f');f.onload=()=>{{
      const d=f.contentDocument, said={{frame:f.clientWidth, content:d.documentElement.scrollWidth}};
      {TRY}
      said.wrong=f.contentWindow.wrong; document.title=JSON.stringify(said)}}</script>"""
    style = f"display:block;border:0;width:{width}px;height:2400px"
    frame = f'<iframe id="f" style="{style}" srcdoc="{html.escape(text)}"></iframe>'
    page = folder / f"framed-{width}.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><body style='margin:0'>{frame}{tell}", encoding="utf-8")
    return page


@pytest.fixture(scope="module", params=["run_dir", "action_dir"])
def reported(request, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / request.param.removesuffix("_dir")
    shutil.copytree(request.getfixturevalue(request.param), run)
    write_report(run)
    return run


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_fits_works_and_nothing_goes_wrong(reported, width, scheme, tmp_path):
    """``HARNESS_ARTEFACTS`` names a folder in which the screenshots stay."""
    page, mode = framed(reported / "report.html", tmp_path, width), DARK if scheme == "dark" else []
    dumped = in_browser(page, *mode, "--dump-dom", width=width, profile=tmp_path / "profile").stdout
    seen = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dumped).group(1)))
    assert seen["wrong"] == []
    assert seen["frame"] == width
    assert seen["content"] <= width, "the page is wider than the window"

    assert (seen["up"], seen["down"]) == (sorted(seen["before"]), sorted(seen["before"], reverse=True))
    assert (seen["again"], seen["sorted"]) == (seen["before"], "descending")
    assert seen.get("hidden", True)
    assert seen.get("shown", True)
    assert seen["tip"].splitlines()[1].endswith(f": {seen['expected'][4]}")
    assert seen["paper"] == {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 25, 29)"}[scheme]

    kept = Path(os.environ.get("HARNESS_ARTEFACTS") or tmp_path)
    kept.mkdir(parents=True, exist_ok=True)
    picture = kept / f"report-{reported.name}-{scheme}-{width}.png"
    shown = in_browser(page, *mode, f"--screenshot={picture}", width=width, profile=tmp_path / "profile")
    assert "CONSOLE" not in shown.stderr
    assert picture.stat().st_size > 10_000
