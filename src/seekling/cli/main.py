"""The door: commands that parse, call one room, and print. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from seekling.errors import GateMissed, SelfTestFailed, UserError

app = typer.Typer(
    name="seekling",
    help="Grow reasoning models the way DeepSeek did: from random weights, by reinforcement with checkable rewards.\n\n"
    "Start with `seekling run zero-tiny`: a few minutes on a laptop, no download. Then `seekling show zero-tiny`, "
    '`seekling ask zero-tiny "12+7-5+20="`, and change a setting: `seekling run zero-tiny zero.steps=50`.',
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

tasks = typer.Typer(rich_markup_mode=None, invoke_without_command=True)
app.add_typer(tasks, name="tasks")

RunsOption = Annotated[Path, typer.Option("--runs", help="The folder that holds run directories.")]
RUNS = Path("runs")
ModelArgument = Annotated[str, typer.Argument(help="A run, RUN/STAGE, a model folder, or a hub name (org/name).")]


def main() -> None:
    """Run a command; a letter instead of a traceback for whatever a person can mend. Exits non-zero then."""
    try:
        app()
    except UserError as error:
        from seekling.cli.show import letter

        letter(error)
        raise SystemExit(exit_code(error)) from None
    except BrokenPipeError:
        raise SystemExit(0) from None
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        raise SystemExit(130) from None


def exit_code(error: UserError) -> int:
    """2 for input, 3 for a missed gate, 4 for a self-test that refuses to train."""
    return 3 if isinstance(error, GateMissed) else 4 if isinstance(error, SelfTestFailed) else 2


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"seekling {version('seekling')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def run(
    manifest: Annotated[str, typer.Argument(help="A .toml file, a built-in name (zero-tiny), or a run directory.")],
    settings: Annotated[list[str] | None, typer.Argument(help="Changes, e.g. zero.steps=50 seed=1")] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the run directory (default: the manifest's).")] = "",
    again: Annotated[list[str] | None, typer.Option("--again", help="A stage to make again, though finished.")] = None,
    runs: RunsOption = RUNS,
) -> None:
    """Run a manifest's stages; go on where an earlier run was stopped. Ctrl-C saves and stops.

    A finished stage is never repeated; changing a setting runs its stage and what depends on it again, beside the
    old one. Ends with a report, one self-contained HTML file.
    """
    from seekling.cli.running import run_command

    raise typer.Exit(run_command(manifest, settings or [], name, runs, again or []))


@app.command()
def fit(
    manifest: Annotated[str, typer.Argument(help="A .toml file, a built-in name (zero-tiny), or a run directory.")],
    settings: Annotated[list[str] | None, typer.Argument(help="Changes, e.g. zero.packing.passes=8")] = None,
    device_memory: Annotated[str, typer.Option(help="Of the device it will run on, e.g. 80GiB (default: here).")] = "",
    prompt_tokens: Annotated[int, typer.Option(min=0, help="The longest prompt; 0: what a row has left.")] = 0,
    fill: Annotated[float, typer.Option(min=0, max=1, help="Share of packed rows that holds text; 0: seen.")] = 0.0,
) -> None:
    """Does it fit: the most memory each training stage will hold, by part. Exits with 1 where one does not fit.

    Nothing is run and no weight is read. What is too large comes with what to change, and what that leaves.
    """
    from seekling.cli.fit import fit_command

    raise typer.Exit(fit_command(manifest, settings or [], device_memory, fill=fill, prompt=prompt_tokens))


@app.command()
def runs(
    action: Annotated[
        str, typer.Argument(help="list, or prune RUN to delete stages its manifest no longer names")
    ] = "list",
    run: Annotated[str, typer.Argument(help="The run to prune.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    runs: RunsOption = RUNS,
) -> None:
    """List the runs with state and cost, or prune what a run's manifest no longer names."""
    from seekling.cli.show import list_command, prune_command

    if action == "prune":
        prune_command(runs, run, yes=yes)
    elif action == "list":
        list_command(runs)
    else:
        raise UserError(f'unknown action "{action}"', next_step="Write: seekling runs, or seekling runs prune RUN")


@app.command()
def show(run: Annotated[str, typer.Argument(help="A run's name or directory.")], runs: RunsOption = RUNS) -> None:
    """Stages of a run, their gates and figures, what they cost."""
    from seekling.cli.show import show_command

    show_command(runs, run)


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(help="Runs, by name or directory; ratios are against the first.")],
    stage: Annotated[str, typer.Option("--stage", help="Only the model of this stage.")] = "",
    figure: Annotated[str, typer.Option("--figure", help="pass@8, maj@8, mean_tokens, ...")] = "pass@1",
    out: Annotated[Path | None, typer.Option("--out", help="The page (default: compare.html beside the runs).")] = None,
    runs: RunsOption = RUNS,
) -> None:
    """What runs scored at which compute, with intervals; runs of one manifest with several seeds are pooled.

    Ratios of errors come first, and everything else in which the runs differ is told.
    """
    from seekling.cli.comparing import compare_command

    compare_command(runs, names, stage=stage, figure=figure, out=out)


@app.command()
def track(
    run: Annotated[str, typer.Argument(help="A run's name or directory.")],
    to: Annotated[str, typer.Option("--to", help="trackio (local) or wandb; what it needs is installed by you.")],
    project: Annotated[str, typer.Option("--project", help="The tracker's project.")] = "seekling",
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run ends.")] = False,
    runs: RunsOption = RUNS,
) -> None:
    """Send a run's metrics to a tracker, under the names TRL's users know. The run's own files stay the truth."""
    from seekling.cli.show import find_run
    from seekling.report.track import send
    from seekling.runlog.run import Run

    print(f"{send(Run(find_run(runs, run)), to, project, follow=follow)} steps sent to {to}")


@app.command()
def report(run: Annotated[str, typer.Argument(help="A run's name or directory.")], runs: RunsOption = RUNS) -> None:
    """Write a run's report anew from its files and print its path."""
    from seekling.cli.show import find_run
    from seekling.report.page import write_report

    print(write_report(find_run(runs, run)))


@app.command()
def ask(
    model: ModelArgument,
    problem: Annotated[str, typer.Argument(help='The problem, e.g. "12+7-5+20=".')],
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.", min=0)] = 0.6,
    max_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.", min=1)] = 128,
    seed: Annotated[int, typer.Option(help="Another seed, another answer.")] = 0,
    most_thought: Annotated[int | None, typer.Option(help="Close its thought after so many tokens.", min=0)] = None,
    schema: Annotated[Path | None, typer.Option(help="A file with a JSON schema that the answer keeps to.")] = None,
    regex: Annotated[str | None, typer.Option(help="An expression that the answer matches.")] = None,
    drafts: Annotated[int, typer.Option(help="Tokens guessed ahead: faster, the same answer.", min=0, max=16)] = 0,
    runs: RunsOption = RUNS,
) -> None:
    """Put a problem to a model and watch it think."""
    from seekling.cli.asking import Bounds, ask_command
    from seekling.engine.config import Sampling

    sampling = Sampling(temperature=temperature, max_tokens=max_tokens, drafts=drafts)
    ask_command(runs, model, problem, sampling, Bounds(most_thought, schema, regex), seed=seed)


@app.command("eval")
def evaluate(
    model: ModelArgument,
    task: Annotated[str, typer.Option(help="A task's name, or ./file.py:Name.")] = "arithmetic",
    suite: Annotated[str, typer.Option(help="Instead: gsm8k,math500,aime,ifeval, gsm8k=FILE, or FILE.jsonl.")] = "",
    problems: Annotated[int | None, typer.Option(min=1, help="How many (default: 64; of a suite all).")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Rollouts each (default: 8; the suite's own).")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="Default: 1, as trained; of a suite 0.6.")] = None,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Of a suite.")] = 0.95,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply to a suite; the context may end it.")] = 32_768,
    rows: Annotated[int, typer.Option(min=1, help="How many replies to a suite run at once.")] = 32,
    seed: Annotated[int, typer.Option(help="Another seed, other replies to a suite.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for a suite's results (default: evals/MODEL).")] = None,
    runs: RunsOption = RUNS,
) -> None:
    """Evaluate a model on held-out problems, or on published sets by R1's protocol; each figure with its interval."""
    if not suite:
        from seekling.cli.asking import eval_command

        heat = 1.0 if temperature is None else temperature
        return eval_command(runs, model, task, problems=problems or 64, samples=samples or 8, temperature=heat)
    from seekling.cli.suites import Asking, suites_command
    from seekling.engine.config import Sampling

    heat = 0.6 if temperature is None else temperature
    sampling = Sampling(temperature=heat, top_p=top_p, max_tokens=max_tokens, max_rows=rows)
    suites_command(runs, model, suite, Asking(sampling, problems or 0, samples or 0, seed), out)


@app.command()
def probe(
    model: ModelArgument,
    task: Annotated[str, typer.Argument(help="A task's name, or ./file.py:Name.")],
    settings: Annotated[list[str] | None, typer.Argument(help="Its settings, e.g. high=50")] = None,
    problems: Annotated[int, typer.Option(min=1, help="How many training problems.")] = 64,
    samples: Annotated[int, typer.Option(min=2, help="Rollouts per problem: the largest k.")] = 64,
    temperature: Annotated[float, typer.Option(min=0, help="1 samples as it would be trained.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest rollout; the context may end it.")] = 1024,
    rows: Annotated[int, typer.Option(min=1, help="How many rollouts run at once.")] = 512,
    out: Annotated[Path | None, typer.Option(help="Write what was seen here, as JSON.")] = None,
    runs: RunsOption = RUNS,
) -> None:
    """Is there something for reinforcement to find? Exits with 0; or 5 too easy, 6 seldom, 7 distil first, 8 broken."""
    from seekling.cli.probing import probe_command
    from seekling.engine.config import Sampling

    sampling = Sampling(temperature=temperature, max_tokens=max_tokens, max_rows=rows)
    code = probe_command(runs, model, task, settings or [], count=problems, sampling=sampling, samples=samples, out=out)
    raise typer.Exit(code)


@app.command()
def inspect(
    model: ModelArgument,
    revision: Annotated[str, typer.Option(help="A branch, tag or commit of a hub model.")] = "",
    runs: RunsOption = RUNS,
) -> None:
    """What a model is: parts, parameters, cost per token, memory, tokenizer, what is unusual. Reads no weights."""
    from seekling.cli.models import inspect_command

    inspect_command(runs, model, revision)


@app.command()
def export(
    model: ModelArgument,
    folder: Annotated[Path, typer.Argument(help="Where to write; must not exist yet.")],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16 (default: as it is stored).")] = "",
    shard_gb: Annotated[float, typer.Option(help="Largest file, in GiB.", min=0.001)] = 4.0,
    runs: RunsOption = RUNS,
) -> None:
    """Write a complete model repository (weights, tokenizer, card, lineage) that transformers and vLLM load."""
    from seekling.cli.models import export_command

    export_command(runs, model, folder, dtype, shard_gb)


@app.command()
def diff(
    one: ModelArgument,
    other: ModelArgument,
    text: Annotated[str, typer.Option(help="The text both read.")] = "Seven times six is 42; 12+7-5+20=34.",
    runs: RunsOption = RUNS,
) -> None:
    """How far two models are apart on one text: logits, and the first layer where they part."""
    from seekling.cli.models import diff_command

    diff_command(runs, one, other, text)


@app.command()
def verify(model: ModelArgument, runs: RunsOption = RUNS) -> None:
    """Check a real checkpoint: config, every tensor, tokenizer, template, masks; against transformers where it is."""
    from seekling.cli.verifying import verify_command

    raise typer.Exit(verify_command(runs, model))


@app.command()
def stages(kind: Annotated[str, typer.Argument(help="One kind in full.")] = "") -> None:
    """The stage kinds a manifest can use, and every setting with its default and meaning."""
    from seekling.cli.show import stages_command

    stages_command(kind)


TaskArgument = Annotated[str, typer.Argument(help="A task's name, or ./file.py:Name.")]
TaskSettings = Annotated[list[str] | None, typer.Argument(help="Its settings, e.g. high=50")]


@tasks.callback()
def list_tasks(context: typer.Context) -> None:
    """Every task with its settings, a sample and its self-check; or look closer: show, try, audit."""
    if context.invoked_subcommand is None:
        from seekling.cli.tasks import list_command

        list_command()


@tasks.command("show")
def show_task(task: TaskArgument) -> None:
    """One task: what it is, its settings, three problems with their keys."""
    from seekling.cli.tasks import show_command

    show_command(task)


@tasks.command("try")
def try_task(
    task: TaskArgument,
    settings: TaskSettings = None,
    problems: Annotated[int, typer.Option(min=1, help="How many problems.")] = 3,
    seed: Annotated[int, typer.Option(help="Another seed, other problems.")] = 0,
) -> None:
    """Answer a task's problems yourself, and see the score and why."""
    from seekling.cli.tasks import try_command

    try_command(task, settings or [], count=problems, seed=seed)


@tasks.command("new")
def new_task(
    place: Annotated[Path, typer.Argument(help="The folder to write into.")],
    kind: Annotated[str, typer.Argument(help="task (a class), file (a list of problems), or reward.")] = "task",
) -> None:
    """Write a commented start for a task of your own: a class, a list of problems, or a reward."""
    from seekling.cli.tasks_new import tasks_new_command

    tasks_new_command(place, kind)


@tasks.command("audit")
def audit_task(
    task: TaskArgument,
    settings: TaskSettings = None,
    problems: Annotated[int, typer.Option(min=1, help="How many problems.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Write the figures here, as JSON.")] = None,
) -> None:
    """Try answers made to deceive a task's check, and true ones in other forms. Exits with 1 when it is deceived."""
    from seekling.cli.tasks import audit_command

    raise typer.Exit(audit_command(task, settings or [], count=problems, out=out))


@app.command()
def sandbox(action: Annotated[str, typer.Argument(help="doctor")] = "doctor") -> None:
    """Whether programs that a model wrote can do no harm here: each layer, proved by programs that try to get out."""
    if action != "doctor":
        raise UserError(f'unknown action "{action}"', next_step="Write: seekling sandbox doctor")
    from seekling.cli.sandbox import sandbox_doctor

    raise typer.Exit(sandbox_doctor())


@app.command()
def doctor() -> None:
    """What this machine has, what is missing, and what each missing thing would give."""
    from seekling.cli.doctor import doctor as examine

    raise typer.Exit(examine())


if __name__ == "__main__":
    main()
