"""Reports what guards the routes of an application, without serving anything.

What belongs here: reading the route tables of frameworks, one module each; ``report`` compares the
routes with the rules. No request ever runs this code.
"""
