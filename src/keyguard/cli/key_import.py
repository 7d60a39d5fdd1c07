"""``keyguard key import``: imports keys of another system."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import BinaryIO

import typer

from keyguard.cli.options import HASHED_STORE, Common, argument, flag, with_options
from keyguard.cli.output import is_terminal
from keyguard.core.keys.results import ImportReport
from keyguard.core.management.import_rows import LONGEST_ROW
from keyguard.core.management.json_forms import JsonObject
from keyguard.core.texts import escaped
from keyguard.exceptions import InvalidValueError, StoreError, shown_path

_BLOCK = 1 << 20


@with_options(*HASHED_STORE)
def import_keys(
    common: Common,
    path: str = argument(
        "FILE",
        "A file with one key a line, in JSON; - for stdin. It holds tokens: keep it where nobody "
        "else can read it, and delete it afterwards.",
    ),
    dry_run: bool = flag("--dry-run", "Only check the lines; change nothing."),
) -> None:
    """Import keys of another system; their tokens keep working.

    Keys that were imported before stay as they are, so an interrupted import can be run again.
    """
    with _opened(path) as file, common.guard() as guard:
        total = _count_lines(file) if file.seekable() else None
        done = 0
        with _progress(total, quiet=common.as_json) as show:

            def advance(rows: int) -> None:
                nonlocal done
                done = rows
                show(rows)

            try:
                report = guard.keys.import_tokens(_lines(file), dry_run=dry_run, progress=advance)
            except StoreError as failure:
                if not done:
                    raise
                raise StoreError(
                    f"{failure}; {done} lines were done, run the command again to go on"
                ) from failure.__cause__
    form: JsonObject = {
        "dry_run": dry_run,
        "imported": report.imported,
        "present": report.present,
        "refused": [row._asdict() for row in report.refused],
    }
    common.show(form, _summary(report, dry_run=dry_run))
    if report.refused:
        raise typer.Exit(1)


def _summary(report: ImportReport, *, dry_run: bool) -> str:
    imported, refused = ("Would import", "would refuse") if dry_run else ("Imported", "refused")
    lines = "".join(f"line {row.line}: {escaped(row.reason)}\n" for row in report.refused)
    return (
        f"{lines}{imported}: {report.imported}, already there: {report.present}, "
        f"{refused}: {len(report.refused)}\n"
    )


def _opened(path: str) -> AbstractContextManager[BinaryIO]:
    if path == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return open(path, "rb")
    except (OSError, ValueError) as problem:
        words = getattr(problem, "strerror", None) or "not a path"
        raise InvalidValueError(f"the file {shown_path(path)} can't be read ({words})") from None


def _count_lines(file: BinaryIO) -> int:
    start = file.tell()
    lines = sum(block.count(b"\n") for block in iter(partial(file.read, _BLOCK), b""))
    file.seek(start)
    return lines


def _lines(file: BinaryIO) -> Iterator[str]:
    """Give the lines of a file, each cut after the longest length that a row may have."""
    first = True
    while line := file.readline(LONGEST_ROW + 2):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(_BLOCK)
        try:
            text = line.decode("utf-8-sig" if first else "utf-8")
        except UnicodeDecodeError:
            text = "not UTF-8"
        first = False
        yield text.rstrip("\r\n")


@contextmanager
def _progress(total: int | None, *, quiet: bool) -> Generator[Callable[[int], None]]:
    if quiet or not is_terminal(sys.stderr):
        yield lambda _: None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("Importing"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with bars.Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda rows: progress.update(task, completed=rows)
