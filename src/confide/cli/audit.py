"""``confide audit``: plan, run, analyse again, and audit predictions made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from confide.cli import choices, paths, show
from confide.cli.show import Json
from confide.cli.verify import verify

if TYPE_CHECKING:
    from confide.audits.result import AuditResult
    from confide.cli.bar import Bar
    from confide.config import Config

app = typer.Typer(
    help="Can an attacker tell, patient by patient, who was in the training data?",
    epilog="Example: confide audit run examples/embedded.yaml --out runs/embedded",
    no_args_is_help=True,
)

app.command(epilog="Example: confide audit verify runs/embedded")(verify)

ANALYSIS = "Analysing and drawing"

ConfigPath = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG", callback=paths.wanted("configuration"), help="A YAML configuration."
    ),
]
Folder = Annotated[
    Path, typer.Argument(metavar="DIR", callback=paths.wanted("audit"), help="An audit folder.")
]
Out = Annotated[
    Path,
    typer.Option("--out", metavar="DIR", callback=paths.out("audit"), help="The audit folder."),
]
Until = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="RULE",
        autocompletion=choices.rules,
        help="Stop when it is enough: stable (the list of patients does not change any more) or "
        "se=X (a patient's risk is known to that standard error). Replaces audit.until.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers", metavar="N", min=1, help="Train in so many processes, a GPU each if there are."
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="ADDRESS", help="Train on the Ray cluster there; DIR is on a shared disk."
    ),
]

Signals = Annotated[
    str | None,
    typer.Option(
        "--signals",
        metavar="URL",
        help="Keep the signals at s3://BUCKET/PREFIX and not in DIR; its address and credentials "
        "are those of the environment. Later commands find it in DIR.",
    ),
]


def _range(text: str) -> tuple[int, int]:
    first, found, last = text.partition(":")
    if not (found and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise typer.BadParameter(
            f"--models {text!r:.40} is no range of models; expected A:B, such as 0:16."
        )
    return int(first), int(last)


Models = Annotated[
    str | None,
    typer.Option(
        "--models",
        metavar="A:B",
        help="Train the models A to B - 1 alone, beside other such commands on the same DIR.",
    ),
]

Attacks = Annotated[
    str,
    typer.Option(
        "--attacks",
        metavar="NAMES",
        autocompletion=choices.membership_attacks,
        help="Attacks, separated by commas.",
    ),
]
Fdr = Annotated[
    float,
    typer.Option("--fdr", metavar="RATE", help="False discovery rate of the list of patients."),
]


@app.command(epilog="Example: confide audit plan examples/embedded.yaml")
def plan(config: ConfigPath, until: Until = None, json: Json = False) -> None:
    """Say what an audit costs and what it can find, before anything is trained."""
    from confide.runs import plan as make_plan

    with show.waiting("Measuring the time of a model"):
        found = make_plan(*_loaded(config, until))
    if json:
        show.as_json(found)
        return
    from confide.reports.plan import renderables

    show.tables(renderables(found))


@app.command(epilog="Example: confide audit run examples/embedded.yaml --out runs/embedded")
def run(
    config: ConfigPath,
    out: Out,
    until: Until = None,
    workers: Workers = 1,
    ray: Ray = None,
    models: Models = None,
    signals: Signals = None,
    json: Json = False,
) -> None:
    """Train models, store their signals, analyse and report; run again to resume.

    With --until the models of the configuration are the most that are trained, in
    blocks of 16; the run looks at 16, 32, 64, ... models and stops when it is enough.

    With --models nothing is analysed: the same command without it does that, when
    all models are trained.
    """
    if (workers > 1) + (ray is not None) + (models is not None) > 1:
        raise typer.BadParameter("--workers, --ray and --models exclude each other; give one.")
    some = None if models is None else _range(models)
    with show.resumable():
        settings, folder = _loaded(config, until)
        if some is not None:
            _train_some(settings, folder, out, some, signals, json)
            return
        show.elsewhere(out, signals)
        with show.progress("Training models", then=ANALYSIS) as progress:
            found = _run(settings, folder, out, workers, ray, signals, progress)
        show.result(found, out, json_wanted=json)


def _run(
    settings: Config,
    folder: Path,
    out: Path,
    workers: int,
    ray: str | None,
    signals: str | None,
    progress: Bar,
) -> AuditResult:
    from confide.runs import engines, run_config

    if workers == 1 and ray is None:
        data = settings.data.telling(progress.phase(show.READING))
        settings = settings.model_copy(update={"data": data})
        return run_config(settings, folder, out, signals=signals, progress=progress)
    with engines.Processes(workers) if ray is None else engines.Ray(ray) as engine:
        return engines.run_by(engine, settings, folder, out, signals=signals, progress=progress)


def _train_some(
    settings: Config,
    folder: Path,
    out: Path,
    models: tuple[int, int],
    signals: str | None,
    json: bool,
) -> None:
    from confide.runs.launch import study_of

    show.elsewhere(out, signals)
    with show.progress("Training models") as progress:
        data = settings.data.telling(progress.phase(show.READING))
        settings = settings.model_copy(update={"data": data})
        done = study_of(settings, folder, signals).train_some(out, *models, progress)
    n_models = settings.audit.n_models
    if json:
        show.as_json({"n_models": n_models, "n_finished": done})
        return
    typer.echo(f"{done:,} of {n_models:,} models are finished in {out}.")
    if done == n_models:
        typer.echo("Run the same command without --models to analyse and report.")


@app.command(epilog="Example: confide audit scores predictions.csv --out runs/scores")
def scores(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE", callback=paths.wanted("table"), help="CSV or Parquet of predictions."
        ),
    ],
    out: Out,
    attacks: Attacks = "lira,rmia",
    fdr: Fdr = 0.05,
    json: Json = False,
) -> None:
    """Audit predictions that were made elsewhere: one row per model and record.

    The columns are model, record, patient, member (0 or 1), label, and either
    logit_0, logit_1, ... or prob_0, prob_1, ... or signal; view and population,
    if there are any.  Every other column is a group.
    """
    with show.resumable():
        from confide.runs import audit_scores

        with show.waiting("Reading and analysing the predictions"):
            found = audit_scores(table, out, attacks=_listed(attacks), fdr=fdr)
        show.result(found, out, json_wanted=json)


@app.command(
    epilog="Example: confide audit logdir logs/ptb-xl --records ptb-xl_train.csv "
    "--patient patient_id --out runs/ptb-xl"
)
def logdir(
    folder: Annotated[Path, typer.Argument(metavar="LOGDIR", help="A folder of many runs.")],
    records: Annotated[
        Path,
        typer.Option(
            "--records",
            metavar="TABLE",
            callback=paths.wanted("table"),
            help="CSV or Parquet of the training records, in order.",
        ),
    ],
    patient: Annotated[
        str, typer.Option("--patient", metavar="COLUMN", help="The column of patient ids.")
    ],
    out: Out,
    groups: Annotated[
        str, typer.Option(metavar="COLUMNS", help="Columns of groups, separated by commas.")
    ] = "",
    attacks: Attacks = "lira,rmia",
    fdr: Fdr = 0.05,
    skip_incomplete: Annotated[
        bool,
        typer.Option(
            "--skip-incomplete",
            metavar="",
            help="Leave out runs without their files or with logits that are not finite.",
        ),
    ] = False,
    accept: show.Accept = None,
    json: Json = False,
) -> None:
    """Audit a log directory of leakoscope or med_leak.

    Each folder in LOGDIR is a run: train_logits.npy, train_labels.npy and
    subset_mask.npy; test_logits.npy, test_labels.npy and info.json, if there are
    any.  Files with the ending .pkl are never opened.
    """
    with show.resumable():
        from confide.runs import audit_logdir

        with show.progress("Copying runs", then=ANALYSIS) as progress:
            found = audit_logdir(
                folder,
                records,
                out,
                patient=patient,
                groups=_listed(groups),
                attacks=_listed(attacks),
                fdr=fdr,
                skip_incomplete=skip_incomplete,
                accept=accept or (),
                progress=progress,
            )
        show.result(found, out, json_wanted=json)


@app.command(epilog="Example: confide audit erase runs/embedded")
def erase(
    folder: Folder,
    json: Json = False,
) -> None:
    """Remove who was in which model, for good; keep the tables and the report.

    Signals, masks and seeds go, and the audit cannot be analysed or resumed again.
    The tables that stay name patients by id and say who is at risk; of a released
    model, they keep ids and groups alone.  Files are removed, not overwritten:
    disks, snapshots and backups may still hold them, and versions of a bucket.
    """
    with show.resumable():
        from confide.runs import erase_signals

        show.elsewhere(folder)
        found = erase_signals(folder)
        if json:
            show.as_json(found)
            return
        typer.echo(f"Erased {folder}. Removed: {', '.join(found['removed']) or 'nothing more'}.")
        typer.echo(f"Kept: {', '.join(found['kept'])}.")
        if found["untouched"]:
            names = ", ".join(found["untouched"])
            typer.echo(f"Not written by the audit itself, left as it is: {names}.")
        show.tables(found["notes"])


@app.command(epilog="Example: confide audit model vendor.yaml --out runs/vendor")
def model(config: ConfigPath, out: Out, accept: show.Accept = None, json: Json = False) -> None:
    """Audit a released model: alone, or beside one or a few reference models.

    The configuration has the blocks data, target and references.  Models are
    .pt2, TorchScript, ONNX or skops files, or tables of predictions; pickles are
    never opened.  A model file is a program: open it only if you trust its maker.
    """
    with show.resumable():
        from confide.config import load_as
        from confide.runs.model_config import audit_model_config
        from confide.runs.model_settings import ModelConfig

        settings, folder = load_as(ModelConfig, config)
        with show.progress("Asking the models", then=ANALYSIS) as progress:
            found = audit_model_config(
                settings, folder, out, accept=accept or (), progress=progress
            )
        show.result(found, out, json_wanted=json)


@app.command(epilog="Example: confide audit report runs/embedded")
def report(
    folder: Folder,
    show_ids: Annotated[
        bool,
        typer.Option("--show-ids", metavar="", help="Name patients and records in report.html."),
    ] = False,
    show_images: Annotated[
        bool,
        typer.Option(
            "--show-images", metavar="", help="Show images of the patients most at risk in it."
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="CONFIG",
            callback=paths.wanted("configuration"),
            help="The configuration of the audit, which says where its images lie.",
        ),
    ] = None,
    pdf: show.Pdf = False,
    json: Json = False,
) -> None:
    """Analyse and draw again from what is stored.

    Patients are P1, P2, ... in the report, without images, unless it is asked to show them.
    Of an erased audit, --pdf prints the report that was kept.
    """
    with show.resumable():
        from confide.runs import analyse
        from confide.runs.erase import erased_on

        kept = pdf and not (show_ids or show_images or config or json)
        if kept and (date := erased_on(folder)) and (folder / "report.html").is_file():
            with show.printing(folder, wanted=True):
                pass
            typer.echo(f"Erased on {date}: report.html was printed, and nothing analysed again.")
            show.reports(folder)
            return
        show.elsewhere(folder)
        with show.printing(folder, pdf), show.waiting(ANALYSIS):
            found = analyse(folder, show_ids=show_ids, show_images=show_images, config=config)
        show.result(found, folder, json_wanted=json)


def _loaded(config: Path, until: str | None) -> tuple[Config, Path]:
    from confide.config import load, with_audit

    settings, folder = load(config)
    if until is not None:
        settings = with_audit(settings, "--until", until=until)
    return settings, folder


def _listed(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())
