"""How good a model is on labelled data sets, plain and under distribution shift; the paper's figures beside it."""
