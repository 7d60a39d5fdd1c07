"""The decisions, and nothing else: values in, values out.

What belongs here: plain functions and generators over values. No module of this folder reads a
byte, a clock, randomness, the environment or a log. A flow that needs the outside yields an effect
(:mod:`keyguard.core.access.effects`) and is sent the answer.
"""
