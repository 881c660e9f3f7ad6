"""The report as one HTML document: no network, no script but its own, nothing active from data.

A content security policy names the hash of that one script, so a browser runs nothing else, whatever a label holds.
Sorting, filtering and hovering are some 100 lines of plain JavaScript: the libraries for sortable tables expect one
body of rows and one row of headings, where ours have blocks, stacked headings and deviations behind each number, and
those for charts would draw the figures anew and weigh a hundred times as much.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from harness.analysis.artefacts import SECTIONS, Failures, Picture, ReportTable
from harness.analysis.efficiency import Efficiency, sentences
from harness.analysis.picture import hover_points, svg_uri
from harness.analysis.render import FILES, TWO_COLUMN
from harness.analysis.render.page import file_links, html_table
from harness.analysis.rows import Run
from harness.analysis.run_files import read_outside
from harness.analysis.table import Table
from harness.analysis.verdicts import headline, speed_headline, verdicts
from harness.analysis.warnings import warnings_of

__all__ = ["document", "render_page"]

_TITLES = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX", TWO_COLUMN: "LaTeX, two columns"}


def render_page(
    subject: Run | Efficiency, tables: list[tuple[ReportTable, Table]], drawn: list[Picture], failures: Failures
) -> str:
    """The page of a run or of a measurement of speed. What fails on the way is added to ``failures``."""
    parts = [(m.section, m.order, Markup(html_table(t, {} if m.page_only else _files(t)))) for m, t in tables]
    for picture in drawn:
        with failures.kept(f"picture {picture.name}"):
            parts.append((picture.section, picture.order, _picture(picture)))
    said = _said(subject, failures) if isinstance(subject, Run) else _speed_said(subject, failures)
    return document("report.html", sections=_sections(parts), failures=failures, **said)


def document(template: str, **values: Any) -> str:
    """A page of a template, with the style sheet and the one script that it may run."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.analysis"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    own = resources.files("harness.analysis") / "templates"
    script = (own / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        style=Markup((own / "report.css").read_text(encoding="utf-8")), script=Markup(script), digest=digest, **values
    )


def _sections(parts: list[tuple[str, int, Markup]]) -> list[dict[str, Any]]:
    """Sections in the report's order, each with its tables and figures in theirs."""
    keys = [*SECTIONS, *sorted({section for section, _, _ in parts} - set(SECTIONS))]
    found = []
    for key in keys:
        own = [(order, html) for section, order, html in parts if section == key]
        if own:
            ordered = [html for _, html in sorted(own, key=lambda part: part[0])]
            found.append({"key": key, "title": SECTIONS.get(key, key.capitalize()), "parts": ordered})
    return found


def _files(table: Table) -> dict[str, str]:
    return {title: f"tables/{FILES[form].format(table.name)}" for form, title in _TITLES.items()}


def _picture(picture: Picture) -> Markup:
    uri = svg_uri(picture.figure)  # draws it, too
    width, height = picture.figure.get_size_inches()
    files = {"PDF": "", "PDF, one column": "column/"}
    links = {title: f"figures/{folder}{picture.name}.pdf" for title, folder in files.items()}
    links["PNG"] = f"figures/{picture.name}.png"
    return Markup(
        '<figure class="picture" id="figure-{name}" data-points="{points}">\n<div class="scroll"><div class="plot">'
        '<img alt="{caption}" width="{width}" height="{height}" src="{uri}"></div></div>\n'
        "<figcaption>{caption}</figcaption>{links}</figure>"
    ).format(
        name=picture.name, caption=picture.caption, width=round(96 * width), height=round(96 * height), uri=uri,
        points=json.dumps(hover_points(picture.figure), ensure_ascii=False, separators=(",", ":")),
        links=Markup(file_links(links)),
    )  # fmt: skip


def _said(run: Run, failures: Failures) -> dict[str, Any]:
    """What the page of a run says beside its tables and figures."""
    sentence, answers, careful = "", [], []
    with failures.kept("headline"):
        sentence = headline(run)
    with failures.kept("verdicts"):
        answers = verdicts(run)
    with failures.kept("warnings"):
        careful = warnings_of(run)
    states = run.cells["state"].value_counts().to_dict()
    counts = [f"{states.get('finished', 0)} of {len(run.cells)} cells finished"]
    words = {"failed": "failed", "missing": "not run"}
    counts += [f"{states[state]} {said}" for state, said in words.items() if state in states]
    outside = read_outside(run.path, ())["cells"]  # what added predictions of other systems
    commands = [run.summary.get("command", ""), *(cell["command"] for cell in outside if "command" in cell)]
    return {
        "title": run.study.get("title") or run.name,
        "question": run.study.get("question") or "",
        "headline": sentence,
        "sentences": answers,
        "warnings": careful,
        "facts": f"{', '.join(counts)}. Every number on this page is derived from the rows of those cells.",
        "command": "\n".join(commands),
        "again": f"harness report --study {run.study.get('run') or run.name}",
        "cards": _fidelity(run),
        "unfinished": [
            (
                cell["id"],
                f"{run.label(cell['variant'])}, {cell['dataset']}, seed {cell['seed']}"
                f"{', codes ' + str(cell['draw']) if run.draws_codes else ''}: {cell['state']}",
            )
            for cell in run.cells[run.cells["state"] != "finished"].to_dict("records")
        ],
        "environment": _environment(run),
        "fingerprints": _fingerprints(run),
        "files": ["study.yaml", "summary.json", "evidence.json", "tables/", "figures/"],
    }


def _speed_said(found: Efficiency, failures: Failures) -> dict[str, Any]:
    sentence, answers = "", []
    with failures.kept("headline"):
        sentence = speed_headline(found)
    with failures.kept("verdicts"):
        answers = sentences(found)
    return {
        "title": found.study["title"] or found.study["study"],
        "question": found.study["question"],
        "headline": sentence,
        "sentences": answers,
        "warnings": [],
        "facts": "Every number on this page is derived from the seconds of every turn in efficiency.json.",
        "command": found.record["command"],
        "again": f"harness report --study {found.path.name}",
        "cards": [],
        "unfinished": [],
        "environment": [(name, value) for name, value in _facts(found.record).items() if value],
        "fingerprints": [],
        "files": ["study.yaml", "efficiency.json", "evidence.json", "tables/", "figures/"],
    }


def _fidelity(run: Run) -> list[dict[str, Any]]:
    """Fidelity cards, one per distinct card, with the labels of the variants that it holds for."""
    given = run.study.get("fidelity") or {}
    cards: list[dict[str, Any]] = []
    for variant in run.variants:
        card = given.get(variant)
        if not card:
            continue
        same = next((entry for entry in cards if entry["card"] == card), None)
        if same is None:
            cards.append({"labels": [run.label(variant)], "card": card})
        else:
            same["labels"].append(run.label(variant))
    return cards


def _environment(run: Run) -> list[tuple[str, str]]:
    """What the cells ran on: each distinct value once."""
    facts: dict[str, list[str]] = {}
    for cell in run.finished["id"]:
        for name, value in _facts(run.cards[cell]).items():
            if value and value not in facts.setdefault(name, []):
                facts[name].append(value)
    return [(name, "; ".join(values)) for name, values in facts.items() if values]


def _facts(card: dict[str, Any]) -> dict[str, str]:
    """Versions, hardware and commit of a cell or a measurement; empty where unknown."""
    hardware, git = card.get("hardware") or {}, card.get("git")
    memory = hardware.get("memory_bytes")
    return {
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(card.get("versions", {}).items())),
        "device": str(hardware.get("device", "")),
        "processor": f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['threads']} used" if hardware else "",
        "memory": f"{memory / 2**30:.1f} GiB" if memory else "",
        "commit": f"{git['commit']}{' with local changes' if git.get('dirty') else ''}" if git else "",
    }


def _fingerprints(run: Run) -> list[tuple[str, str, str]]:
    lines: list[tuple[str, str, str]] = []
    for key, cells in run.finished.groupby("dataset", sort=False):
        dataset = str(key)
        prints = run.cards[cells["id"].iloc[0]].get("fingerprints", {})
        lines += [(dataset, name, digest) for name, digest in sorted((prints.get("files") or {}).items())]
        lines += [(dataset, f"{kind}", prints[kind]) for kind in ("log", "split") if prints.get(kind)]
        lines += [(dataset, "item codes", codes) for codes in dict.fromkeys(cells["codes"].dropna())]
    return lines
