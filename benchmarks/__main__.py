"""``python -m benchmarks`` in a checkout, and ``python -m vision_backends.benchmarks`` where it is installed."""

from .command import main

if __name__ == "__main__":
    main(name=f"python -m {__package__}")
