"""The command line, from training to a prediction, each test in a folder of its own."""

from typer.testing import CliRunner

from gpucnn.cli import app
from gpucnn.cli.console import console, errors

PICTURES = (
    "learning_curve.png", "confusion_matrix.png", "filters.png", "feature_maps.png",
    "overview.png", "example.png",
)  # fmt: skip
QUICK = ("--epochs", "2", "--batch-size", "64")


def run(*arguments: object, code: int = 0) -> str:
    """Run ``gpucnn`` on the NumPy backend and return what it prints, lines unbroken."""
    console.width = errors.width = 250  # rich asks a terminal before it asks COLUMNS
    environment = {"COLUMNS": "250", "GPUCNN_BACKEND": "numpy"}
    result = CliRunner(env=environment).invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output
