"""The reference pages of the site, made from the code at every build: each setting of a study file, each model."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
import shutil
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.data.config import DataConfig
from harness.errors import InputError
from harness.fidelity import card
from harness.interface import Recommender
from harness.items.config import ItemsConfig
from harness.registry import REGISTRIES, is_family, load_model, model_names
from harness.study.design import Study
from harness.study.efficiency_design import EfficiencyStudy
from harness.training_config import TrainingConfig

__all__ = ["pages", "write"]

PAGES = {
    "study": ("Study file", Study),
    "data": ("Settings under data", DataConfig),
    "items": ("Settings under items", ItemsConfig),
    "training": ("Settings under training", TrainingConfig),
    "efficiency": ("Study of speed", EfficiencyStudy),
}
"""Page -> its title and the settings class at its top; the classes below that one follow it, unless another page
has them."""
LEADS = {
    "study": "The keys of a study file. `study`, `datasets`, `seeds`, `variants`, `metrics` and `primary` are needed. "
    "[Architecture](../architecture.md#a-study-file) shows a whole file and says which setting wins.",
    "data": "The keys below `data:` in a study file; `data.KEY` under `common`, `set` or `--set`.",
    "items": "The keys below `items:` in a study file; `items.KEY` under `common`, `set` or `--set`. They say how "
    "[item codes](../item-codes.md) are made, for the models that read codes.",
    "training": "Written `training.KEY` under `common`, a data set, `set`, or after `--set`. Each model has defaults "
    "of its own for some of them, which stand on [its page](models/index.md).",
    "efficiency": "A study with `task: efficiency` trains nothing: it measures training steps on invented sequences.",
}
PLURALS = {"whole number": "whole numbers", "number": "numbers", "text": "texts"}
TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "anything", NoneType: "null"}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
LENGTHS = {"min_length": "at least {} of them", "max_length": "at most {} characters", "pattern": "matching `{}`"}


def pages() -> dict[str, str]:
    """Path below ``docs/reference`` -> the page in Markdown."""
    found = {f"{name}.md": _settings_page(name) for name in PAGES}
    found |= {"registered.md": _registered(), "tour.md": _notebook(Path(__file__).with_name("tour.ipynb"))}
    models = {name: _family_page(name) if is_family(name) else _model_page(name) for name in model_names()}
    found |= {f"models/{name}.md": page for name, page in models.items()}
    return found | {"models/index.md": _model_index()}


def write(folder: Path) -> None:
    """Writes the pages into ``folder``, in place of all that is there."""
    made = pages()
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _settings_page(name: str) -> str:
    title, top = PAGES[name]
    kinds = [top, *parts_of(top)] if name != "efficiency" else [top]  # its variants are those of any study
    sections = [f"# {title}", LEADS[name]]
    for kind in kinds:
        if kind is not top:
            sections.append(f"({_anchor(kind)})=\n## {_heading(kind)}")
        sections += [_prose(kind.__doc__ or ""), _options(kind)]
    return "\n\n".join(part for part in sections if part) + "\n"


def _heading(kind: type[BaseModel]) -> str:
    """A class's name, and the ``kind`` that chooses it where there is one."""
    named = kind.model_fields.get("kind")
    return f"`kind: {named.default}`" if named else kind.__name__


def parts_of(kind: type[BaseModel]) -> list[type[BaseModel]]:
    """The settings classes that the fields of ``kind`` hold, and those below them, in the order of the fields; not
    those with a page of their own."""
    found: dict[type[BaseModel], None] = {}
    for field in kind.model_fields.values():
        for part in _classes(field.annotation):
            if part not in {top for _, top in PAGES.values()}:
                found |= {part: None} | dict.fromkeys(parts_of(part))
    return list(found)


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _classes(argument)


def _options(kind: type[BaseModel]) -> str:
    """The fields of a settings class as a definition list: the name; type and default; what it is."""
    said = _docstrings(kind)
    entries = []
    for name, field in kind.model_fields.items():
        text = _prose(said.get(name) or field.description or "")
        lines = [f"`{name}`", f": {_spelled(field)} · {_default(field)}"]
        entries.append("\n".join(lines) + ("\n\n" + textwrap.indent(text, "  ") if text else ""))
    return "\n\n".join(entries) or "It has no options."


def _spelled(field: FieldInfo) -> str:
    bounds = []
    for rule in field.metadata:
        bounds += [f"{sign} {getattr(rule, key):g}" for key, sign in BOUNDS.items() if hasattr(rule, key)]
        bounds += [text.format(getattr(rule, key)) for key, text in LENGTHS.items() if getattr(rule, key, None)]
    return ", ".join([_type(field.annotation), *bounds])


def _type(kind: Any) -> str:  # noqa: PLR0911 (one return per kind of type)
    """A type as somebody who writes YAML calls it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        bounds = [
            f"{BOUNDS[key]} {getattr(rule, key):g}" for rule in arguments[1:] for key in BOUNDS if hasattr(rule, key)
        ]
        return ", ".join([_type(arguments[0]), *bounds])
    if origin is Literal:
        return " or ".join(f"`{_yaml(value)}`" for value in arguments)
    if origin in {Union, UnionType}:
        return " or ".join(dict.fromkeys(_type(part) for part in arguments))
    if origin is dict:
        return f"mapping (name → {_type(arguments[1])})"
    if origin in {tuple, list}:
        if origin is list or arguments[-1] is Ellipsis:
            part = _type(arguments[0])
            return f"list of {PLURALS.get(part, f'({part})')}"
        return "[" + ", ".join(_type(part) for part in arguments) + "]"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        page = next((name for name, (_, top) in PAGES.items() if top is kind), None)
        return f"[{_heading(kind)}]({page}.md)" if page else f"[{_heading(kind)}](#{_anchor(kind)})"
    return TYPES.get(kind, f"`{getattr(kind, '__name__', kind)}`")


def _anchor(kind: type[BaseModel]) -> str:
    return "settings-" + re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        chosen = value.model_dump(mode="json", exclude_defaults=True) | {
            key: found for key, found in value.model_dump(mode="json").items() if key == "kind"
        }
        return f"default `{_yaml(chosen)}`" if chosen else "default: its own defaults"
    if isinstance(value, tuple):
        value = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in value]
        value = [{"kind": part["kind"], "dim": part["dim"]} if isinstance(part, dict) else part for part in value]
    return f"default `{_yaml(value)}`"


def _yaml(value: Any) -> str:
    """A value as it stands in a study file, on one line."""
    if isinstance(value, float):
        return f"{value:g}"
    if value == "":
        return '""'
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


@cache
def _docstrings(kind: type[BaseModel]) -> dict[str, str]:
    """Field -> the string that stands below it in the class's source, or in that of a class it is built on."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not issubclass(base, BaseModel) or base.__module__.startswith("pydantic"):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):  # made at run time, as the settings of RecBole's models are
            continue
        body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
        for field, text in itertools.pairwise(body):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            if (
                isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[field.target.id] = text.value.value
    return found


def _prose(text: str) -> str:
    """A docstring as Markdown: roles of reStructuredText become code."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", inspect.cleandoc(text)).strip().replace(" -> ", " → ")


def _listed(values: tuple[str, ...] | list[str]) -> str:
    return "\n".join(f"- {value}" for value in values)


def _model_index() -> str:
    lines = [
        "# Models",
        "`harness list models` prints this list; a model of your own ([guide](../../add-a-model.md)) joins it.",
    ]
    table = ["| model | task | how close to the publication |", "|---|---|---|"]
    for name in model_names():
        if is_family(name):
            table.append(f"| [`{name}:NAME`]({name}.md) | retrieval | the publication's own code |")
            continue
        model = load_model(name)
        tasks = ", ".join(sorted(model.tasks))
        table.append(f"| [`{name}`]({name}.md) | {tasks} | {model.fidelity.status} |")
    lines += ["\n".join(table), "```{toctree}\n:hidden:\n\n" + "\n".join(model_names()) + "\n```"]
    return "\n\n".join(lines) + "\n"


def _model_page(name: str) -> str:
    model = load_model(name)
    return "\n\n".join([f"# `{name}`", *_model(name, model, "##")]) + "\n"


def _model(name: str, model: type[Recommender[Any]], level: str) -> list[str]:
    """What a page says of one model, without its title; the sections' headings begin with ``level``."""
    found = card(model)
    needs = [key for key, value in vars(model.needs).items() if value is True]
    facts = [f"Publication: {found['paper']}", f"Status: {found['status']}", f"Task: {', '.join(sorted(model.tasks))}"]
    facts += [f"Needs: {', '.join(needs).replace('_', ' ')}"] if needs else []
    parts = [_prose(model.__doc__ or ""), _listed(facts)]
    parts += [f"{level} Checked", _listed(found["verified"])] if found["verified"] else []
    parts += [f"{level} Options", _options(model.Config)]
    if model.training_defaults:
        set_here = {f"training.{key}": value for key, value in model.training_defaults.items()}
        parts += [f"{level} Its defaults of training", _listed([f"`{k}: {_yaml(v)}`" for k, v in set_here.items()])]
    if found["choices"]:
        reasons = [
            f"`{choice['option']}` (default `{_yaml(choice['default'])}`): {choice['reason']} ({choice['source']})"
            for choice in found["choices"]
        ]
        parts += [f"{level} What the publication leaves open", _listed(reasons)]
    parts += [f"{level} Known differences", _listed(found["departures"])] if found["departures"] else []
    return parts


def _family_page(name: str) -> str:
    family = REGISTRIES["models"].load(name)
    lines = [f"# `{name}:NAME`", _prose(family.__doc__ or "")]
    try:
        members = family.members()
    except InputError as error:
        return "\n\n".join([*lines, f"Not available where this page was built: {error}"]) + "\n"
    for member in members:
        asked = f"{name}:{member}"
        lines += [f"## `{asked}`", *_model(asked, load_model(asked), "###")]
    return "\n\n".join(lines) + "\n"


def _registered() -> str:
    """What else is registered: everything that a study, or a command, can name."""
    lines = [
        "# Metrics, splitters and other parts",
        "`harness list KIND` prints each list; `[extras]` have to be installed.",
    ]
    for kind, registry in REGISTRIES.items():
        if kind in {"models", "datasets"}:
            continue
        lines += [f"## {kind.capitalize()}", f"{registry.purpose[0].upper()}{registry.purpose[1:]}."]
        entries = []
        for name in registry.names():
            try:
                said = registry.load(name)
                meaning = getattr(said, "meaning", "") or (said.__doc__ or "").strip().split("\n")[0]
            except InputError:
                meaning = "its library is not installed here"
            entries.append(f"`{name}`: {_prose(meaning)}")
        lines.append(_listed(entries))
    return "\n\n".join(lines) + "\n"


def _notebook(path: Path) -> str:
    """A notebook with the outputs that it holds. What Jupyter shows as a table, or a picture, is HTML here."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            # The page lies a folder deeper, and what is outside of the docs has no page.
            inside = re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", source)
            parts.append(re.sub(r"\]\((?!\w+:|#)", "](../", inside))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                shown = f'<img alt="figure" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
            elif "text/html" in data:
                shown = "".join(data["text/html"])
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
                continue
            parts.append(f'````{{raw}} html\n<div class="notebook-output">{shown}</div>\n````')
    return "\n\n".join(parts) + "\n"
