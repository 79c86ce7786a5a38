"""What can be told of a result without knowing the truth: measurements, evidence, flags that ask a person to look."""
