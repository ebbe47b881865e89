# ruff: noqa: PLC0415 - a command imports what it needs, so that the others and --help are quick
"""The commands and their options."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from flows.settings import Settings

__all__ = ["app", "run"]

INTERRUPTED = 130

app = typer.Typer(
    help="Keeps a LanceDB table as fresh as a Kafka topic.\n\n"
    "Settings come from HEADRACE_SECTION__NAME in the environment and from headrace.toml.",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)
topics_app = typer.Typer(help="The topics that a flow reads and writes.")
model_app = typer.Typer(help="The model's bundle: graph, tokenizer and manifest.")
dead_letters_app = typer.Typer(help="Records that could not be embedded.")
app.add_typer(topics_app, name="topics")
app.add_typer(model_app, name="model")
app.add_typer(dead_letters_app, name="dead-letters")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Pipeline = Annotated[
    str | None,
    typer.Option(
        "--pipeline",
        help="Which pipeline of the settings file. \\[default: setting pipeline]",
        metavar="NAME",
    ),
]
Code = Annotated[
    str | None,
    typer.Option(help="Only those with this code, such as bad_json.", metavar="CODE"),
]
Source = Annotated[
    str | None,
    typer.Option(
        help="Only those read from this source topic, or this partition of it.",
        metavar="TOPIC[/PARTITION]",
    ),
]
Partition = Annotated[
    int | None,
    typer.Option(min=0, help="Only those read from this partition of a source topic.", metavar="N"),
]
Since = Annotated[
    str | None,
    typer.Option(
        help="Only those that died then or later: ISO 8601, or how long ago, such as 2h.",
        metavar="TIME",
    ),
]
Until = Annotated[
    str | None,
    typer.Option(help="Only those that died before; as for --since.", metavar="TIME"),
]


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command line; the program's own unless given.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    try:
        given = None if arguments is None else list(arguments)
        code = app(given, prog_name="headrace", standalone_mode=False)
    except HeadraceError as error:
        return _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        where = getattr(getattr(error, "ctx", None), "command_path", "headrace")
        told = error.format_message().rstrip(".")
        return _fail(f"{told}; see: {where} --help", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    line = " ".join(message.splitlines())
    typer.echo(f"headrace: {line}", err=True)
    return code


def _settings(pipeline: str | None = None) -> "Settings":
    """All settings; with a name those of one pipeline are meant."""
    from flows.settings import load
    from telemetry import logs

    # What a command has to say it says itself, in one line.
    logs.configure(level=logging.ERROR)
    named = {} if pipeline is None else {"HEADRACE_PIPELINE": pipeline}
    return load({**os.environ, **named}, Path.cwd())


def _one(pipeline: str | None) -> "Settings":
    """The settings of the pipeline that is meant, which must be one."""
    from headrace.errors import UsageError

    meant = _settings(pipeline).each()
    if len(meant) > 1:
        names = ", ".join(one.name for one in meant)
        raise UsageError(f"--pipeline: say which: {names}")
    return meant[0]


def _shared(pipeline: str | None) -> "Settings":
    """The settings of a pipeline, or without a name those that all have."""
    return _settings() if pipeline is None else _one(pipeline)


@app.command("check")
def check(
    flow: Annotated[
        str, typer.Argument(help="embed or recommend: whose topics and tables.", metavar="[FLOW]")
    ] = "embed",
    pipeline: Pipeline = None,
    as_json: AsJson = False,
) -> None:
    """Look at all that a flow needs, and name what is wrong.

    That is the settings, the broker, the topics, the model and the tables; nothing is changed.
    Exits with 1 if there is a problem; warnings are none.
    """
    from cli.check import examine, flow_of, show

    if not show(examine(lambda: _settings(pipeline), flow_of(flow)), as_json=as_json):
        raise typer.Exit(1)


@app.command("init")
def init(  # noqa: PLR0913, PLR0917 - each is an option
    topic: Annotated[str, typer.Option(help="The topic to look at.", metavar="TOPIC")],
    identity: Annotated[
        str | None,
        typer.Option("--id", help="As source.id: key, key/id or /id.", metavar="PLACE"),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(help="As source.text; pointers may have commas between.", metavar="TEMPLATE"),
    ] = None,
    markup: Annotated[
        str | None, typer.Option(help="none, html or markdown.", metavar="WHICH")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            help="A metadata field, such as price=/price:float64, in place of those that were "
            "guessed; once for each, or none.",
            metavar="NAME=POINTER[:TYPE]",
        ),
    ] = None,
    timestamp: Annotated[
        str | None, typer.Option(help="As source.timestamp, or none.", metavar="POINTER")
    ] = None,
    delete_when: Annotated[
        str | None, typer.Option(help="As source.delete_when, or none.", metavar="EXPRESSION")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--filter", help="As source.filter, or none.", metavar="EXPRESSION"),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the settings go.", metavar="FILE")] = Path(
        "headrace.toml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace that file.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print, and write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Take the guesses; ask nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at a topic, guess where id, text and metadata are, and write the settings.

    The newest records are read, and nothing is changed on the broker. On a terminal each guess can
    be put right; options do it anywhere. What would be embedded of three records is shown.
    """
    from cli.init import look, refuse_replacing, show, write
    from cli.wishes import Wishes

    if not dry_run:
        refuse_replacing(output, force=force)
    wishes = Wishes(identity, text, markup, metadata, timestamp, delete_when, only)
    asking = not (yes or as_json) and sys.stdin.isatty() and sys.stdout.isatty()
    found = look(_settings(), topic, wishes, asking=asking)
    if not dry_run:
        write(found, output)
    show(found, None if dry_run else output, as_json=as_json)


@topics_app.command("create")
def topics_create(
    partitions: Annotated[
        int, typer.Option(min=1, help="Of each source topic that is made.", metavar="N")
    ] = 4,
    replication: Annotated[
        int | None,
        typer.Option(
            min=1, help="Copies of each partition. \\[default: the broker's]", metavar="N"
        ),
    ] = None,
    pipeline: Pipeline = None,
    as_json: AsJson = False,
) -> None:
    """Make the topics that are missing; those that are there stay as they are.

    Embeddings: compacted, with as many partitions as the source topic has. Dead letters: not
    compacted, one partition, kept for 30 days. All take records as large as the settings allow.
    """
    from cli.topics import create_all, show

    show(create_all(_settings(pipeline), partitions, replication), as_json=as_json)


@model_app.command("export")
def model_export(pipeline: Pipeline = None, as_json: AsJson = False) -> None:
    """Build the model's bundle into the cache, and find out what runs it best here.

    Does nothing where that was done before.
    """
    from cli.model import bundle, show

    show(bundle(_shared(pipeline)), ("path", "fingerprint"), as_json=as_json)


@model_app.command("inspect")
def model_inspect(pipeline: Pipeline = None, as_json: AsJson = False) -> None:
    """Show the model's bundle, and what runs it on this machine."""
    from cli.model import bundle, show

    show(bundle(_shared(pipeline)), as_json=as_json)


@model_app.command("distill")
def model_distill(
    out: Annotated[Path, typer.Argument(help="The new bundle's folder.", metavar="OUT")],
    texts: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines with texts like yours, to fit the vectors to; - is standard input.",
            metavar="FILE",
        ),
    ] = None,
    dimension: Annotated[int, typer.Option(min=1, help="Floats in a vector.", metavar="N")] = 256,
    max_tokens: Annotated[
        int, typer.Option(min=8, help="Longer texts are truncated.", metavar="N")
    ] = 2048,
    pipeline: Pipeline = None,
    as_json: AsJson = False,
) -> None:
    """Make a static bundle of the model: over a hundred times as fast, and far less exact.

    It has a vector for each token in place of the transformer, and a text's vector is the sum of
    its tokens'. Set model.name to OUT to use it. With --texts, a line being {"text": …} as
    headrace load takes it, the vectors are fitted to what the model makes of those texts.
    """
    from cli.distill import distill, show

    show(distill(_shared(pipeline), out, texts, dimension, max_tokens), as_json=as_json)


@model_app.command("quantize")
def model_quantize(
    texts: Annotated[
        Path | None,
        typer.Option(
            help='JSON lines with {"text": …} like those to come. \\[default: made ones]',
            metavar="FILE",
        ),
    ] = None,
    pipeline: Pipeline = None,
    as_json: AsJson = False,
) -> None:
    """Make the model's int8 form, beside its graph.

    It is calibrated on texts, and leaves in floats what loses too much. Its vectors have a
    fingerprint of their own: a table holds those of one form. Does nothing where it was done
    before.
    """
    from cli.model import quantize, show

    show(quantize(_shared(pipeline), texts), as_json=as_json)


@app.command("load")
def load(
    file: Annotated[Path, typer.Argument(help="JSON lines; - is standard input.", metavar="FILE")],
    topic: Annotated[
        str | None,
        typer.Option(help="Where to. \\[default: the first of source.topics]", metavar="TOPIC"),
    ] = None,
    pipeline: Pipeline = None,
    as_json: AsJson = False,
) -> None:
    """Send documents from a file to the source topic, each acknowledged.

    A line is {"id": …, "text": …} with, if wanted, "metadata" (an object) and "timestamp"
    (milliseconds). Without "text" it changes only the metadata. {"id": …, "deleted": true}, or a
    "text" of null without metadata, deletes the document. A wrong line ends it; what was before
    it has been sent, and sending it again does no harm.
    """
    from cli.load import load as load_file
    from cli.load import show

    show(load_file(_one(pipeline), file, topic), as_json=as_json)


@app.command("search")
def search(
    words: Annotated[str, typer.Argument(help="What to look for.", metavar="WORDS")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many documents.", metavar="N")] = 10,
    where: Annotated[
        str | None,
        typer.Option(
            "--filter", help="""What they must meet, such as "price < 20".""", metavar="SQL"
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            help="Which table, where table.name is a template. \\[default: table.name]",
            metavar="NAME",
        ),
    ] = None,
    pipeline: Pipeline = None,
    as_json: AsJson = False,
) -> None:
    """Show the documents nearest to some words, as the table has them now."""
    from cli.search import search as search_table
    from cli.search import show

    show(search_table(_one(pipeline), words, k, where, table), as_json=as_json)


@app.command("token")
def token(
    subject: Annotated[str, typer.Argument(help="Whose it is.", metavar="SUBJECT")],
    scope: Annotated[
        str, typer.Option(help="What it allows: read, write, or both.", metavar="SCOPE")
    ] = "read write",
    hours: Annotated[
        float, typer.Option(min=0.01, help="How long it is good.", metavar="N")
    ] = 24.0,
    tables: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            help="A table that its bearer may search, of several one by one; '*' for all. With "
            "auth.tables_claim a token without one may search none.",
            metavar="NAME",
        ),
    ] = None,
) -> None:
    """Print a bearer token for the HTTP services, signed with auth.jwt_key."""
    from cli.token import make_token

    typer.echo(make_token(_settings().auth, subject, scope, hours, tables or ()))


@app.command("serve")
def serve(
    part: Annotated[
        str | None,
        typer.Argument(help="ingest or search. \\[default: serve.parts]", metavar="[PART]"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Where to. \\[default: serve.port]", metavar="N"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes. \\[default: serve.workers]", metavar="N"),
    ] = None,
    pipeline: Pipeline = None,
) -> None:
    """Run the HTTP services: writes to the topics, searches of the table.

    Without auth.jwt_key or auth.jwks_url only this machine can reach them. Ends on SIGTERM or
    Ctrl-C once what is at hand has been answered.
    """
    from cli.serve import serve as run_services

    code = run_services(_one(pipeline), part, port, workers)
    if code:
        raise typer.Exit(code)


@app.command("status")
def status(
    recovery: Annotated[
        Path | None,
        typer.Option(
            envvar="BYTEWAX_RECOVERY_DIRECTORY",
            help="The flow's recovery folder, for the age of its last snapshot.",
            metavar="DIR",
        ),
    ] = None,
    pipeline: Pipeline = None,
    as_json: AsJson = False,
) -> None:
    """Show lag, rows, freshness, model and the last snapshot."""
    from cli.status import show
    from cli.status import status as read_status

    found = [read_status(one, recovery) for one in _settings(pipeline).each()]
    show(found, as_json=as_json)


@app.command("migrate")
def migrate(  # noqa: PLR0913, PLR0917 - typer makes an option of each
    model: Annotated[
        str | None,
        typer.Option(help="What model.name is to be. \\[default: as it was begun]", metavar="NAME"),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=8, help="What model.max_tokens is to be. \\[default: as it is]", metavar="N"
        ),
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="table or topic: what the new table begins with. \\[default: table]",
            metavar="WHICH",
        ),
    ] = None,
    show_status: Annotated[bool, typer.Option("--status", help="Only show how it stands.")] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Let readers have the old table again.")
    ] = False,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Delete the old table after the switch.")
    ] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Delete a new table that is not switched to.")
    ] = False,
    pipeline: Pipeline = None,
    as_json: AsJson = False,
) -> None:
    """Change the model without a stop: a new table is made, and readers are switched to it.

    What the table holds is embedded with the new model into a table of its own, which then follows
    the topic. Once it has caught up, headrace search, serve and status have it in place of the old
    one. The command goes on to keep it fresh until it is interrupted, or a flow with the new
    settings takes over. Interrupted at any moment, it goes on where it was when it is run again.
    """
    from cli import migrate as command
    from headrace.errors import UsageError

    others = {
        "--status": (show_status, command.status),
        "--rollback": (rollback, command.rollback),
        "--drop-old": (drop_old, command.drop_old),
        "--abandon": (abandon, command.abandon),
    }
    asked = [name for name, (given, _) in others.items() if given]
    if len(asked) > 1 or (asked and (model, max_tokens, origin) != (None, None, None)):
        raise UsageError(f"migrate: {asked[0]}: goes alone")
    settings = _one(pipeline)
    command.check_single(settings)
    if asked:
        command.show(others[asked[0]][1](settings), as_json=as_json)
        return
    for told in command.migrate(settings, model, max_tokens, command.origin_of(origin)):
        command.show(told, as_json=as_json)


@dead_letters_app.command("list")
def dead_letters_list(
    code: Code = None,
    source: Source = None,
    partition: Partition = None,
    since: Since = None,
    until: Until = None,
    most: Annotated[
        int, typer.Option("-n", min=1, help="At most so many, the newest.", metavar="N")
    ] = 50,
    pipeline: Pipeline = None,
    as_json: AsJson = False,
) -> None:
    """Show dead letters, each with its code, its source and what is wrong with it."""
    from cli.dead_letters import Narrowing, choice, listing, show_list

    chosen = choice(Narrowing(code, source, partition, since, until))
    show_list(listing(_one(pipeline), chosen, most), as_json=as_json)


@dead_letters_app.command("show")
def dead_letters_show(
    place: Annotated[
        str,
        typer.Argument(help="Which one: PARTITION:OFFSET, as the list has it.", metavar="PLACE"),
    ],
    most: Annotated[
        int,
        typer.Option(
            "--bytes", min=0, help="The most of its value, and of each header.", metavar="N"
        ),
    ] = 10_000,
    pipeline: Pipeline = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter whole: why it died, where it came from, key, headers and value.

    What is not UTF-8 is shown in hex. One that was too large has its value in the source topic.
    """
    from cli.dead_letters import show_one, whole

    show_one(whole(_one(pipeline), place, most), as_json=as_json)


@dead_letters_app.command("replay")
def dead_letters_replay(  # noqa: PLR0913, PLR0917 - typer makes an option of each
    code: Code = None,
    source: Source = None,
    partition: Partition = None,
    since: Since = None,
    until: Until = None,
    offset: Annotated[
        list[str] | None,
        typer.Option(help="Only this one; may be given several times.", metavar="P:O"),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent.")
    ] = False,
    pipeline: Pipeline = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to their source partitions, once what made them dead is mended.

    Key, value and headers are the original's. The header headrace-replayed counts;
    headrace-origin and headrace-origin-error say where it was read at first and which code it
    had. They stay in the dead-letter topic, so a second run sends them again. A document that has
    changed since gets its older state back: look at the list first.
    """
    from cli.dead_letters import Narrowing, choice, replay, show_replay
    from headrace.errors import UsageError

    narrowed = Narrowing(code, source, partition, since, until)
    if everything == bool(narrowed or offset):
        raise UsageError(
            "dead-letters replay: say which: --code, --source, --partition, --since, --until, "
            "--offset, or --all alone"
        )
    chosen = choice(narrowed, offset or ())
    done = replay(_one(pipeline), chosen, dry_run=dry_run)
    show_replay(done, as_json=as_json)
    if done.failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    sys.exit(run())
