"""The ladder of a multirun: made from what its jobs left on disk, since a launcher may run them in other processes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from profiling.report.page import write_report
from profiling.terminal.comparisons import show_comparisons
from profiling.terminal.streams import standard_output
from profiling.terminal.tables import wide_console
from profiling.verdict.ladder import corrected_records
from profiling.verdict.record import ComparisonRecord, read_comparison
from profiling.vocabulary import COMPARISON_FILE
from train.config import cli, folders


class WriteLadder(Callback):
    """Writes the ladder when a multirun ends; configs/ab.yaml names this class among Hydra's callbacks.

    https://hydra.cc/docs/1.3/experimental/callbacks/
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note that there is a ladder to write."""
        _unfinished.append(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write and print the ladder."""
        write_unfinished()


_unfinished: list[Path] = []


def write_unfinished() -> None:
    """Write and print the ladder of this command, if it has not been: Hydra ends an interrupted multirun in silence."""
    while _unfinished:
        with cli.one_line_errors():
            write_ladder(_unfinished.pop(), missing(folders.jobs))


def missing(jobs: Sequence[tuple[Sequence[str], Path]]) -> list[str]:
    """Of jobs that have ended, overrides and folder, those that left no comparison, by the experiments they name."""
    lost = [overrides for overrides, folder in jobs if not (folder / COMPARISON_FILE).exists()]
    return [next((o for o in overrides if "experiment=" in o), " ".join(overrides)) for overrides in lost]


def comparisons_in(sweep: Path) -> list[tuple[Path, ComparisonRecord]]:
    """Read the comparisons that the jobs of a multirun have left so far, each with its folder."""
    return [(file.parent, read_comparison(file)) for file in sorted(sweep.glob(f"*/{COMPARISON_FILE}"))]


def write_ladder(sweep: Path, missing: Sequence[str] = ()) -> None:
    """Judge the comparisons of a multirun as one family, write one report beside their folders, and print a table.

    Both name the jobs that are `missing`. Nothing is written for fewer than two comparisons.
    """
    comparisons = corrected_records(comparisons_in(sweep))
    if len(comparisons) < 2:
        return
    records = [record for _, record in comparisons]
    report = sweep / "report.html"
    write_report(records, [folder for folder, _ in comparisons], report, missing)
    with standard_output(cli.fail, f"the report is complete: {report}"):
        show_comparisons(wide_console(), records, report, missing)
