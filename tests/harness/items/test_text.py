from __future__ import annotations

import numpy as np
import pytest

from harness.errors import InputError
from harness.items.config import ItemsConfig, TextConfig
from harness.items.text import has_text, item_texts


def test_default_joins_the_data_sets_own_columns_and_leaves_missing_values_out(catalogue):
    log, _ = catalogue
    log.item_table.loc[2, "title"] = ""
    log.item_table.loc[3, "title"] = np.nan
    log.item_table.loc[4, "title"] = "  two\n words "
    texts = item_texts(log, ItemsConfig())
    assert texts[0] == ""
    assert len(texts) == len(log.items)
    assert texts[1] == f"{log.item_table.loc[1, 'title']}. tea"
    assert texts[2:5] == ["bike", "lamp", "two words. tea"]


def test_template_and_lists(catalogue):
    log, _ = catalogue
    log.item_table["tags"] = [["a", "b"]] * 59 + [None]
    texts = item_texts(log, ItemsConfig(text=TextConfig(template="{kind} with {tags}!")))
    assert texts[1] == "tea with a, b!"
    assert texts[60] == "lamp with !"


def test_rows_are_found_by_item_id_not_by_place(catalogue):
    log, _ = catalogue
    before = item_texts(log, ItemsConfig())
    log.item_table = log.item_table.sample(frac=1, random_state=1)
    assert item_texts(log, ItemsConfig()) == before


def test_item_without_text_is_named_or_allowed(catalogue):
    log, _ = catalogue
    log.item_table.loc[[7, 9], ["title", "kind"]] = ""
    with pytest.raises(InputError, match=r"item 'i7' \(and 1 more\) has no text in title, kind; .*missing_text: empty"):
        item_texts(log, ItemsConfig())
    with pytest.raises(InputError, match="item 'i7'"):
        item_texts(log, ItemsConfig(text=TextConfig(template="The {title}")))
    texts = item_texts(log, ItemsConfig(missing_text="empty"))
    assert texts[7] == texts[9] == ""
    assert texts[8]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (TextConfig(fields=("tilte",)), "no column 'tilte'; did you mean 'title'"),
        (TextConfig(template="{tilte}"), "no column 'tilte'; did you mean 'title'"),
        (TextConfig(template="no column"), "at least one column"),
        (TextConfig(template="{title!r}"), "nothing but its name"),
        (TextConfig(template="{title"), "braces"),
    ],
)
def test_wrong_columns_and_templates(catalogue, text, part):
    with pytest.raises(InputError, match=part):
        item_texts(catalogue[0], ItemsConfig(text=text))


def test_data_without_item_text(catalogue):
    log, _ = catalogue
    log.text_fields = ()
    assert not has_text(log, ItemsConfig())
    assert has_text(log, ItemsConfig(text=TextConfig(fields=("title",))))
    log.item_table = None
    with pytest.raises(InputError, match=r"no item text.*kind: cooccurrence"):
        item_texts(log, ItemsConfig())
