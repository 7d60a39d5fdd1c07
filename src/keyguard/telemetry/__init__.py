"""What a guard tells of itself to Prometheus and OpenTelemetry.

What belongs here: the table of instruments, and the code that offers them to the one or the other.
Values are read when they are collected, so a request pays nothing for them. What takes tokens out
of an error tracker's events is here as well.
"""
