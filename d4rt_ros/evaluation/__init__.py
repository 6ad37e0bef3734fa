"""How good the answers are: the field's metrics, data set readers, and baselines that cost nothing."""
