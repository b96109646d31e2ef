"""``python -m charlm``, the same as ``charlm``."""

from charlm.cli.main import run

if __name__ == "__main__":
    run()
