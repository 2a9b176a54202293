"""``python -m polystore_flows``."""

from .cli import main

if __name__ == "__main__":
    main()
