"""What keyguard costs: ``python -m benchmarks.run``, or ``make bench``.

What belongs here: :mod:`~benchmarks.timing`, which times contestants in turn;
:mod:`~benchmarks.calls`, which calls an application without a server;
:mod:`~benchmarks.contestants`, the applications; :mod:`~benchmarks.revocation`,
:mod:`~benchmarks.attack` and :mod:`~benchmarks.taking_over`, what a service meets;
:mod:`~benchmarks.run`, which puts them together and writes RESULTS.md.
"""
