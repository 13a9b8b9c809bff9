"""Method auto: several runs within a budget of time, and the choice among them."""
