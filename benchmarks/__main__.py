"""``python -m benchmarks``, from a checkout."""

from .command import main

if __name__ == "__main__":
    main()
