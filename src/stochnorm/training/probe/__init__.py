"""The linear probe: a logistic regression on the features of the frozen backbone."""
