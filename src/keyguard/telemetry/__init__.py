"""The metrics and traces of a guard, for Prometheus and OpenTelemetry.

What belongs here: the table of instruments, and the code that offers them to either. Values are
read when they are collected, so they cost a request nothing. The function that removes tokens from
an error tracker's events is here as well.
"""
