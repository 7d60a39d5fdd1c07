"""Deadlines, the pool of threads, forks and clocks, imports at first use, and events.

A module belongs here if a program without keys could use it. The events are the exception.
"""
