"""``python -m gpucnn`` is the command line, ``gpucnn``."""

from .cli import app

if __name__ == "__main__":
    app()
