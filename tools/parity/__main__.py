"""`python -m tools.parity [METHOD …]`: our trainings beside the authors' code.

--export METHOD FOLDER writes the planted data for a checkout of that code, and --import
FILE METHOD reads the figures that it writes.
"""

import argparse
import json
import tempfile
from multiprocessing import get_context
from pathlib import Path

from brainhive_cli.core.base.errors import BrainhiveError
from tools.parity import exchange, planted, trainings
from tools.parity.comparison import compare, table


def main() -> None:
    """Run the command, and end with two lines if the user has to change something."""
    parser = build_parser()
    arguments = parser.parse_args()
    try:
        if arguments.export:
            method, folder = arguments.export
            print(exchange.export(method, Path(folder), arguments.figures))
        elif arguments.imported:
            file, method = arguments.imported
            entries = exchange.import_figures(
                Path(file),
                method,
                seed=arguments.seed,
                into=arguments.into,
                figures=arguments.figures,
            )
            for entry in entries:
                print(json.dumps(entry))
        else:
            compare_methods(parser, arguments)
    except BrainhiveError as error:
        exchange.stop(error)


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.parity", description=__doc__)
    names = ", ".join(trainings.METHODS)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=names)
    parser.add_argument("--seeds", type=int, help="seeds of each method; default: all")
    parser.add_argument("--home", type=Path, help="folder that keeps data and runs")
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FOLDER",
        help="folder of METHOD.json files, which come before all others",
    )
    parser.add_argument(
        "--export",
        nargs=2,
        metavar=("METHOD", "FOLDER"),
        help="write the planted data in the layout that the authors' code reads",
    )
    parser.add_argument(
        "--import",
        dest="imported",
        nargs=2,
        metavar=("FILE", "METHOD"),
        help="print the figures in a file that the authors' code has written",
    )
    parser.add_argument("--seed", type=int, help="seed of the training in that file")
    parser.add_argument(
        "--into",
        type=Path,
        metavar="METHOD.json",
        help="add the imported figures to this file",
    )
    return parser


def compare_methods(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace
) -> None:
    """Train the methods, two at a time, and print their table."""
    names = list(trainings.METHODS)
    for name in arguments.methods:
        if name not in names:
            parser.error(f"no method {name}: there are {', '.join(names)}")
    figures = {}
    for name in arguments.methods or names:
        author_figures = exchange.find_figures(name, arguments.figures)
        if author_figures is not None:
            figures[name] = author_figures
        elif name in arguments.methods:
            raise exchange.refuse(
                f"there are no figures of the authors' code for {name}",
                f"export its data, train that code, and import its figures: "
                f"python -m tools.parity --export {name} FOLDER",
            )

    exchange.require_generators()
    with tempfile.TemporaryDirectory() as temporary:
        home = arguments.home or Path(temporary)
        # a process for each method, forked with the imports of this process
        jobs = []
        for name, author_figures in figures.items():
            jobs.append((name, author_figures, home, arguments.seeds))
        with get_context("fork").Pool(2, maxtasksperchild=1) as pool:
            rows = pool.starmap(train, jobs, chunksize=1)
    print(json.dumps(rows, indent=2) if arguments.json else table(rows))


def train(
    name: str, figures: planted.Figures, home: Path, count: int | None
) -> dict[str, object]:
    """Train a method with its first `count` seeds, and compare it."""
    count = count or trainings.METHODS[name].seeds
    seeds = [entry["seed"] for entry in figures.reference[:count]]
    training = trainings.train(name, figures, home / name, seeds)
    return compare(name, figures, training)


if __name__ == "__main__":
    main()
