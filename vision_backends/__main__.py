"""``python -m vision_backends`` is the ``vision`` command."""

from vision_backends.cli import main

if __name__ == "__main__":
    main(program=f"python -m {__package__}")
