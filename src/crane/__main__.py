"""`python -m crane` is `crane`."""

from crane.cli.main import main

if __name__ == "__main__":
    main()
