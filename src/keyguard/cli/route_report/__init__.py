"""What guards the routes of an application, found without serving anything.

What belongs here: reading the route tables of frameworks, one a module; ``survey`` puts what they
say together with the rules. Nothing here stands in the way of a request.
"""
