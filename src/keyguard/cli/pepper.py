"""``keyguard pepper``: which peppers are still needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import typer

from keyguard.cli.options import HASHED_STORE, Common, with_options
from keyguard.cli.output import complain
from keyguard.cli.terminal import table
from keyguard.core.management.json_forms import JsonObject

app = typer.Typer(help="Show which peppers are still needed.", no_args_is_help=True)


class _Row(NamedTuple):
    """One form in which tokens are stored, with the number of keys that have it."""

    stored_as: str
    pepper: str | None
    keys: int
    current: bool
    known: bool

    @property
    def remark(self) -> str:
        if self.current:
            return "current"
        if not self.known:
            return "damaged" if self.stored_as == "unknown" else "this pepper is not set"
        return "may be removed" if self.pepper and not self.keys else ""


@app.callback()
def _group() -> None:  # so that `status` is a command of its own
    pass


@app.command()
@with_options(*HASHED_STORE)
def status(common: Common) -> None:
    """Count keys by the stored form of their tokens. Some forms need a pepper.

    Revoked keys are not counted. The exit code is 1 if a key needs a pepper that is not set.
    """
    with common.guard() as guard:
        found = guard.keys.digests()
        hasher = guard.settings.token_hasher
    rows = _rows(found, hasher.current, hasher.pepper_ids)
    needed = {row.pepper for row in rows if row.keys or row.current}
    droppable = [pepper for pepper in hasher.pepper_ids if pepper not in needed]
    missing = sorted({row.pepper for row in rows if row.pepper and not row.known})
    text = table(
        ("Stored as", "Keys", ""),
        [(row.stored_as, str(row.keys), row.remark) for row in rows],
        flexible={},
    )
    form: JsonObject = {
        "current": hasher.current,
        "digests": [row._asdict() for row in rows],
        "droppable": droppable,
        "missing": missing,
    }
    common.show(form, text + "".join(f"{line}\n" for line in _advice(rows, droppable)))
    for pepper in missing:
        keys = sum(row.keys for row in rows if row.pepper == pepper)
        if not common.as_json:
            complain(
                f"{_count(keys)} can't be verified: the pepper {pepper} is not among those set; "
                "add it to KEYGUARD_PEPPER again, or to the pepper file"
            )
    if not all(row.known for row in rows):
        raise typer.Exit(1)


def _rows(found: Mapping[str, int], current: str, peppers: tuple[str, ...]) -> list[_Row]:
    labels = {current, *found, *(f"hmac-sha256:{pepper}" for pepper in peppers)}
    rows: list[_Row] = []
    for label in labels:
        pepper = label.partition(":")[2] or None
        known = label != "unknown" and (pepper is None or pepper in peppers)
        rows.append(_Row(label, pepper, found.get(label, 0), label == current, known))
    return sorted(rows, key=lambda row: (not row.current, -row.keys, row.stored_as))


def _advice(rows: list[_Row], droppable: list[str]) -> list[str]:
    old = [row for row in rows if row.known and not row.current and row.keys]
    # An imported token of less than 112 bits stays under Argon2id.
    waiting = sum(row.keys for row in old if row.stored_as != "argon2id")
    lines: list[str] = []
    if waiting:
        verb = "is" if waiting == 1 else "are"
        lines.append(
            f"{_count(waiting)} {verb} stored in an older form; the next use of a key renews it."
        )
    for pepper in droppable:
        lines.append(f"No key needs the pepper {pepper} any longer: you may remove it.")
    return ["", *lines] if lines else []


def _count(keys: int) -> str:
    return "1 key" if keys == 1 else f"{keys} keys"
