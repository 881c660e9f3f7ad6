"""What the progress display says of the time left."""

from __future__ import annotations

from types import SimpleNamespace

from harness.files import write_json
from harness.study.folder import RunFolder
from harness.study.progress import Display

CELLS = [SimpleNamespace(id=f"c{i}", name=f"cell {i}", arm=SimpleNamespace(variant="v"), seed=i) for i in range(4)]


def put_progress(folder: RunFolder, cell: str, epoch: int) -> None:
    write_json(folder.running(cell) / "progress.json", {"epoch": epoch, "epochs": 10, "value": None})


def lines_after(folder: RunFolder, seconds: float, change, capsys) -> str:
    with Display() as display:
        display.begin(CELLS, folder, 1)
        change()
        display.started -= seconds
        display.last_line = 0.0
        display.update()
    return capsys.readouterr().err


def test_what_an_earlier_run_did_is_not_counted_as_this_runs_speed(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    folder.cell("c0").mkdir(parents=True)
    put_progress(folder, "c1", 5)
    # Five epochs in 100 s, and 20 are left: the half cell of the earlier run took none of those seconds.
    said = lines_after(folder, 100, lambda: put_progress(folder, "c1", 10), capsys)
    assert "about 7 min left" in said


def test_without_any_progress_of_its_own_nothing_is_promised(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    put_progress(folder, "c1", 5)
    assert "time left not known yet" in lines_after(folder, 100, lambda: None, capsys)
