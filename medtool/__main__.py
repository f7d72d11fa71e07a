"""``python -m medtool``, and the ``medtool`` command itself."""

from __future__ import annotations

import sys  # and no more: whatever is imported here is where an interrupt gives a traceback


def main() -> None:
    """Start; an interrupt while the command line is still being loaded ends like one later on."""
    try:
        from medtool.cli.app import main as start
    except KeyboardInterrupt:
        sys.exit(130)
    start()


if __name__ == "__main__":
    main()
