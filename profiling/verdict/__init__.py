"""From timings to a verdict: statistics, the rule, the record of a comparison, and the ladder of many."""
