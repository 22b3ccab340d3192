"""The harness: pools, posteriors, policies, the loop over rounds, and the scheduler over cells."""
