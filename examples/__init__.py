"""AIaaS, an example service behind keyguard, once for Starlette and once for Flask.

What belongs here: :mod:`examples.aiaas`, the service itself, which imports neither a framework nor
keyguard's adapters; one package for each framework; and :mod:`examples.demo`, which serves either.
"""
