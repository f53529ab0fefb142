"""What the terminal says at the end of a run, and of what a step consists."""

import pytest
from msgspec import structs

from profiling.analysis.phases import Step, step_time
from profiling.terminal.runs import claim_lines, print_run
from profiling.terminal.tables import PlainConsole
from tests.profiling.test_run_record import RECORD

HYPOTHESIS = {"topic": "autograd", "claim": "autograd left on is slower"}
NAMES = {"name": ("baseline", "nograd_off"), "hypothesis.claim": ("everything is on", "autograd left on is slower")}


def test_a_single_run_of_an_experiment_says_its_claim_what_differs_and_how_to_measure_it():
    changed = {**NAMES, "switches.eval_context": ("inference_mode", "grad")}
    record = structs.replace(RECORD, config={"hypothesis": HYPOTHESIS}, changed=changed)
    assert claim_lines(record) == [
        "claim: autograd left on is slower; one run cannot tell",
        "differs from the baseline: switches.eval_context: inference_mode -> grad",
        "measure it: python -m train.ab +experiment=nograd_off",
    ]


def test_a_run_of_the_baseline_claims_nothing():
    record = structs.replace(RECORD, config={"hypothesis": {"topic": "baseline"}}, changed={"epochs": (12, 2)})
    assert claim_lines(record) == ["differs from the baseline: epochs: 12 -> 2"]
    assert claim_lines(structs.replace(record, changed={})) == []


def test_the_peak_of_resident_memory_is_said_once(tmp_path, capsys):
    stages = dict.fromkeys(("train", "evaluate", "infer"), RECORD.stages["train"])
    results = {"accuracy": 0.5, "loss": 1.0, "train_samples_per_s": 2.0, "infer_samples_per_s": 2.0}
    print_run(
        PlainConsole(), structs.replace(RECORD, stages=stages, results=results, config={"output": "runs"}), tmp_path
    )
    assert capsys.readouterr().out.count("peak resident") == 1


@pytest.mark.parametrize(
    ("operators", "python", "load", "words"),
    [
        (85.0, 12.0, 3.0, "mostly operators (85 %); waits most for python"),
        (20.0, 75.0, 5.0, "mostly python (75 %)"),
        (95.0, 4.0, 1.0, "mostly operators (95 %)"),
    ],
)
def test_what_a_step_consists_of_is_said_before_what_it_waits_for(operators, python, load, words):
    step = Step(0, 0, 0.0, operators + python + load, load, 0.0, operators, python, {}, "host")
    assert step_time([step], marked=True).words == words
