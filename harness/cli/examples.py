"""Commands as somebody types them, for the end of each command's `--help`."""

from __future__ import annotations

__all__ = ["EXAMPLES", "epilog"]

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "harness run --study ablations --preset smoke",
        "harness run --study shop.yaml --seeds 8 --workers 4",
        "harness run --study ablations --name slow --set training.learning_rate=0.001 --set budget.epochs=20",
        "harness run --study ablations --dataset movies --data-root data",
        "harness run --study tuning --tuned",
    ),
    "report": (
        "harness report --study ablations",
        "harness report --study ablations --text-width 516 --column-width 252",
        "harness report --index --out runs",
    ),
    "plan": (
        "harness plan --study ablations",
        "harness plan --study ablations --difference 0.005",
    ),
    "tune": (
        "harness tune --study tuning --trials 8",
        "harness tune --study tuning --trials 30 --minutes 120 --workers 4",
    ),
    "evaluate": ("harness evaluate --study ablations --metric coverage@10 --metric novelty@10",),
    "trace": ("harness trace --study ablations main no-noise-loss ndcg@10",),
    "compare": (
        "harness compare ablations slow --metric ndcg@10",
        "harness compare results/benchmark results/beauty --pair sasrec-ce/sasrec-ce",
    ),
    "recommend": (
        "harness recommend ablations --variant fair --seed 0 --history 50,181,172 -k 5",
        "harness recommend ablations --variant fair --user 196 --json",
        "harness recommend fair-ml-100k --history 50,181,172",
    ),
    "export top-k": (
        "harness export top-k ablations --variant fair --seed 0 -k 20 --to fair.csv",
        "harness export top-k ablations --candidates all --to lists.parquet",
    ),
    "export predictions": (
        "harness export predictions ablations --variant fair --to fair.parquet",
        "harness export predictions ablations --part valid --to valid.csv",
    ),
    "export hub": ("harness export hub ablations --variant fair --seed 0 --licence mit --to fair-ml-100k",),
    "data show": (
        "harness data show ml-100k",
        'harness data show shop.csv --set "columns={user: customer, item: sku, time: bought_at}"',
    ),
    "data import": (
        "harness data import ratings.csv --user userId --item movieId --time timestamp --items movies.csv --name ml",
        "harness data import plain.tsv --user 1 --item 2 --time 4",
    ),
    "data get": (
        "harness data get amazon-2023:Video_Games",
        "harness data get yelp --from ~/Downloads/yelp --data-root data",
    ),
}
"""Command -> examples."""


def epilog(command: str) -> str | None:
    """The end of the command's help; None where it has no examples."""
    # typer shows a line for each paragraph.
    return "\n\n".join(["Examples:", *EXAMPLES[command]]) if command in EXAMPLES else None
