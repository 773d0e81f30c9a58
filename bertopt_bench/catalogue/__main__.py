"""Describe one entry from outside this package, for the process that asks."""

from bertopt_bench.catalogue.outside import main

if __name__ == "__main__":
    main()
