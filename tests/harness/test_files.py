"""Links in a folder that came from elsewhere lead to no file outside it."""

from __future__ import annotations

import pytest

from harness.errors import InputError
from harness.files import refuse_links, write_text


@pytest.fixture
def folders(tmp_path):
    run, outside = tmp_path / "run", tmp_path / "precious"
    run.mkdir()
    outside.mkdir()
    (outside / "main.csv").write_text("mine")
    return run, outside


@pytest.mark.parametrize("name", ["tables", "cells/x", ".lock", "logs/worker-0.log", "study.db"])
def test_a_link_that_leads_out_is_refused(folders, name):
    run, outside = folders
    link = run / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside if "." not in name else outside / "main.csv")
    with pytest.raises(InputError, match=r"is a link to .*precious.*outside the folder of the run"):
        refuse_links(run)
    assert (outside / "main.csv").read_text() == "mine"


def test_links_within_and_the_folder_itself_are_taken(folders, tmp_path):
    run, _ = folders
    (run / "cells").mkdir()
    (run / "again").symlink_to("cells")
    (tmp_path / "other").symlink_to(run)
    refuse_links(run)
    refuse_links(tmp_path / "other")


def test_a_file_that_is_a_link_is_replaced_not_followed(folders):
    run, outside = folders
    (run / "a.csv").symlink_to(outside / "main.csv")
    write_text(run / "a.csv", "ours")
    assert (outside / "main.csv").read_text() == "mine"
    assert (run / "a.csv").read_text() == "ours"
