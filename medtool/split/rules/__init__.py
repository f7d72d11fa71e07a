"""What the audit looks for: one module a family of rules, each of functions from tables to findings."""
