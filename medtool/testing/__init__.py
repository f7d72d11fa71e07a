"""Contract tests and synthetic data that plugin authors import; see docs/reference/contracts.md."""
