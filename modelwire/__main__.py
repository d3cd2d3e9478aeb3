"""``python -m modelwire``."""

from modelwire.cli import main

main()
