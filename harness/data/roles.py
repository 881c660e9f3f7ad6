"""Which column of a log holds its users, items, times and ratings: as the user says, else by the column's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from harness.data.config import Columns
from harness.errors import InputError, nearest

__all__ = ["ROLES", "chosen", "find_roles", "is_role"]

ROLES = {
    "user": (
        *("userid", "user", "uid", "useridx", "reviewerid", "visitorid", "customerid", "memberid", "profileid"),
        *("authorid", "customer", "visitor", "reviewer", "sessionid", "session"),
    ),
    "item": (
        *("itemid", "item", "iid", "itemidx", "movieid", "parentasin", "asin", "productid", "videoid", "businessid"),
        *("trackid", "songid", "artistid", "bookid", "articleid", "newsid", "gameid", "appid", "postid", "isbn"),
        *("product", "movie", "video", "track", "song", "artist", "book", "article"),
    ),
    "time": (
        *("timestamp", "time", "unixtime", "unixtimestamp", "unixreviewtime", "eventtime", "eventtimestamp"),
        *("timems", "timestampms", "datetime", "date", "ts", "createdat", "createtime", "reviewtime"),
        *("ratingtimestamp", "interactiontime", "times", "timestamps"),
    ),
    "rating": ("rating", "ratings", "stars", "overall", "score", "ratingvalue"),
}
"""Role -> the names under which logs have it, most telling first, in lower case and without punctuation."""
USUAL = {"user": "user_id", "item": "item_id", "time": "timestamp", "rating": "rating"}
"""RecBole's names, which need no comment."""


def find_roles(path: Path, names: Sequence[str], given: Columns | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """Role -> column of ``names``, and what was guessed, in a sentence. Time and rating may be missing.

    ``given`` names a column, or its place from 1 on.

    Raises:
        InputError: a given column that isn't there, one column for two roles, none for the users or the items.
    """
    found: dict[str, str] = {}
    guessed = []
    for role, known in ROLES.items():
        wanted = getattr(given, role) if given else None
        if wanted is not None:
            found[role] = _given(path, names, role, str(wanted))
            continue
        free = [name for name in names if name not in found.values()]
        if USUAL[role] in free:
            found[role] = USUAL[role]
            continue
        close = sorted((known.index(_bare(name)), n) for n, name in enumerate(free) if _bare(name) in known)
        if close:
            found[role] = free[close[0][1]]
            others = ", ".join(repr(free[n]) for _, n in close[1:])
            guessed.append(f"'{found[role]}' as {role}" + (f" (not {others})" if others else ""))
    for role in ("user", "item"):
        if role not in found:
            raise InputError(
                f"{path}: line 1 names no column that is known to hold the {role}s ({_listed(names)}); "
                f"no column '{USUAL[role]}'; {_hint(USUAL[role], names)}name it with data.columns.{role}=NAME (of "
                f"`harness data import`: --{role} NAME), or its place from 1 on where the file has no header"
            )
    for role, name in found.items():
        twin = next((other for other in found if other != role and found[other] == name), None)
        if twin:
            raise InputError(f"{path}: column '{name}' is named for both {twin} and {role}; name two columns")
    notes = [f"took {', '.join(guessed)}"] if guessed else []
    if "time" not in found:
        rest = [name for name in names if name not in found.values()]
        if rest:
            notes.append(
                f"no column is known to hold times (there are {_listed(rest)}); name it with data.columns.time"
            )
    return found, tuple(f"{path.name}: {note}" for note in notes)


def chosen(path: Path, names: Sequence[str], roles: dict[str, str], only: Sequence[str] | None) -> list[str]:
    """Those of ``names`` that play a part or are among ``only``; all of them where that is None."""
    if only is None:
        return list(names)
    missing = next((name for name in only if name not in names), None)
    if missing is not None:
        raise InputError(f"{path} has no column '{missing}'; restore it from its source")
    return [name for name in names if name in only or name in roles.values()]


def is_role(name: str) -> bool:
    """Whether a column of this name is known to play a part."""
    return any(_bare(name) in known for known in ROLES.values())


def _given(path: Path, names: Sequence[str], role: str, wanted: str) -> str:
    if wanted in names:
        return wanted
    if wanted.isdecimal() and 1 <= int(wanted) <= len(names):
        return names[int(wanted) - 1]
    raise InputError(f"{path} has no column '{wanted}' for the {role}s; {nearest(wanted, names)}")


def _hint(word: str, names: Sequence[str]) -> str:
    hint = nearest(word, names)
    return f"{hint} " if hint.startswith("did") else ""


def _listed(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names[:8]]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
