"""`python -m discod`."""

from discod.cli import main

main()
