"""`harness compare`, `harness across` and `harness recommend`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import AsJson, DataRoot, Device, Out
from harness.cli.printing import print_json, print_rows, print_table
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.trained import TrainedModel

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or its name below --out.")]


def compare(
    one: RunPath,
    other: RunPath,
    pair: Annotated[
        list[str] | None,
        typer.Option(
            "--pair",
            metavar="ONE/OTHER",
            help="A variant of the first run and one of the second (repeatable).",
            show_default="the variants that both have",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="A metric (repeatable).", show_default="those of both studies"),
    ] = None,
    candidates: Annotated[
        str | None, typer.Option("--candidates", help="unseen or all.", show_default="the first study's")
    ] = None,
    out: Out = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Set two runs on the same data side by side: their metrics, and the second's difference from the first.

    The difference is paired by seed and user; its 95 % interval is for new seeds and new users. It is not a verdict:
    the comparison belongs to no family that a study declared.
    """
    from harness import api

    first, second = api.load_run(one, out), api.load_run(other, out)
    pairs = [_pair(given) for given in pair or ()]
    found = api.compare(first, second, pairs=pairs, metrics=metric, candidates=candidates)
    lines = _records(found)
    if as_json:
        print_json(lines)
        return
    shown = []
    for line in lines:
        variant = line["variant"] if line["variant"] == line["other"] else f"{line['variant']} / {line['other']}"
        interval = line["note"] if line["low"] is None else f"{line['low']:+.4f} to {line['high']:+.4f}"
        shown.append(
            {"dataset": line["dataset"], "variant": variant, "metric": line["metric"]}
            | {side: _shown(line[side], ".4f") for side in ("first", "second")}
            | {"seeds": line["seeds"], "difference": _shown(line["difference"], "+.4f")}
            | {"%": _shown(line["percent"], "+.1f"), "95 % interval": interval}
        )
    print_rows(shown)


def across(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs of one design, or their names below --out.")
    ],
    out: Out = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Set runs of one design on several data sets side by side: each comparison's verdict on each, and the mean.

    From 6 data sets on, Friedman's test ranks all variants. The report of one run on several data sets has this table.
    """
    from harness import api
    from harness.analysis.across import places_of
    from harness.analysis.tables.across import datasets_table

    table = datasets_table(places_of([api.load_run(run, out).data for run in runs]))
    if as_json:
        keys = [column.key for column in table.columns]
        lines = [
            {"comparison": line.key, **{k: e.value for k, e in zip(keys, line.entries, strict=True)}}
            for line in table.lines
        ]
        print_json({"lines": lines, "notes": list(table.notes)})
        return
    print_table(table)
    print("\n".join(["", table.caption, *table.notes]))


def recommend(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run, its name below --out, or an exported model.")
    ],
    variant: Annotated[str | None, typer.Option("--variant", help="Whose model, of a run.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of which seed.")] = 0,
    history: Annotated[
        str | None, typer.Option("--history", metavar="A,B,C", help="Item ids as in the data, oldest first.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", help="A user of the data; without --history, the user's own is taken.")
    ] = None,
    times: Annotated[
        str | None, typer.Option("--times", metavar="S,S,S", help="Seconds of each event, where the model reads them.")
    ] = None,
    action: Annotated[
        list[str] | None,
        typer.Option("--action", help="The actions of an event, as in like,share (repeat it for each event)."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Items of the history may come again.")] = False,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Of the run's data sets.")] = None,
    device: Device = "cpu",
    out: Out = Path("results"),
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Ask a trained model for the next items after a history: one of a run, or one that `harness export hub` wrote."""
    from harness import api

    if history is None and user is None:
        raise InputError("give the item ids of a --history, or a --user of the data")
    if variant is None:
        model = _exported(run, device)
    else:
        model = api.load_run(run, out).model(variant, seed, dataset, data_root=data_root, device=device)
    known: dict[str, Any] = {
        "times": None if times is None else _split(times),
        "actions": None if action is None else [_split(names) for names in action],
    }
    if history is None:
        events = model.events_of(user)
        known = {"times": events.get("time"), "actions": events.get("actions")}
    items = events["item"] if history is None else _split(history)
    found = _records(model.recommend(items, k, not include_seen, user=user, **known))
    if as_json:
        print_json(found)
    else:
        print_rows([line | {"score": f"{line['score']:.4f}"} for line in found])


def _exported(folder: Path, device: str) -> TrainedModel:
    from harness.export.hub import is_exported, load_model

    if not is_exported(folder):
        raise InputError(f"name the variant of the run {folder} with --variant (only an exported model needs none)")
    return load_model(folder, device)


def _pair(text: str) -> tuple[str, str]:
    one, sign, other = (part.strip() for part in text.partition("/"))
    if not one or not sign or not other or "/" in other:
        raise InputError(f"--pair {text}: write it as ONE/OTHER, a variant of the first run and one of the second")
    return one, other


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _records(frame: Any) -> list[dict[str, Any]]:
    """A frame's rows as JSON can hold them."""
    import json

    return json.loads(frame.to_json(orient="records", double_precision=15))
