"""The command line: python -m profiling summary|diff|memory|check|effects|figures|report PATH; ab SCRIPT SCRIPT."""

from profiling.terminal.early_signals import exit_at_once

if __name__ == "__main__":  # before the other imports, which are slow
    exit_at_once("interrupted\n")

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from profiling.format import visible
from profiling.parent_process import STDIN_VARIABLE, end_with_parent
from profiling.terminal.arguments import UNREADABLE, Parser, count
from profiling.terminal.early_signals import BEFORE_THE_RUN
from profiling.terminal.encoding import replace_what_cannot_be_encoded
from profiling.terminal.json_output import write_json
from profiling.terminal.streams import drop_output, open_closed_streams, print_line
from profiling.trace.parallel_reader import begin_reading
from profiling.trace.parse import TraceError
from profiling.trace.text import STDIN


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Return its status, 0 or UNREADABLE; exit with USAGE if the command line is wrong."""
    open_closed_streams()
    replace_what_cannot_be_encoded()
    parser = Parser(prog="python -m profiling", description="Read and compare traces of torch.profiler, and scripts.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except TraceError as error:
        print_line(str(error))
        return UNREADABLE
    except MemoryError:
        print_line("this takes more memory than there is")
        return UNREADABLE
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has exited
        drop_output()
        return UNREADABLE
    except OSError as error:
        if error.strerror and not error.filename:  # only errors of standard output name no file
            drop_output()
            error.filename = "standard output"
        print_line(f"{error.filename}: {error.strerror}" if error.strerror else str(error))
        return UNREADABLE


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=run, parser=parser)
    return parser


def _path(text: str) -> Path:
    """Convert an argument: `-` is standard input, `./-` is a file."""
    return Path(text) if text == str(STDIN) or Path(text) != STDIN else Path.cwd() / text


def _add_summary(commands: Any) -> None:
    parser = _command(commands, "summary", _summary, "what a trace or run spends its time on")
    parser.add_argument(
        "path", metavar="TRACE|RUN", type=_path, help="a trace file, a folder of them, or - for standard input"
    )
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.add_argument("--by", choices=BY, default="operator", help="what the rows are (default: operator)")
    parser.add_argument("--top", type=count, metavar="N", help="at most N rows of each table")


def _summary(options: argparse.Namespace) -> int:
    begun = begin_reading(options.path)  # numpy and the analysis are imported meanwhile
    from profiling.analysis.summary import shorten, summarize
    from profiling.analysis.timings import stage_timings
    from profiling.trace.trace import read_traces

    summary = summarize(read_traces(options.path, begun), by=options.by, timings=stage_timings(options.path))
    if options.json:
        write_json(shorten(summary, options.top) if options.top else summary)
        return 0
    from profiling.terminal.traces import show_summary

    show_summary(summary, options.by, options.top or 20)
    return 0


def _add_memory(commands: Any) -> None:
    parser = _command(commands, "memory", _memory, "what memory a trace or run holds, when, and who allocated it")
    parser.add_argument(
        "path", metavar="TRACE|RUN", type=_path, help="a trace file, a folder of them, or - for standard input"
    )
    parser.add_argument("--json", action="store_true", help="everything, as JSON")


def _memory(options: argparse.Namespace) -> int:
    begun = begin_reading(options.path)  # as for a summary
    from profiling.analysis.index import Index
    from profiling.analysis.memory import memory
    from profiling.analysis.summary import SCHEMA_VERSION, describe
    from profiling.trace.trace import read_traces

    traces = read_traces(options.path, begun)
    info = describe(traces)
    devices = [device for window, trace in enumerate(traces) for device in memory(Index(trace), window)]
    if options.json:
        write_json({"schema_version": SCHEMA_VERSION, "trace": info, "memory": devices})
        return 0
    from profiling.terminal.traces import show_memory

    show_memory(info, devices)
    return 0


def _add_check(commands: Any) -> None:
    parser = _command(commands, "check", _check, "can it be read, is it whole, what is in it (status 1 if not whole)")
    parser.add_argument(
        "paths", metavar="TRACE", type=_path, nargs="+", help="trace files, folders of them, or - for standard input"
    )


def _check(options: argparse.Namespace) -> int:
    from profiling.analysis.notes import notes
    from profiling.trace.trace import iterate_traces, split_ranks

    status = 0
    for path in options.paths:
        try:
            for read in iterate_traces(path):
                trace, *_ = split_ranks(read)
                counts = ", ".join(f"{number:,} {category}" for category, number in trace.counts.items())
                state = "whole" if trace.whole else "NOTHING TO ANALYZE" if trace.blank else "PARTIAL"
                lines = [f"{trace.path}: {state}; {trace.backend}, rank {trace.rank}; {counts or 'no events'}"]
                lines += [f"  {note.partition(': ')[2]}" for note in notes(trace)]
                sys.stdout.writelines(f"{visible(line)}\n" for line in lines)
                status = status or (0 if trace.whole else UNREADABLE)
        except TraceError as error:
            print_line(str(error))
            status = UNREADABLE
    return status


def _add_report(commands: Any) -> None:
    parser = _command(commands, "report", _report, "comparisons as one HTML page, or their ladder as a picture")
    parser.add_argument("paths", metavar="RUN", type=Path, nargs="+", help="a comparison, or a folder of many")
    parser.add_argument("-o", dest="out", type=Path, required=True, help="the file to write, .html or .svg")


def _report(options: argparse.Namespace) -> int:
    from profiling.figures.ladder import write_picture
    from profiling.report.page import write_report
    from profiling.verdict.ladder import collect

    if options.out.suffix not in (".html", ".svg"):
        options.parser.error(f"argument -o: {options.out} ends in neither .html nor .svg")
    if not options.out.parent.is_dir():
        options.parser.error(f"argument -o: there is no folder {options.out.parent}")
    try:
        comparisons = collect(options.paths)
        records = [record for _, record in comparisons]
        if options.out.suffix == ".svg":
            write_picture(records, options.out)
        else:
            write_report(records, [folder for folder, _ in comparisons], options.out)
    except ValueError as error:
        print_line(str(error))
        return UNREADABLE
    return 0


def _add_effects(commands: Any) -> None:
    parser = _command(commands, "effects", _effects, "the ladder: every comparison below a path, judged together")
    parser.add_argument("path", metavar="PATH", type=Path, help="a comparison, or a folder of many")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")


def _effects(options: argparse.Namespace) -> int:
    from profiling.verdict.ladder import read_ladder

    ladder = read_ladder(options.path)
    if options.json:
        write_json(ladder)
        return 0
    from profiling.terminal.comparisons import show_ladder

    show_ladder(ladder)
    return 0


def _add_figures(commands: Any) -> None:
    parser = _command(commands, "figures", _figures, "what the TensorBoard tab shows, as JSON: its charts and tables")
    parser.add_argument("path", metavar="TRACE|RUN", type=_path, help="a trace file or a run; with --effects, a folder")
    parser.add_argument("against", metavar="TRACE|RUN", type=_path, nargs="?", help="what to compare the first with")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--by", choices=("shape", "stack"), default="", help="only operators, with rows of their own")
    which.add_argument("--effects", action="store_true", help="the ladder of all comparisons below the folder")


def _figures(options: argparse.Namespace) -> int:
    if options.effects:
        from profiling.figures.effects import effects
        from profiling.verdict.ladder import read_ladder

        write_json(effects(read_ladder(options.path)), compact=True)
    elif options.against is not None:
        from profiling.figures.compared_views import compared_views

        write_json(compared_views(options.path, options.against), compact=True)
    else:
        begun = begin_reading(options.path)  # as for a summary
        from profiling.figures.views import run_views
        from profiling.trace.trace import read_traces

        write_json(run_views(options.path, read_traces(options.path, begun), options.by), compact=True)
    return 0


def _add_diff(commands: Any) -> None:
    parser = _command(commands, "diff", _diff, "what changed between two traces or runs, and what it comes from")
    parser.add_argument("a", metavar="A", type=_path, help="a trace file, a folder of them, or - for standard input")
    parser.add_argument("b", metavar="B", type=_path, help="what to compare it with")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.add_argument("--top", type=count, default=15, metavar="N", help="at most N causes (default: 15)")
    parser.add_argument(
        "--samples", type=count, nargs=2, metavar=("A", "B"), help="samples per step, for traces without a record.json"
    )


def _diff(options: argparse.Namespace) -> int:
    from profiling.diff.diff import diff, load_windows

    samples = options.samples or (None, None)
    difference = diff(load_windows(options.a, samples[0]), load_windows(options.b, samples[1]))
    if options.json:
        write_json(difference)
        return 0
    from profiling.terminal.traces import show_diff

    show_diff(difference, options.top)
    return 0


def _add_ab(commands: Any) -> None:
    from profiling.ab.options import add_options  # light: neither numpy nor the statistics

    add_options(_command(commands, "ab", _ab, "which of two scripts is faster, by how much, how surely"))


def _ab(options: argparse.Namespace) -> int:
    exit_at_once(f"{BEFORE_THE_RUN}\n")
    from profiling.ab.scripts import run

    return run(options)


def ab() -> int:
    """The installed command `abtrace-ab`."""
    return main(["ab", *sys.argv[1:]])


BY = ("operator", "shape", "stack", "phase", "module", "kernel")
COMMANDS: list[Callable[[Any], None]] = [
    _add_summary,
    _add_diff,
    _add_memory,
    _add_check,
    _add_effects,
    _add_figures,
    _add_report,
    _add_ab,
]

if __name__ == "__main__":
    if os.environ.get(STDIN_VARIABLE):
        end_with_parent()
    sys.exit(main())
