"""``keyguard key import``: keys of another system."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Annotated, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keyguard.cli.options import Common, Json, PepperFile, Url
from keyguard.cli.output import emit, emit_json, plain
from keyguard.core.keys.records import ImportReport
from keyguard.core.management.import_rows import LONGEST_ROW
from keyguard.exceptions import InvalidValueError, StoreError

__all__ = ["import_keys"]

_BLOCK = 1 << 20


def import_keys(
    ctx: typer.Context,
    path: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Lines of JSON, one key each; - for stdin. They hold tokens: keep the file where "
            "nobody else reads it, and delete it after.",
            show_default=False,
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check the rows, and change nothing.")
    ] = False,
    url: Url = None,
    pepper_file: PepperFile = None,
    as_json: Json = False,
) -> None:
    """Take over keys of another system, with their tokens as they are.

    What is there already is left alone, so an import that was cut short is simply run again.
    """
    common = Common.of(ctx, url, as_json, pepper_file)
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
                    f"{failure}; {done} rows were done, run it again to go on"
                ) from failure.__cause__
    if common.as_json:
        emit_json(
            {
                "dry_run": dry_run,
                "imported": report.imported,
                "present": report.present,
                "refused": [{"line": row.line, "reason": row.reason} for row in report.refused],
            }
        )
    else:
        emit(_told(report, dry_run=dry_run))
    if report.refused:
        raise typer.Exit(1)


def _told(report: ImportReport, *, dry_run: bool) -> str:
    counted = (
        f"{report.imported} {'would be' if dry_run else 'were'} imported",
        f"{report.present} {'are' if dry_run else 'were'} there already",
        f"{len(report.refused)} {'would be' if dry_run else 'were'} refused",
    )
    refused = "".join(f"line {row.line}: {plain(row.reason)}\n" for row in report.refused)
    return f"{refused}Of the keys, {counted[0]}, {counted[1]}, {counted[2]}.\n"


@contextmanager
def _opened(path: str) -> Generator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except (OSError, ValueError) as problem:
        words = getattr(problem, "strerror", None) or "it is no path"
        raise InvalidValueError(f"the file {path!r} can't be read ({words})") from None
    with file:
        yield file


def _count_lines(file: BinaryIO) -> int:
    start = file.tell()
    lines = 0
    while block := file.read(_BLOCK):
        lines += block.count(b"\n")
    file.seek(start)
    return lines


def _lines(file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a file, cut where they are too long to be a row."""
    first = True
    while line := file.readline(LONGEST_ROW + 2):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(_BLOCK)
        try:
            text = line.decode("utf-8-sig" if first else "utf-8")
        except UnicodeDecodeError:
            text = "no UTF-8"
        first = False
        yield text.rstrip("\r\n")


@contextmanager
def _progress(total: int | None, *, quiet: bool) -> Generator[Callable[[int], None]]:
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("Importing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda rows: progress.update(task, completed=rows)
