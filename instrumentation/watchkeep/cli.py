"""The command `watchkeep`: each verb is a small function that prints; what it prints is made elsewhere."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

_RUN_VALUES = {  # option -> the variable that it sets
    "--service-name": "OTEL_SERVICE_NAME",
    "--profile": "WATCHKEEP_PROFILE",
    "--endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and give its exit status."""
    words, command = _split(list(sys.argv[1:] if argv is None else argv))
    options = _parser().parse_args(words)
    options.command = command
    try:
        status: int = options.verb(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Part our own words from the command of `run`, whose options are none of argparse's business."""
    if words[:1] != ["run"]:
        return words, []
    at = 1
    while at < len(words) and words[at].startswith("-"):
        if words[at] == "--":
            return words[:at], words[at + 1 :]
        at += 2 if words[at] in _RUN_VALUES else 1
    return words[:at], words[at:]


def _parser() -> argparse.ArgumentParser:
    from watchkeep.version import __version__

    parser = argparse.ArgumentParser(
        prog="watchkeep", description="See why your agents are slow, failing or expensive."
    )
    parser.add_argument("--version", action="version", version=f"watchkeep {__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    run = _verb(verbs, "run", _run, "run a command and watch it")
    run.usage = "watchkeep run [--service-name N] [--console] [--profile P] [--endpoint URL] -- COMMAND ..."
    run.add_argument("--service-name", metavar="N", help="the service that all signals belong to")
    run.add_argument("--console", action="store_true", help="print each finished trace on stderr")
    run.add_argument("--profile", metavar="P", help="presets: dev, staging or prod")
    run.add_argument("--endpoint", metavar="URL", help="the OTLP end point; http://127.0.0.1:4318 by default")
    _verb(verbs, "config", _config, "show every setting, its value and where it came from")
    _verb(verbs, "doctor", _doctor, "check what will be seen and what stands in the way")
    _stack_actions(_verb(verbs, "stack", _stack, "start and stop the bundled servers"))
    return parser


def _stack_actions(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")
    texts = {
        "up": "start the servers and wait until all are ready",
        "down": "stop them; what they kept stays",
        "status": "show each server, and whether alerts reach anybody",
        "logs": "show what the servers wrote",
        "build": "build the programs that are not on PATH, without a start",
    }
    made = {
        name: actions.add_parser(name, help=text, description=text.capitalize() + ".") for name, text in texts.items()
    }
    for each in made.values():
        each.add_argument("--native", action="store_true", help="processes, even where a Docker engine answers")
    made["up"].add_argument("--foreground", action="store_true", help="stay, as processes, until Ctrl-C")
    made["up"].add_argument("--without", action="append", default=[], metavar="SERVER", help="leave one out")
    made["logs"].add_argument("server", nargs="?", help="one server only")
    made["logs"].add_argument("-f", "--follow", action="store_true", help="go on with what is written from now on")
    made["logs"].add_argument("-n", "--lines", type=int, default=100, metavar="N", help="of each server; 100")
    made["build"].add_argument("programs", nargs="*", metavar="PROGRAM", help="all that the servers need, by default")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, verb: object, text: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.set_defaults(verb=verb)
    return parser


def _run(options: argparse.Namespace) -> int:
    from watchkeep import launch

    if not options.command:
        hint = "write it after --, as in: watchkeep run -- python app.py"
        print(f"watchkeep: no command to run; {hint}", file=sys.stderr)
        return 2
    given = {}
    for option, variable in _RUN_VALUES.items():
        value = getattr(options, option[2:].replace("-", "_"))
        if value is not None:
            given[variable] = value
    if options.console:
        given["WATCHKEEP_CONSOLE"] = "true"
    return launch.run(options.command, given)


def _config(_: argparse.Namespace) -> int:
    from watchkeep import settings

    lines, errors = settings.report()
    print("\n".join(lines))
    for error in errors:
        print(f"watchkeep: setting {error}", file=sys.stderr)
    return 1 if errors else 0


def _doctor(_: argparse.Namespace) -> int:
    from watchkeep import doctor

    report = doctor.examine()
    print("\n".join(report.lines))
    return 1 if report.todo else 0


def _stack(options: argparse.Namespace) -> int:
    from watchkeep.stack import command

    return command.run(options)
