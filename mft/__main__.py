"""`python -m mft` is `mft`."""

from mft.cli.main import main

if __name__ == "__main__":
    main()
