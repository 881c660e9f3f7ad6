"""Passwords in URLs: taken out of what is written and printed, and of the command line, which anyone may read."""

from __future__ import annotations

import os
import re
import sys

__all__ = ["hide_storage_password", "without_passwords"]


def without_passwords(text: str) -> str:
    """``text`` with the passwords of all URLs in it replaced by three asterisks."""
    text = re.sub(r"(://[^:/\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"([?&]password=)[^&\s'\"]*", r"\1***", text)


def hide_storage_password() -> None:
    """Starts this program anew with the URL of ``--storage`` in the environment, where its command line shows a
    password: lists of processes show the one to all users, the other to none."""
    given = sys.orig_argv
    for place, word in enumerate(given):
        option, equals, url = word.partition("=")
        if option != "--storage" or (not equals and place + 1 == len(given)):
            continue
        url = url if equals else given[place + 1]
        if without_passwords(url) != url:
            rest = [*given[1:place], *given[place + (1 if equals else 2) :]]
            os.execve(sys.executable, [sys.executable, *rest], {**os.environ, "HARNESS_STORAGE": url})
