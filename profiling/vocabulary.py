"""The words that every part shares: stages, phases, arms and verdicts. Declared once, also for the TensorBoard tab."""

from enum import StrEnum

STAGES = ("train", "evaluate", "infer")

STEP_PHASES = ("load", "transfer", "preprocess", "forward", "loss", "backward", "optimizer", "metrics")
"""The phases of a step of training, in the order in which they run."""

TRACE_PHASES = (*STEP_PHASES, "log", "evaluate", "infer")
"""Every phase that a trace may mark; the last two are the steps of their stages as a whole."""

OUTSIDE = "other"
"""The time that no phase covers."""

PHASE_LABELS = (*TRACE_PHASES, OUTSIDE)
"""The name of each phase by its number; the number of OUTSIDE is len(TRACE_PHASES)."""

BASELINE, VARIANT, TWIN = ARMS = ("baseline", "variant", "twin")
"""The twin runs the baseline's code; the difference between the two is the noise floor."""

COMPARED_ARMS = (BASELINE, VARIANT)
"""The arms that a comparison reports on."""

COMPARISON_FILE = "comparison.json"
"""The record of a comparison; the folders of its arms are beside it."""


DESCRIPTION_KEYS = ("name", "hypothesis.", "output", "ab.")
"""Where keys of a configuration begin that say why, how it is measured and where to, but not what is done."""


class Verdict(StrEnum):
    """What the timings of a phase, or of a whole experiment, say."""

    slower = "slower"
    faster = "faster"
    no_effect = "no detectable effect"
    inconclusive = "inconclusive"
    failed_as_predicted = "failed as predicted"
    failed = "failed"
    not_applicable = "not applicable here"


class Outcome(StrEnum):
    """What became of the hypothesis on this machine."""

    confirmed = "confirmed"
    refuted = "refuted here"
    undecided = "undecided"


ExpectedTime = StrEnum("ExpectedTime", ["slower", "faster", "same", "fails"])
"""What a hypothesis expects of the variant's time; `fails`: the variant stops with an error."""

ExpectedMemory = StrEnum("ExpectedMemory", ["more", "less", "same"])
"""What a hypothesis expects of the variant's peak memory."""

Estimator = StrEnum("Estimator", ["fastest", "mean"])
"""What a time per sample is: that of the fastest steps, which is what the code costs, or the mean of all steps, which
is what a user waits: it has the costs that do not come with every step."""

Agreement = StrEnum("Agreement", ["identical", "close", "different"])
"""How far two sets of results agree, best first."""

VERDICT_SHAPES = {
    Verdict.slower: "M-4,-5L6,0L-4,5Z",
    Verdict.faster: "M4,-5L-6,0L4,5Z",
    Verdict.no_effect: "M4.5,0A4.5,4.5 0 1 1 -4.5,0A4.5,4.5 0 1 1 4.5,0Z",
    Verdict.inconclusive: "M0,-5.5L5.5,0L0,5.5L-5.5,0Z",
    Verdict.failed_as_predicted: "M-4,-4L4,4M-4,4L4,-4",
    Verdict.failed: "M-5.5,-5.5H5.5V5.5H-5.5ZM-3,-3L3,3M-3,3L3,-3",
    Verdict.not_applicable: "M-5,0H5",
}
"""An SVG path around (0, 0) for each verdict, so that verdicts can be told apart without color."""

OUTCOME_MARKS = {Outcome.confirmed: "✓", Outcome.refuted: "✗", Outcome.undecided: "?"}
