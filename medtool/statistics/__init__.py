"""How sure a score is: intervals that know which images belong to one patient."""
