"""`python -m securead` is the command `securead`."""

from securead.cli import main

if __name__ == "__main__":
    main()
