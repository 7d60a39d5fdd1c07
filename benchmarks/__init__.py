"""What keyguard costs: ``python -m benchmarks.run``, or ``make bench``.

What belongs here: :mod:`~benchmarks.timing`, which times contestants in turn;
:mod:`~benchmarks.calls`, which calls an application without a server;
:mod:`~benchmarks.contestants`, the applications; a module for each part that takes more than a
function, such as :mod:`~benchmarks.refusals`, :mod:`~benchmarks.cold` and
:mod:`~benchmarks.end_to_end`, whose applications are in :mod:`~benchmarks.served`;
:mod:`~benchmarks.report`, verdicts and tables; :mod:`~benchmarks.run`, which puts them together and
writes RESULTS.md.
"""
