# Limits, heartbeats and ratios are recorded in groups of their own, so a rule may see a value that is one evaluation old.
checks {
  disabled = ["rule/dependency"]
}
