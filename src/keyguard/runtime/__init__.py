"""Deadlines, the pool of threads, forks and clocks, imports at first use, and events.

A module that belongs here would be useful to a program without keys, but for the events.
"""
