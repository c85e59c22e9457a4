"""`python -m tunedeck`."""

from tunedeck.cli.main import main

if __name__ == "__main__":
    main()
