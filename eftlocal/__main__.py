"""`python -m eftlocal` is the `eftlocal` command."""

from .cli.main import main

if __name__ == "__main__":
    main()
