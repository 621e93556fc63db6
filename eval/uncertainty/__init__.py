"""Whether predicted variances can be trusted."""
