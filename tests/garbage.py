"""What tests throw away, collected before it can trouble another."""

from __future__ import annotations

import gc

__all__ = ["collect"]


def collect() -> None:
    """Collect all garbage, and never look at what is left again.

    Late in a run, looking at everything takes longer than most of the tests.
    """
    gc.collect()
    gc.freeze()
