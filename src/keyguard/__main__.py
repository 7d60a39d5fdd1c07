"""``python -m keyguard``: the command line."""

from keyguard.cli import main

if __name__ == "__main__":
    main()
