"""Training a supernet: one loop; a strategy is a sampler, a criterion and a schedule."""
