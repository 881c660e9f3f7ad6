"""What the progress display says of the time left."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.files import write_json
from harness.study.folder import RunFolder
from harness.study.progress import Display


def cell(number: int, variant: str = "v") -> SimpleNamespace:
    return SimpleNamespace(
        id=f"c{number}",
        name=f"cell {number}",
        dataset="d",
        arm=SimpleNamespace(variant=variant),
        seed=number,
        run=f"seed {number}",
    )


CELLS = [cell(i) for i in range(4)]


def under_way(folder: RunFolder, number: int, epoch: int, seconds: float) -> None:
    progress = {"epoch": epoch, "epochs": 10, "value": None, "epoch_seconds": seconds}
    write_json(folder.running(f"c{number}") / "progress.json", progress)


def finished(folder: RunFolder, number: int, seconds: float) -> None:
    cost = {"data_seconds": 0, "train_seconds": seconds, "evaluation_seconds": 0, "epochs": 10}
    write_json(folder.cell(f"c{number}") / "cost.json", cost)


def said(folder: RunFolder, capsys, cells=CELLS, workers: int = 1) -> str:
    with Display() as display:
        display.begin(cells, folder, workers)
        display.last_line = 0.0
        display.update()
    return capsys.readouterr().err


def test_what_is_left_of_the_cells_under_way_and_of_those_not_begun(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    finished(folder, 0, 180)
    under_way(folder, 1, 5, 24.0)
    # 120 s of the cell under way, and twice the mean of 180 and 240 s.
    assert "about 9 min left" in said(folder, capsys)
    assert "about 4 min left" in said(folder, capsys, workers=2)


def test_a_model_that_trains_nothing_says_nothing_of_the_others(tmp_path, capsys):
    cells = [cell(0, "popularity"), cell(1, "transitions"), cell(2, "tiger"), cell(3, "tiger")]
    folder = RunFolder(tmp_path)
    finished(folder, 0, 0)
    finished(folder, 1, 0)
    assert "time left not known yet" in said(folder, capsys, cells)
    under_way(folder, 2, 1, 60.0)
    assert "about 19 min left" in said(folder, capsys, cells)


def test_one_long_cell_is_not_shared_by_many_workers(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    for number in range(3):
        finished(folder, number, 10)
    under_way(folder, 3, 5, 120.0)
    assert "about 10 min left" in said(folder, capsys, workers=8)


@pytest.mark.parametrize("cost", ["[]", "{", '{"train_seconds": "long"}'])
def test_a_damaged_cost_is_passed_over(tmp_path, capsys, cost):
    folder = RunFolder(tmp_path)
    finished(folder, 0, 10)
    (folder.cell("c0") / "cost.json").write_text(cost)
    under_way(folder, 1, 5, 24.0)
    assert "min left" in said(folder, capsys)


def test_the_first_epoch_is_followed_from_its_first_steps(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    progress = {"epoch": 0, "part": 0.25, "epochs": 10, "value": None, "epoch_seconds": 40.0}
    write_json(folder.running("c0") / "progress.json", progress)
    # 390 s of the cell under way, and 3 x 400 s of the others.
    line = said(folder, capsys)
    assert "epoch 0/10 + 25 %" in line
    assert "about 26 min left" in line
