"""Ship the plans of a tuned benchmark: ``python -m profiling.plans RESULTS.json``.

Of the results of ``python -m profiling.gpu --tune`` the plans that beat the estimate's choice
become gpucnn's own for GPUs of that name, in place of those that were there. No GPU is needed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from gpucnn.backends.cuda.tuning import shipped
from gpucnn.files import place

from .results import Results, dumps

META = ("gpu", "driver", "commit", "date")


def text_of(results: Results) -> str:
    """Return the file of shipped plans, one a line, each problem once.

    Raises:
        ValueError: the run was not a tuned one.
    """
    plans = {json.dumps(plan): plan for row in results.rows for plan in row.get("plans") or ()}
    if not any("plans" in row for row in results.rows):
        raise ValueError(
            f"{results.path}: no row has tuned plans; measure with --tune. Received:"
            f" {len(results.rows)} rows"
        )
    meta = {name: results.meta.get(name) for name in META}
    return dumps(meta, plans.values())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m profiling.plans", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--folder", type=Path, default=shipped.FOLDER, help="the package's own")
    options = parser.parse_args(arguments)
    results = Results(options.file)
    text = text_of(results)
    path = options.folder / shipped.file_name(results.meta["gpu"])
    path.parent.mkdir(parents=True, exist_ok=True)
    place(path, text.encode())
    print(f"{path}: {len(json.loads(text)['rows'])} plans")


if __name__ == "__main__":
    main()
