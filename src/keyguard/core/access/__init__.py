"""How a request is let in or refused: credentials, decisions, charges and answers."""
