"""`orch predict` and `orch evaluate`: what a model says of photos, and how often it is right."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, Numbers, console, number_option, output_file, print_json, usage
from orchestrator.errors import DataError

CSV_SUFFIX = ".csv"
JUDGED = ("path", "label", "predicted", "probability", "probabilities", "distance")
"""Columns of the table of ``orch evaluate``, here so that ``--help`` need not import what writes it."""


def predict(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH", help="Photos, folders of photos, or - for one photo from stdin.")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The registered model; default: the newest sweep's.")
    ] = None,
    csv: Annotated[
        Path | None,
        output_file("Write a row per photo to FILE, as they come.", CSV_SUFFIX, replaces=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Keep the rows of --csv FILE and predict what is left.")
    ] = False,
    precision: Annotated[
        float,
        number_option(
            metavar="SHARE",
            show_default=False,
            help="Wanted share of right answers, as 0.95: photos below the threshold for it are none of the classes.",
            allowed=Numbers(float, "0.95", 0, 1, is_open=True),
        ),
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Label and probability of each photo, from the champion.

    Folders are read as training reads them. A photo that cannot be read has an error in place of a label and costs the
    others nothing; the exit code is then 3. Probabilities are calibrated on validation, and so is the threshold of
    --precision: it holds for photos like those, of the model's classes. With --csv photos are unlimited in number, and
    what an interruption left is kept by --resume. A file name that is not UTF-8 is written as its address, file:///...
    with %XX for odd bytes.
    """
    _check_options(paths, csv, resume, as_json)
    _check_place(paths, csv)
    from orchestrator.commands import predict as command
    from orchestrator.commands.named_photos import list_photos

    photos = list_photos(paths, lambda sentence: _tell(f"warning  {sentence}"))
    quiet = as_json and not sys.stderr.isatty()
    asked = command.Asked(command.find_champion(model), (lambda line: None) if quiet else _tell, precision)
    if csv is not None:
        failed = command.predict_to_csv(photos, asked, csv, resume)
    elif as_json:
        failed = command.predict_to_json(photos, asked, _write)
    else:
        failed = command.predict_to_terminal(photos, asked, console())
    if failed:
        raise typer.Exit(DataError.exit_code)


def evaluate(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTOS", help="A folder with a folder per class, a table or an archive.")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The registered model; default: the newest sweep's.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(metavar="N", help="A version of the model; default: its champion.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="SWEEP", help="The winner of a sweep instead: its folder or its name.")
    ] = None,
    csv: Annotated[Path | None, output_file("Write a row per photo to FILE.", CSV_SUFFIX, columns=JUDGED)] = None,
    costs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Costs of mistakes: a CSV with a row per label and a column per answer."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How good the champion is on new labelled photos, and whether that differs from its test figure.

    Photos are read as training reads them. Those that the model was trained, chosen or tested on are left out, also
    where they were exported again at another size or quality; mirrored, turned or cropped copies are not recognised.
    The test split is not read. The distance of a photo is that to its 5th nearest of up to 2,000 training photos, or
    its k-th if the smallest class has only k of them, in the features that the model classifies by (Sun et al. 2022).
    """
    if sweep is not None and (model is not None or version is not None):
        usage("--sweep names the model to judge, and so do --model and --version; give one of them.")
    _check_place(photos, csv)
    from orchestrator.commands import evaluate as command
    from orchestrator.ledger.folder import find_sweep
    from orchestrator.report.new_photos import print_judged, to_dict, write_rows

    if sweep is not None:
        judged_model = command.sweep_winner(find_sweep(sweep))
    else:
        judged_model = command.registered_model(model, version)
    judged = command.judge(photos, judged_model, costs, _tell)
    if as_json:
        print_json(to_dict(judged))
    else:
        print_judged(judged, console())
    if csv is not None:
        _tell(write_rows(judged, csv))


def _check_options(paths: list[str], csv: Path | None, resume: bool, as_json: bool) -> None:
    if csv is not None and as_json:
        usage("--csv writes to a file and --json to stdout; choose one of them.")
    if resume and csv is None:
        usage("--resume continues the file of --csv; add --csv FILE.")
    if paths.count("-") > 1:
        usage("- stands for one photo from standard input, and can be given once.")


def _check_place(photos: list[str], csv: Path | None) -> None:
    """Refuse a table among the photos, which would label them when they are read the next time."""
    if csv is not None:
        from orchestrator.spec.data_source import refuse_among_photos

        refuse_among_photos("--csv", csv, photos)


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _write(part: bytes) -> None:
    """Write to stdout as it is: JSON is UTF-8 whatever the terminal's encoding."""
    typer.echo(part, nl=False)
