"""Topics as people have them, none like another: real texts in the shapes of real systems."""

from __future__ import annotations

import hashlib
import html
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import distributions
from typing import TYPE_CHECKING, Any

from harness.debezium import PLAIN, RECORDED
from harness.texts import docstrings

if TYPE_CHECKING:
    from collections.abc import Sequence

START = datetime(2026, 3, 1, 8, tzinfo=UTC)
COUNT = 30


@dataclass(frozen=True)
class Unlike:
    """A topic.

    Attributes:
        name: What it is like.
        records: Keys and values.
        ids: Of the documents that are there once all records have been read.
        sample: Words that the text of one of them has, by its id.
    """

    name: str
    records: Sequence[tuple[bytes | None, bytes | None]]
    ids: frozenset[str]
    sample: tuple[str, str]


def topics() -> list[Unlike]:
    """All of them."""
    return [rows(), posts(), events(), packages(), logs(), tickets(), own()]


def rows() -> Unlike:
    """Change events that Debezium made of a table of products."""
    lines = (RECORDED / f"{PLAIN}.ndjson").read_text(encoding="utf-8").splitlines()
    told = [one for one in map(json.loads, lines) if one["topic"].endswith(".products")]
    records = [(_bytes(one["key"]), _bytes(one["value"])) for one in told]
    return Unlike("rows", records, frozenset({"1", "20", "3", "4"}), ("1", "Oak armchair"))


def posts() -> Unlike:
    """Questions and answers in HTML, as Stack Exchange exports them: only questions have titles."""
    records = []
    for number, text in enumerate(_texts(), start=4):
        body = "".join(f"<p>{html.escape(part)}</p>\n" for part in text.split("\n\n"))
        post: dict[str, Any] = {
            "Id": number,
            "PostTypeId": 1 + number % 2,
            "CreationDate": _iso(number)[:23],
            "Score": number * 7 % 40,
            "Body": body,
            "OwnerUserId": 8 + number % 5,
            "LastActivityDate": _iso(number + 40)[:23],
        }
        if number % 2 == 0:
            post |= {"Title": text.splitlines()[0], "Tags": "<python><standard-library>"}
        records.append((None, _json(post)))
    ids = frozenset(str(number) for number in range(4, 4 + COUNT))
    return Unlike("posts", records, ids, ("4", _texts()[0].split()[0]))


def events() -> Unlike:
    """Events of GitHub's, keyed by their repository; those without any text are to be passed."""
    records, ids = [], set()
    for number, text in enumerate(_texts()):
        repository = f"acme/tool-{number % 3}"
        payload: dict[str, Any] = {"action": "started"}
        kind = ("IssuesEvent", "IssueCommentEvent", "WatchEvent")[number % 3]
        user = {"login": f"dev-{number % 7}", "id": 900 + number % 7, "type": "User"}
        if kind != "WatchEvent":
            ids.add(str(24_896_510_000 + number))
            issue = {"number": number, "title": text.splitlines()[0], "user": user, "labels": []}
            body = f"### Steps\n\n{text}\n\nSee [the docs](https://example.com/{number})."
            payload = {"action": "opened", "issue": {**issue, "state": "open", "body": body}}
        if kind == "IssueCommentEvent":
            payload = {**payload, "action": "created", "comment": {"id": number, "body": text}}
        event = {
            "id": str(24_896_510_000 + number),
            "type": kind,
            "actor": {**user, "url": f"https://api.example.com/users/{number % 7}"},
            "repo": {"id": 4100 + number % 3, "name": repository},
            "payload": payload,
            "public": True,
            "created_at": f"{_iso(number)[:19]}Z",
        }
        records.append((repository.encode(), _json(event)))
    return Unlike("events", records, frozenset(ids), ("24896510000", _texts()[0].split()[0]))


def packages() -> Unlike:
    """A feed of products: what the installed packages say of themselves, under their names."""
    found = {
        one.metadata["Name"]: one.metadata.json
        for one in distributions()
        if "Summary" in one.metadata
    }
    records: list[tuple[bytes, bytes]] = []
    for name in sorted(found)[:COUNT]:
        about = found[name]
        product = {
            "sku": name,
            "version": about["version"],
            "summary": about["summary"],
            "long_description": str(about.get("description") or "")[:1500] or None,
            "price": f"{len(name)}.50",
            "in_stock": len(name) % 2 == 0,
            "requires": str(about.get("requires_python") or ">=3"),
            "updated": _iso(len(records)),
        }
        records.append((name.encode(), _json(product)))
    names = [key.decode() for key, _ in records]
    word = str(found[names[0]]["summary"]).split()[0]
    return Unlike("packages", records, frozenset(names), (names[0], word))


def logs() -> Unlike:
    """Lines of a log, without keys, with times in seconds since 1970."""
    records, ids = [], []
    for number, text in enumerate(_texts()):
        trace = hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()
        line = {
            "ts": START.timestamp() + number * 1.337,
            "level": ("INFO", "WARNING", "ERROR")[number % 3],
            "logger": "shop.orders",
            "msg": " ".join(text.split())[:200],
            "trace_id": trace,
            "pid": 4711,
            "elapsed_ms": number * 1.5,
        }
        ids.append(trace)
        records.append((None, _json(line)))
    return Unlike("logs", records, frozenset(ids), (ids[0], _texts()[0].split()[0]))


def tickets() -> Unlike:
    """Tickets of a help desk under JSON keys, of which two are deleted, each in another way."""
    records: list[tuple[bytes | None, bytes | None]] = []
    for number, text in enumerate(_texts()):
        ticket = {
            "subject": text.splitlines()[0],
            "body": text,
            "status": ("open", "pending", "solved")[number % 3],
            "priority": 1 + number % 4,
            "requester": {"name": f"Ada Lovelace {number}", "email": f"ada{number}@example.com"},
            "is_deleted": False,
            "updated_at": round((START + timedelta(hours=number)).timestamp() * 1000),
        }
        records.append((_json({"ticket_id": number}), _json(ticket)))
    later = round((START + timedelta(days=9)).timestamp() * 1000)
    records += [
        (_json({"ticket_id": 3}), _json({"is_deleted": True, "updated_at": later})),
        (_json({"ticket_id": 5}), None),
    ]
    ids = frozenset(str(number) for number in range(COUNT)) - {"3", "5"}
    return Unlike("tickets", records, ids, ("0", _texts()[0].split()[0]))


def own() -> Unlike:
    """Records of Headrace's own form."""
    records = [
        (
            found.id.encode(),
            _json({"text": found.text, "metadata": {"kind": found.kind, "length": number}}),
        )
        for number, found in enumerate(docstrings(COUNT))
    ]
    ids = [key.decode() for key, _ in records]
    return Unlike("own", records, frozenset(ids), (ids[0], _texts()[0].split()[0]))


def _texts() -> list[str]:
    return [found.text for found in docstrings(COUNT)]


def _iso(hours: int) -> str:
    return (START + timedelta(hours=hours, milliseconds=667)).isoformat()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
