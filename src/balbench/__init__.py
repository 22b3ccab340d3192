"""How many human preference labels does active learning save? Simulate, measure, report."""
