"""Programs that measure: what the search space covers, and how good samplers and schedulers are."""
