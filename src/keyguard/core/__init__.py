"""The decisions, and nothing else: values in, values out.

What belongs here: plain functions over values, and ``async def`` functions that take typed ports
for what must be waited for. Nothing here reads a byte, a clock, randomness, the environment or a
log.
"""
